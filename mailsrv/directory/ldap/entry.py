"""What an entry says: a user, the addresses of a list, or an alias and nothing else.

What a server matched is looked at once more here: its rules compare more loosely than ours (RFC 4518 ignores
zero-width characters and folds full-width ones), and two spellings of a name must never be one account.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from attrs import frozen

from mailsrv.address import Address
from mailsrv.directory.ldap.connection import LdapEntry
from mailsrv.directory.ldap.filters import Filter, all_of, any_of, configured, equal, in_chain, negated
from mailsrv.directory.ldap.mapping import AliasEntry, LdapMapping
from mailsrv.directory.ldap.standing import matches, needs_second_factor, objection
from mailsrv.directory.names import parse_account_name
from mailsrv.directory.passwd_line import parse_size
from mailsrv.interfaces.directory import DirectoryUser

MOST_OCTETS = 2**63 - 1
"""What databases and protocols count to."""


@frozen
class LdapUser:
    """A user with what the directory alone must know."""

    user: DirectoryUser
    dn: str
    aliases: tuple[Address, ...] = ()
    forwards: tuple[Address, ...] = ()
    forward_dns: tuple[str, ...] = ()
    """Entries whose addresses it is forwarded to."""
    keeps_copy: bool = False
    """What is forwarded stays here, too."""


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()


def _digest(entry: LdapEntry, attributes: Sequence[str], *more: str) -> bytes:
    """Stands for the values of some attributes."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (*more, *(part for name in attributes for part in (name, *entry.texts(name)))):
        octets = part.encode("utf-8")
        digest.update(len(octets).to_bytes(4) + octets)
    return digest.digest()


