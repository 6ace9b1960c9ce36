"""Which attribute means what: a preset (``presets/*.toml``) with the administrator's own changes."""

from __future__ import annotations

import enum
import re
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any, get_args, get_origin, get_type_hints

from attrs import Attribute, evolve, field, fields, frozen

from mailsrv.directory.ldap.filters import check_template, configured, is_attribute
from mailsrv.interfaces.rights import Posters


class ExpiryFormat(enum.Enum):
    """How a directory writes when an account ends."""

    GENERALIZED_TIME = "generalized-time"
    """RFC 4517 3.3.13: 20271231235959Z."""
    DAYS = "days"
    """Days since 1970 (shadowExpire)."""
    FILETIME = "filetime"
    """Tenths of a microsecond since 1601 (accountExpires); 0 and 2^63-1 are never."""


def _attributes(record: object, attribute: Attribute[Any], value: str | tuple[str, ...]) -> None:
    for name in (value,) if isinstance(value, str) else value:
        if name and not is_attribute(name):
            raise ValueError(f"{attribute.name}: {name!r} is no name of an attribute")


def _rules(record: object, attribute: Attribute[Any], value: tuple[str, ...]) -> None:
    for rule in value:
        name, equals, text = rule.partition("=")
        if not is_attribute(name) or not equals or not text:
            raise ValueError(f"{attribute.name}: {rule!r}: expected attribute=value, or attribute=*")


def _filter(record: object, attribute: Attribute[Any], value: str) -> None:
    if value:
        configured(value)


_PLACES = re.compile(r"\{(\w*)\}")


def _place(record: object, attribute: Attribute[Any], value: str) -> None:
    unknown = [name for name in _PLACES.findall(value) if name not in ("base", "suffix", "configuration")]
    if unknown or "\0" in value:
        raise ValueError(
            f"{attribute.name}: expected the DN of an entry; {{base}}, {{suffix}}, {{configuration}} in it"
        )


def _dn_template(record: object, attribute: Attribute[Any], value: str) -> None:
    if value:
        check_template(value)


@frozen
class AliasEntry:
    """Entries that are nothing but an alias."""

    object_class: str = field(default="", validator=_attributes)
    address: tuple[str, ...] = field(default=("mail",), validator=_attributes)
    """Where its addresses stand. A name without a domain is one of the default domain."""
    target: tuple[str, ...] = field(default=(), validator=_attributes)
    """Addresses it stands for, here or elsewhere."""
    target_dn: tuple[str, ...] = field(default=(), validator=_attributes)
    """DNs of the users and groups it stands for."""

    def __attrs_post_init__(self) -> None:
        if not self.object_class or not self.address or not (self.target or self.target_dn):
            raise ValueError("alias_entry: expected object_class, address, and target or target_dn")


