"""What an entry says: a user, or the addresses of a list.

What a server matched is looked at once more here: its rules compare more loosely than ours (RFC 4518 ignores
zero-width characters and folds full-width ones), and two spellings of a name must never be one account.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import unicodedata
from collections.abc import Callable

from attrs import frozen

from mailsrv.address import Address
from mailsrv.directory.ldap.connection import LdapEntry
from mailsrv.directory.ldap.filters import Filter, all_of, any_of, configured, equal, negated
from mailsrv.directory.ldap.mapping import ExpiryFormat, LdapMapping
from mailsrv.directory.names import parse_account_name
from mailsrv.directory.passwd_line import parse_size
from mailsrv.interfaces.directory import DirectoryUser

_NEVER = frozenset({"", "0", "9223372036854775807"})
_GENERALIZED_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(?:(\d\d)(\d\d)?)?(?:[.,]\d+)?(Z|[+-]\d{2}(?:\d{2})?)")
_FILETIME_EPOCH = 11_644_473_600
_ACCOUNT_DISABLED = 2


@frozen
class LdapUser:
    """A user with what the directory alone must know."""

    user: DirectoryUser
    dn: str
    aliases: tuple[Address, ...] = ()
    forwards: tuple[Address, ...] = ()


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()


class EntryReader:
    """Reads entries by a mapping. ``seconds`` is the time of day."""

    def __init__(self, mapping: LdapMapping, *, name: str, default_domain: str, seconds: Callable[[], float]) -> None:
        self.mapping = mapping
        self._name = name
        self._default_domain = default_domain
        self._seconds = seconds
        self._group_classes = frozenset(each.lower() for each in mapping.group_classes)
        self._user_classes = frozenset(each.lower() for each in mapping.user_classes)

    # Filters

    def users(self) -> Filter:
        """All users."""
        mapping = self.mapping
        parts = [any_of(equal("objectClass", each) for each in mapping.user_classes)]
        if mapping.user_filter:
            parts.append(configured(mapping.user_filter))
        return all_of(parts)

    def groups(self) -> Filter | None:
        """All groups; None where there are none to be found."""
        mapping = self.mapping
        if not mapping.group_classes:
            return None
        parts = [any_of(equal("objectClass", each) for each in mapping.group_classes)]
        if mapping.group_filter:
            parts.append(configured(mapping.group_filter))
        return all_of(parts)

    def by_address(self, address: Address) -> Filter:
        """Users and groups that may have this address."""
        has = any_of(self._address_tests(address))
        groups = self.groups()
        users = all_of([self.users(), has])
        return users if groups is None else any_of([users, all_of([groups, has])])

    def by_login(self, address: Address) -> Filter:
        """Users that may log in by this name."""
        tests = [*self._address_tests(address)]
        tests += [equal(name, str(address)) for name in self.mapping.login_address]
        if address.domain == self._default_domain:
            tests += [equal(name, address.local_part) for name in self.mapping.login]
        return all_of([self.users(), any_of(tests)])

    def _address_tests(self, address: Address) -> list[Filter]:
        mapping, text = self.mapping, str(address)
        tests = [equal(name, text) for name in mapping.address]
        tests += [equal(name, mapping.alias_prefix + text) for name in mapping.alias]
        if address.domain == self._default_domain:
            # Where names without a domain serve as addresses.
            tests += [equal(name, address.local_part) for name in mapping.address if name in mapping.login]
        return tests

    # Entries

    def is_group(self, entry: LdapEntry) -> bool:
        """Whether its class says so."""
        classes = {each.lower() for each in entry.texts("objectClass")}
        # A user may carry an auxiliary class of both sorts; what can be asked for a password is a user.
        return bool(classes & self._group_classes) and not classes & self._user_classes

    def addresses(self, entry: LdapEntry) -> tuple[Address, ...]:
        """All its addresses, the canonical one first."""
        found: dict[Address, None] = {}
        for name in self.mapping.address:
            values = [each for text in entry.texts(name) if (each := self._address(text)) is not None]
            short = {_plain(each) for login in self.mapping.login for each in entry.texts(login)}
            # Values have no order: the one named like the user is the account, or the first by alphabet.
            values.sort(key=lambda each: (each.local_part not in short, str(each)))
            found.update(dict.fromkeys(values))
        for name in self.mapping.alias:
            found.update(dict.fromkeys(self._aliases(entry, name)))
        return tuple(found)

    def _aliases(self, entry: LdapEntry, name: str) -> list[Address]:
        prefix = self.mapping.alias_prefix
        texts = entry.texts(name)
        if prefix:
            # Active Directory: "SMTP:" is the primary one, x400: and the like are none of ours.
            texts = tuple(text[len(prefix) :] for text in texts if text[: len(prefix)].lower() == prefix.lower())
        return [each for text in texts if (each := self._address(text)) is not None]

    def _address(self, text: str) -> Address | None:
        try:
            return parse_account_name(text, self._default_domain)
        except ValueError:
            return None

    def has_login(self, entry: LdapEntry, address: Address) -> bool:
        """Whether it is really this name that the user has."""
        if address in self.addresses(entry):
            return True
        name = _plain(str(address))
        if any(_plain(text) == name for each in self.mapping.login_address for text in entry.texts(each)):
            return True
        short = _plain(address.local_part)
        return address.domain == self._default_domain and any(
            _plain(text) == short for each in self.mapping.login for text in entry.texts(each)
        )

    def user(self, entry: LdapEntry) -> LdapUser | None:
        """The user of an entry; None without an address."""
        addresses = self.addresses(entry)
        if not addresses:
            return None
        mapping = self.mapping
        may_log_in = not self.objection(entry)
        state = hashlib.blake2b(digest_size=16)
        stamps = [part for name in mapping.state for part in (name, *entry.texts(name))]
        for part in (entry.dn, str(may_log_in), *stamps):
            octets = part.encode("utf-8")
            state.update(len(octets).to_bytes(4) + octets)
        user = DirectoryUser(
            address=addresses[0],
            display_name=next((text for name in mapping.display_name if (text := entry.first(name))), ""),
            quota_octets=self.quota(entry),
            may_log_in=may_log_in,
            fingerprint=state.digest(),
            directory=self._name,
        )
        forwards = [each for name in mapping.forward for each in self._aliases_without_prefix(entry, name)]
        return LdapUser(user, entry.dn, addresses[1:], tuple(dict.fromkeys(forwards)))

    def _aliases_without_prefix(self, entry: LdapEntry, name: str) -> list[Address]:
        return [each for text in entry.texts(name) if (each := self._address(text)) is not None]

    def quota(self, entry: LdapEntry) -> int | None:
        """In octets; None where there is none to be read. 0 is none, too."""
        text = entry.first(self.mapping.quota) if self.mapping.quota else ""
        if not text:
            return None
        try:
            return (
                int(text) * self.mapping.quota_unit if text.isascii() and text.isdigit() else parse_size(text)
            ) or None
        except ValueError:
            return None

    def objection(self, entry: LdapEntry) -> str:
        """Why the user may not log in; "" where nothing speaks against it."""
        mapping = self.mapping
        for rule in mapping.disabled:
            name, _, value = rule.partition("=")
            values = [text.lower() for text in entry.texts(name)]
            if values and (value == "*" or value.lower() in values):
                return f"{name} is {values[0]}"
        if mapping.account_control:
            bits = entry.first(mapping.account_control)
            if bits.lstrip("-").isdigit() and int(bits) & _ACCOUNT_DISABLED:
                return "the account is disabled"
        end = self._end(entry)
        if end is not None and end <= self._seconds():
            return f"the account has expired ({mapping.expires})"
        return ""

    def _end(self, entry: LdapEntry) -> float | None:
        """When the account ends, in seconds of the epoch; None: never."""
        text = entry.first(self.mapping.expires) if self.mapping.expires else ""
        if text in _NEVER or text.startswith("-"):
            return None
        try:
            if self.mapping.expires_format is ExpiryFormat.DAYS:
                return int(text) * 86_400.0
            if self.mapping.expires_format is ExpiryFormat.FILETIME:
                return int(text) / 1e7 - _FILETIME_EPOCH
            return _parse_generalized_time(text)
        except (ValueError, OverflowError):
            # What cannot be read must not open an account that has ended.
            return 0.0

    def member_test(self, dn: str, primary: str = "") -> Filter:
        """Members of a group as the server itself finds them, through all levels."""
        from mailsrv.directory.ldap.filters import in_chain

        tests = [in_chain(self.mapping.member_of, dn)]
        if primary:
            tests.append(equal(self.mapping.primary_group, primary))
        groups = self.groups()
        has = any_of(tests)
        return has if groups is None else all_of([has, negated(groups)])


def _parse_generalized_time(text: str) -> float:
    match = _GENERALIZED_TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time")
    year, month, day, hour, minute, second, zone = match.groups()
    if zone == "Z":
        offset = datetime.timedelta()
    else:
        offset = datetime.timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5] or 0)) * (-1 if zone[0] == "-" else 1)
    moment = datetime.datetime(
        int(year), int(month), int(day), int(hour), int(minute or 0), int(second or 0), tzinfo=datetime.timezone(offset)
    )
    return moment.timestamp()


def relative_identifier(sid: bytes) -> str:
    """The last part of an objectSid (MS-DTYP 2.4.2.2), which primaryGroupID names; "" where it is none."""
    if len(sid) < 12 or len(sid) != 8 + 4 * sid[1]:
        return ""
    return str(int.from_bytes(sid[-4:], "little"))
