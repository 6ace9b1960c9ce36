"""Everything adjustable about domains, directories and password hashes."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from attrs import Attribute, field, frozen, validators

from mailsrv.address import AddressError, parse_domain
from mailsrv.directory.ldap.changes_mode import ChangesMode
from mailsrv.directory.ldap.filters import is_attribute
from mailsrv.directory.ldap.login_check import LoginCheck
from mailsrv.directory.ldap.mapping import LdapMapping, changed, preset_names
from mailsrv.directory.ldap.servers import parse_server
from mailsrv.directory.ldap.service_records import SCHEME, SrvTrust, parse_service


def _domains(record: object, attribute: Attribute[Any], value: str | tuple[str, ...]) -> None:
    for domain in (value,) if isinstance(value, str) else value:
        try:
            parse_domain(domain)
        except AddressError as error:
            raise ValueError(f"{domain!r} is no domain", attribute) from error


@frozen
class DomainSettings:
    """One ``[[domain]]``: mail for it is delivered here."""

    name: str = field(validator=_domains, metadata={"help": "The domain.", "example": "example.test"})
    aliases: tuple[str, ...] = field(
        default=(),
        validator=_domains,
        metadata={"help": "Further domains whose addresses mean the same as those of this one."},
    )
    subaddress_delimiter: str = field(
        default="+",
        metadata={"help": 'What separates a user from the detail of a subaddress (alice+lists@…); "" for none.'},
    )
    postmaster: str = field(
        default="",
        metadata={
            "help": "Who gets mail for postmaster where neither a user nor an alias has that name; "
            "empty: the first user by alphabet. Mail for postmaster is never refused.",
            "example": "alice@example.test",
        },
    )
    catch_all: str = field(
        default="",
        metadata={
            "help": "Who gets mail for names nobody has, here or elsewhere; empty: it is refused. Spam grows with it.",
            "example": "alice@example.test",
        },
    )


class DirectoryType(enum.Enum):
    """What kind of directory it is."""

    PASSWD_FILE = "passwd-file"  # noqa: S105 - the name of a format
    ALIAS_FILE = "alias-file"
    ALIASES = "aliases"
    LDAP = "ldap"


def _presets(record: object, attribute: Attribute[Any], value: str) -> None:
    if value not in preset_names():
        raise ValueError(f"expected one of {', '.join(preset_names())}", attribute)


def _uris(record: DirectorySettings, attribute: Attribute[Any], value: tuple[str, ...]) -> None:
    for uri in value:
        try:
            if uri.startswith(SCHEME):
                parse_service(uri)
            else:
                parse_server(uri, starttls=True)
        except ValueError as error:
            raise ValueError(str(error), attribute) from error


def _mapping(record: DirectorySettings, attribute: Attribute[Any], value: Mapping[str, Any]) -> None:
    try:
        changed(LdapMapping(), value)
    except ValueError as error:
        raise ValueError(str(error), attribute) from error


def _attribute_name(attribute: Attribute[Any], value: str) -> None:
    if not is_attribute(value):
        raise ValueError(f"{value!r} is no name of an attribute", attribute)


def _empty() -> Mapping[str, Any]:
    return {}


@frozen
class DirectorySettings:
    """One ``[[directory]]``; they are asked in order."""

    type: DirectoryType = field(
        metadata={
            "help": "passwd-file: users, in Dovecot's format. alias-file: lines of 'address: target, target'. "
            "aliases: names for all domains, in the form of /etc/aliases. ldap: users and groups of a server.",
        },
    )
    path: str = field(default="", metadata={"help": "The file.", "example": "mailsrv.passwd"})
    domain: str = field(
        default="",
        validator=lambda record, attribute, value: _domains(record, attribute, value) if value else None,
        metadata={
            "help": "aliases: the domain its names are of; empty: all domains, and names on the right are of "
            "auth.default_domain.",
            "example": "example.test",
        },
    )
    check_seconds: float = field(
        default=1.0,
        validator=validators.ge(0),
        metadata={"help": "How often, at most, the file is looked at for changes.", "unit": "s"},
    )
    deadline_seconds: float = field(
        default=5.0,
        validator=validators.gt(0),
        metadata={
            "help": "A file that cannot be read, or a question that no server answers, in this time is unavailable.",
            "unit": "s",
        },
    )
    max_octets: int = field(default=64 * 1024 * 1024, metadata={"help": "A larger file is refused.", "unit": "octets"})
    uri: tuple[str, ...] = field(
        default=(),
        validator=_uris,
        metadata={
            "help": "ldap: the servers, the preferred one first: ldap://HOST (with StartTLS), ldaps://HOST, or "
            "ldapi://%2Frun%2Fldapi for a Unix socket. srv:DOMAIN: those that the DNS names (SRV).",
            "example": '["ldap://ldap1.example.test", "ldap://ldap2.example.test"]',
        },
    )
    preset: str = field(
        default="openldap",
        validator=_presets,
        metadata={
            "help": "ldap: what the attributes mean: openldap, active-directory, freeipa or samba-ad. "
            "mailsrvctl ldap preset NAME shows it."
        },
    )
    base: str = field(
        default="",
        metadata={"help": "ldap: users and groups are searched below this entry.", "example": "dc=example,dc=test"},
    )
    starttls: bool = field(
        default=True,
        metadata={"help": "ldap: whether ldap:// begins with StartTLS. Without it passwords travel readable."},
    )
    srv_trust: SrvTrust = field(
        default=SrvTrust.DNSSEC,
        metadata={
            "help": "ldap: with srv:, whose certificate is taken. dnssec: that of the host the DNS named if DNSSEC "
            "proves the answer, otherwise only one for the domain itself. subdomains: without proof also that of any "
            "host in the domain."
        },
    )
    login: LoginCheck = field(
        default=LoginCheck.BIND,
        metadata={
            "help": "ldap: how passwords are checked. bind: the server does it. compare: the service account reads the "
            "stored hash, and we compare."
        },
    )
    password_attribute: str = field(
        default="userPassword",
        validator=lambda record, attribute, value: _attribute_name(attribute, value),
        metadata={"help": "ldap: with login = compare, where hashes are stored: {SCHEME}value, as in passwd-files."},
    )
    ca_file: str = field(
        default="",
        metadata={
            "help": "ldap: PEM file of the authorities that the servers' certificates come from; empty: the system's.",
            "example": "/etc/mailsrv/ldap-ca.pem",
        },
    )
    client_certificate_file: str = field(
        default="", metadata={"help": "ldap: certificate we show the servers.", "example": "/etc/mailsrv/ldap.pem"}
    )
    client_key_file: str = field(
        default="",
        metadata={"help": "ldap: its key; empty: in the same file.", "example": "/etc/mailsrv/ldap.key"},
    )
    bind_external: bool = field(
        default=False, metadata={"help": "ldap: searches are made as the client certificate says (SASL EXTERNAL)."}
    )
    bind_dn: str = field(
        default="",
        metadata={
            "help": "ldap: the account that searches are made with; empty: anonymous.",
            "example": "cn=mailsrv,ou=services,dc=example,dc=test",
        },
    )
    bind_password_file: str = field(
        default="",
        metadata={"help": "ldap: file with its password, and nothing else.", "example": "/etc/mailsrv/ldap.secret"},
    )
    threads: int = field(
        default=4, validator=validators.ge(1), metadata={"help": "ldap: connections for searches, in each worker."}
    )
    login_threads: int = field(
        default=4,
        validator=validators.ge(1),
        metadata={"help": "ldap: connections on which users' passwords are checked, in each worker."},
    )
    queued_requests: int = field(
        default=256,
        validator=validators.ge(1),
        metadata={"help": "ldap: requests that may wait for a connection; past it the answer is a temporary failure."},
    )
    attempt_seconds: float = field(
        default=2.0,
        validator=validators.gt(0),
        metadata={"help": "ldap: after so long without an answer the next server is asked.", "unit": "s"},
    )
    retry_seconds: float = field(
        default=15.0,
        validator=validators.ge(1),
        metadata={"help": "ldap: how often, at least, a server that is down is tried again.", "unit": "s"},
    )
    idle_seconds: float = field(
        default=300.0,
        validator=validators.gt(0),
        metadata={"help": "ldap: a connection nobody used for so long is closed.", "unit": "s"},
    )
    cache_seconds: float = field(
        default=30.0,
        validator=validators.ge(0),
        metadata={"help": "ldap: how old an answer about an address may be.", "unit": "s"},
    )
    outage_seconds: float = field(
        default=3600.0,
        validator=validators.ge(0),
        metadata={
            "help": "ldap: while no server answers, mail for recipients seen within this time is taken; log-ins wait.",
            "unit": "s",
        },
    )
    cache_entries: int = field(
        default=20_000, validator=validators.ge(1), metadata={"help": "ldap: answers remembered, in each worker."}
    )
    changes: ChangesMode = field(
        default=ChangesMode.CACHE,
        metadata={
            "help": "ldap: how changes are noticed before remembered answers run out. cache: not; poll: by asking for "
            "what is newer (uSNChanged, modifyTimestamp); sync: told by the server (RFC 4533); persistent-search: "
            "told by servers that have no sync; auto: the best of these that the server offers."
        },
    )
    changes_seconds: float = field(
        default=10.0,
        validator=validators.ge(1),
        metadata={"help": "ldap: how often is asked where changes are polled.", "unit": "s"},
    )
    group_members: int = field(
        default=10_000, validator=validators.ge(1), metadata={"help": "ldap: mail for a group with more members waits."}
    )
    user_groups: int = field(
        default=1000,
        validator=validators.ge(1),
        metadata={"help": "ldap: who is in more groups cannot log in where there are rules on groups."},
    )
    administrator_groups: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "ldap: users in one of these groups, directly or through others, are administrators: they may act "
            "for other users where auth.impersonation allows it.",
            "example": ["mail-admins"],
        },
    )
    attributes: Mapping[str, Any] = field(
        factory=_empty,
        validator=_mapping,
        metadata={"help": "ldap: what differs from the preset, by its keys."},
    )


class ScramMechanism(enum.Enum):
    """A mechanism that needs keys of its own."""

    SHA_256 = "SCRAM-SHA-256"
    SHA_1 = "SCRAM-SHA-1"


@frozen
class PasswordSettings:
    """``[passwords]``: how new password hashes are made, and how many are computed at a time.

    The defaults take about 50 ms and 19 MiB a log-in (RFC 9106 section 4 leaves the choice to memory).
    """

    argon2_time_cost: int = field(
        default=2, validator=validators.ge(1), metadata={"help": "Argon2id passes over the memory, for new hashes."}
    )
    argon2_memory_kib: int = field(
        default=19 * 1024, metadata={"help": "Argon2id memory, for new hashes.", "unit": "KiB"}
    )
    argon2_parallelism: int = field(
        default=1, validator=validators.ge(1), metadata={"help": "Argon2id lanes, for new hashes."}
    )
    hash_threads: int = field(
        default=2,
        validator=validators.ge(1),
        metadata={"help": "Password hashes computed at the same time, per process."},
    )
    hash_queue: int = field(
        default=128,
        validator=validators.ge(0),
        metadata={"help": "Log-ins that may wait for a hash; past it the answer is a temporary failure."},
    )
    scram: tuple[ScramMechanism, ...] = field(
        default=(ScramMechanism.SHA_256,),
        metadata={
            "help": "For which mechanisms keys are stored beside the hash when a password is set: SCRAM-SHA-256, "
            "SCRAM-SHA-1. Without keys nobody can log in by them; with them a stolen file is cheaper to guess at."
        },
    )
    scram_iterations: int = field(
        default=100_000,
        validator=validators.and_(validators.ge(4096), validators.le(10_000_000)),
        metadata={"help": "Rounds of PBKDF2 for such keys; the client computes them at every log-in."},
    )