@frozen
class LdapMapping:
    """What every preset says and ``[directory.attributes]`` may change. Attributes in tuples are all looked at."""

    user_classes: tuple[str, ...] = ()
    """Entries with one of these object classes are users."""
    user_filter: str = field(default="", validator=_filter)
    """What users must fulfil besides."""
    address: tuple[str, ...] = field(default=("mail",), validator=_attributes)
    """Where the canonical address stands: the first attribute that has a value."""
    alias: tuple[str, ...] = field(default=(), validator=_attributes)
    """Further addresses of a user or a group."""
    alias_prefix: str = ""
    """Values of ``alias`` begin with this (any case), and those that begin otherwise are no mail addresses."""
    alias_entry: tuple[AliasEntry, ...] = ()
    """Entries that are aliases and nothing else, in the form of each object class."""
    login: tuple[str, ...] = field(default=("uid",), validator=_attributes)
    """Short names to log in with, without a domain."""
    login_address: tuple[str, ...] = field(default=(), validator=_attributes)
    """Names with a domain to log in with that are no mail addresses (userPrincipalName)."""
    dn_template: str = field(default="", validator=_dn_template)
    """Users' DNs, where they are not to be searched for the password check; {local}, {domain}, {address}."""
    display_name: tuple[str, ...] = field(default=("displayName", "cn"), validator=_attributes)
    quota: str = field(default="", validator=_attributes)
    """A number with or without a unit (2G)."""
    quota_unit: int = 1
    """Octets that a number without a unit counts in."""
    forward: tuple[str, ...] = field(default=(), validator=_attributes)
    """Addresses a user's mail goes to instead of the mailbox."""
    forward_dn: tuple[str, ...] = field(default=(), validator=_attributes)
    """DNs of users and groups it goes to."""
    forward_copy: tuple[str, ...] = field(default=(), validator=_rules)
    """``attribute=value``: what is forwarded stays in the mailbox, too."""
    disabled: tuple[str, ...] = field(default=(), validator=_rules)
    """``attribute=value``, or ``attribute=*``: the user may not log in."""
    second_factor: tuple[str, ...] = field(default=(), validator=_rules)
    """As ``disabled``: the password alone does not let this user in; app passwords, tokens and certificates do."""
    account_control: str = field(default="", validator=_attributes)
    """Bits; 2 is set: the user may not log in; 2^18: a smart card is demanded, a second factor (MS-ADTS 2.2.16)."""
    account_state: str = field(default="", validator=_attributes)
    """Bits the server computes: the account is locked (16), the password has expired (2^23) (MS-ADTS 2.2.17)."""
    locked_since: str = field(default="", validator=_attributes)
    """When it was locked, in tenths of a microsecond since 1601; asked where ``account_state`` is not shown."""
    locked_seconds: int = 1800
    """How long a lock lasts; 0: until somebody lifts it."""
    expires: str = field(default="", validator=_attributes)
    expires_format: ExpiryFormat = ExpiryFormat.GENERALIZED_TIME
    state: tuple[str, ...] = field(default=("modifyTimestamp",), validator=_attributes)
    """When these change, verified log-ins are checked anew."""
    password_state: tuple[str, ...] = field(default=(), validator=_attributes)
    """Those that change with the password alone. While a user has one of them, other changes end no sessions."""
    group_classes: tuple[str, ...] = ()
    """Entries with one of these object classes are groups: with an address, distribution lists."""
    group_filter: str = field(default="", validator=_filter)
    member_dn: tuple[str, ...] = field(default=("member",), validator=_attributes)
    """DNs of users and of groups."""
    member_name: tuple[str, ...] = field(default=(), validator=_attributes)
    """Users by what their ``member_name_of`` says."""
    member_name_of: str = field(default="uid", validator=_attributes)
    member_address: tuple[str, ...] = field(default=(), validator=_attributes)
    """Plain addresses, here or elsewhere."""
    dn_attribute: str = field(default="entryDN", validator=_attributes)
    """The attribute a server compares DNs by (RFC 5020); empty: members are read one by one."""
    member_of: str = field(default="", validator=_attributes)
    """The attribute of a user that names groups; with ``in_chain`` it is asked instead of the group's own."""
    in_chain: bool = False
    """The server follows ``member_of`` through nested groups itself."""
    primary_group: str = field(default="", validator=_attributes)
    """The attribute of a user that holds the last part of a group's objectSid."""

    token_groups: str = field(default="", validator=_attributes)
    """The attribute of a user that holds the objectSids of all their groups, where the server computes one."""
    group_name: tuple[str, ...] = field(default=("cn",), validator=_attributes)
    """What groups are called in rules: the first attribute that has a value."""
    posting: Posters = Posters.ANYBODY
    """Who may send to a list that says nothing itself."""
    posting_rule: str = field(default="", validator=_attributes)
    """The attribute of a list that says it: a word of ``posting``, or of other mail systems."""
    posting_login: tuple[str, ...] = field(default=(), validator=_rules)
    """``attribute=value``: only who has logged in may send to the list."""
    poster: tuple[str, ...] = field(default=(), validator=_attributes)
    """DNs (of users and groups) and addresses that may send to the list. Without another rule nobody else may."""
    refused_poster: tuple[str, ...] = field(default=(), validator=_attributes)
    """Those that may not."""
    moderated: tuple[str, ...] = field(default=(), validator=_rules)
    """``attribute=value``: only moderators may send to the list."""
    moderator: tuple[str, ...] = field(default=(), validator=_attributes)
    """DNs and addresses of moderators."""
    members_send_as: bool = True
    """Members of a list may send under its address."""
    send_as: tuple[str, ...] = field(default=(), validator=_attributes)
    """DNs and addresses of those who may send under the addresses of this user or list."""
    send_on_behalf: tuple[str, ...] = field(default=(), validator=_attributes)
    """Those who may, where the Sender field says who they are."""
    shared_read: tuple[str, ...] = field(default=(), validator=_attributes)
    """DNs and addresses of those who may read the mailbox of this user or group."""
    shared_write: tuple[str, ...] = field(default=(), validator=_attributes)
    """Those who may read and change it."""
    domain_base: str = field(default="", validator=_place)
    """Where domains stand: {base} is that of users, {suffix} the whole tree, {configuration} that of Active Directory's
    configuration; empty: {base}."""
    domain_filter: str = field(default="", validator=_filter)
    """Entries that are domains, or have some."""
    domain: tuple[str, ...] = field(default=("associatedDomain",), validator=_attributes)
    """Domains of ours, or addresses in them: of each entry the first attribute that has a value."""
    domain_alias: tuple[str, ...] = field(default=(), validator=_attributes)
    """Further names of the domain of the same entry."""
    domain_alias_of: tuple[str, ...] = field(default=(), validator=_attributes)
    """The domain that those of the same entry are other names of."""

    def __attrs_post_init__(self) -> None:
        if self.locked_seconds < 0 or self.quota_unit < 1:
            raise ValueError("locked_seconds and quota_unit: expected no negative number")

    @property
    def has_rights(self) -> bool:
        """Whether it says anything about who may send as whom, or to lists."""
        return self.posting is not Posters.ANYBODY or not self.members_send_as or bool(self.right_attributes())

    def right_attributes(self) -> tuple[str, ...]:
        """The attributes in which rights stand."""
        names = [
            self.posting_rule,
            *(rule.partition("=")[0] for rule in (*self.posting_login, *self.moderated)),
            *self.poster,
            *self.refused_poster,
            *self.moderator,
            *self.send_as,
            *self.send_on_behalf,
            *self.shared_read,
            *self.shared_write,
        ]
        return tuple(dict.fromkeys(name for name in names if name))

    def wanted(self) -> tuple[str, ...]:
        """All attributes a look-up asks for."""
        # Where the server follows groups itself, their members are asked for apart: not all of them twice.
        members = () if self.in_chain and self.member_of else (*self.member_dn, *self.member_name)
        names = [
            "objectClass",
            *self.address,
            *self.alias,
            *self.login,
            *self.login_address,
            *self.display_name,
            self.quota,
            *self.forward,
            *self.forward_dn,
            *(rule.partition("=")[0] for rule in (*self.disabled, *self.second_factor, *self.forward_copy)),
            self.account_control,
            self.account_state,
            self.locked_since,
            self.expires,
            *self.state,
            *self.password_state,
            *members,
            *self.member_address,
            *(name for each in self.alias_entry for name in (*each.address, *each.target, *each.target_dn)),
            "objectSid" if self.primary_group else "",
        ]
        return tuple(dict.fromkeys(name for name in names if name))