class EntryReader:
    """Reads entries by a mapping. ``seconds`` is the time of day."""

    def __init__(self, mapping: LdapMapping, *, name: str, default_domain: str, seconds: Callable[[], float]) -> None:
        self.mapping = mapping
        self._name = name
        self._default_domain = default_domain
        self._seconds = seconds
        self._group_classes = frozenset(each.lower() for each in mapping.group_classes)
        self._user_classes = frozenset(each.lower() for each in mapping.user_classes)
        self._alias_entries = {each.object_class.lower(): each for each in mapping.alias_entry}

    # Filters

    def users(self) -> Filter:
        """All users."""
        mapping = self.mapping
        parts = [any_of(equal("objectClass", each) for each in mapping.user_classes)]
        if mapping.user_filter:
            parts.append(configured(mapping.user_filter))
        return all_of(parts)

    def no_excluded_users(self) -> Filter | None:
        """All but entries that only ``user_filter`` keeps from being users; None where it keeps out nobody."""
        if not self.mapping.user_filter:
            return None
        return any_of([self.users(), negated(any_of(equal("objectClass", each) for each in self.mapping.user_classes))])

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
        """Users, groups and alias entries that may have this address."""
        has = any_of(self._address_tests(address))
        groups = self.groups()
        wanted = [all_of([self.users(), has])]
        if groups is not None:
            wanted.append(all_of([groups, has]))
        names = [str(address), address.local_part] if address.domain == self._default_domain else [str(address)]
        for kind in self.mapping.alias_entry:
            tests = any_of(equal(attribute, name) for attribute in kind.address for name in names)
            wanted.append(all_of([equal("objectClass", kind.object_class), tests]))
        return any_of(wanted)

    def by_addresses(self, addresses: Iterable[Address]) -> Filter:
        """Users that may have one of these addresses."""
        return all_of([self.users(), any_of([test for each in addresses for test in self._address_tests(each)])])

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

    def has_user_class(self, entry: LdapEntry) -> bool:
        """Whether its class says that it is a user."""
        return not self._user_classes.isdisjoint(each.lower() for each in entry.texts("objectClass"))

    def alias_form(self, entry: LdapEntry) -> AliasEntry | None:
        """How an alias entry is to be read; None where the entry is a user or a group, whatever else it is."""
        classes = {each.lower() for each in entry.texts("objectClass")}
        if classes & (self._group_classes | self._user_classes):
            return None
        return next((form for name, form in self._alias_entries.items() if name in classes), None)

    def targets(self, entry: LdapEntry, form: AliasEntry) -> tuple[Address, ...]:
        """The plain addresses that an alias entry stands for."""
        return tuple(dict.fromkeys(each for name in form.target for each in self._plain_addresses(entry, name)))

    def addresses(self, entry: LdapEntry) -> tuple[Address, ...]:
        """All its addresses, the canonical one first."""
        found: dict[Address, None] = {}
        form = self.alias_form(entry)
        if form is not None:
            return tuple(dict.fromkeys(each for name in form.address for each in self._plain_addresses(entry, name)))
        for name in self.mapping.address:
            values = [each for text in entry.texts(name) if (each := self._address(text)) is not None]
            short = {_plain(each) for login in self.mapping.login for each in entry.texts(login)}
            # Values have no order: the one named like the user is the account, or the first by alphabet.
            values.sort(key=lambda each: (each.local_part not in short, str(each)))
            found.update(dict.fromkeys(values))
        for name in self.mapping.alias:
            found.update(dict.fromkeys(self._aliases(entry, name)))
        return tuple(found)

    def where(self, entry: LdapEntry, address: Address) -> str:
        """The attribute in which an address of the entry stands; "" where it stands in none."""
        form = self.alias_form(entry)
        names = (*self.mapping.address, *self.mapping.alias) if form is None else form.address
        return next((name for name in names if address in self._plain_addresses(entry, name)), "")

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
        has_stamp = any(entry.texts(name) for name in mapping.password_state)
        user = DirectoryUser(
            address=addresses[0],
            display_name=next((text for name in mapping.display_name if (text := entry.first(name))), ""),
            quota_octets=self.quota(entry),
            may_log_in=may_log_in,
            needs_second_factor=needs_second_factor(entry, mapping),
            fingerprint=_digest(entry, mapping.state, entry.dn, str(may_log_in)),
            password_stamp=_digest(entry, mapping.password_state) if has_stamp else b"",
            directory=self._name,
        )
        named = dict.fromkeys(each for name in mapping.forward for each in self._plain_addresses(entry, name))
        return LdapUser(
            user,
            entry.dn,
            addresses[1:],
            tuple(each for each in named if each not in addresses),
            tuple(dn for name in mapping.forward_dn for dn in entry.texts(name) if dn),
            # Who forwards to their own address, too, means the mailbox.
            bool(matches(entry, mapping.forward_copy)) or not named.keys().isdisjoint(addresses),
        )

    def _plain_addresses(self, entry: LdapEntry, name: str) -> list[Address]:
        """Addresses with or without the prefix of aliases."""
        prefix = self.mapping.alias_prefix.lower()
        texts = [text[len(prefix) :] if text.lower().startswith(prefix) else text for text in entry.texts(name)]
        return [each for text in texts if (each := self._address(text)) is not None]

    def group_name(self, entry: LdapEntry) -> str:
        """What a group is called in rules; "" where it has no name."""
        return next((text for name in self.mapping.group_name if (text := entry.first(name))), "")

    def quota(self, entry: LdapEntry) -> int | None:
        """In octets; None where there is none to be read. 0 is none, too; what no file could count is the most."""
        text = entry.first(self.mapping.quota) if self.mapping.quota else ""
        if not text:
            return None
        try:
            is_plain = text.isascii() and text.isdigit()
            octets = int(text) * self.mapping.quota_unit if is_plain else parse_size(text)
            return min(octets, MOST_OCTETS) or None
        except ValueError:
            return None

    def objection(self, entry: LdapEntry) -> str:
        """Why the user may not log in; "" where nothing speaks against it."""
        return objection(entry, self.mapping, self._seconds())

    def member_test(self, dn: str, primary: str = "") -> Filter:
        """Members of a group as the server itself finds them, through all levels."""
        tests = [in_chain(self.mapping.member_of, dn)]
        if primary:
            tests.append(equal(self.mapping.primary_group, primary))
        groups, included = self.groups(), self.no_excluded_users()
        parts = [any_of(tests)]
        if groups is not None:
            parts.append(negated(groups))
        if included is not None:
            parts.append(included)
        return all_of(parts)


def relative_identifier(sid: bytes) -> str:
    """The last part of an objectSid (MS-DTYP 2.4.2.2), which primaryGroupID names; "" where it is none."""
    if len(sid) < 12 or len(sid) != 8 + 4 * sid[1]:
        return ""
    return str(int.from_bytes(sid[-4:], "little"))