def preset_names() -> tuple[str, ...]:
    """What there is."""
    folder = resources.files("mailsrv.directory.ldap") / "presets"
    return tuple(sorted(each.name.removesuffix(".toml") for each in folder.iterdir() if each.name.endswith(".toml")))


def preset_text(name: str) -> str:
    """The file of a preset. Raises ValueError for a name there is none of."""
    if name not in preset_names():
        raise ValueError(f"there is no preset {name!r}; there are {', '.join(preset_names())}")
    return (resources.files("mailsrv.directory.ldap") / "presets" / f"{name}.toml").read_text("utf-8")


@lru_cache
def load_preset(name: str) -> LdapMapping:
    """The mapping of a preset. Raises ValueError."""
    return changed(LdapMapping(), tomllib.loads(preset_text(name)))


def changed(mapping: LdapMapping, changes: Mapping[str, Any]) -> LdapMapping:
    """The mapping with these values instead. Raises ValueError, naming the key."""
    types = get_type_hints(LdapMapping)
    values: dict[str, Any] = {}
    for key, value in changes.items():
        if key not in types:
            raise ValueError(f"unknown key {key!r}; known here: {', '.join(each.name for each in fields(LdapMapping))}")
        values[key] = _converted(key, types[key], value)
    return evolve(mapping, **values)


def _alias_entries(key: str, value: Any) -> tuple[AliasEntry, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{key}: expected tables")
    types = get_type_hints(AliasEntry)
    entries = []
    for each in value:
        if isinstance(each, AliasEntry):
            entries.append(each)
            continue
        if not isinstance(each, Mapping) or not types.keys() >= each.keys():
            raise ValueError(f"{key}: expected tables of {', '.join(types)}")
        entries.append(
            AliasEntry(**{name: _converted(f"{key}.{name}", types[name], one) for name, one in each.items()})
        )
    return tuple(entries)


def _converted(key: str, expected: Any, value: Any) -> Any:
    if get_origin(expected) is tuple:
        item = get_args(expected)[0]
        if item is AliasEntry:
            return _alias_entries(key, value)
        if not isinstance(value, list | tuple) or not all(isinstance(each, item) for each in value):
            raise ValueError(f"{key}: expected a list of texts")
        return tuple(value)
    if isinstance(expected, type) and issubclass(expected, enum.Enum):
        try:
            return value if isinstance(value, expected) else expected(value)
        except ValueError:
            raise ValueError(f"{key}: expected one of {', '.join(str(each.value) for each in expected)}") from None
    if type(value) is not expected:
        raise ValueError(f"{key}: expected {'true or false' if expected is bool else expected.__name__}")
    return value
