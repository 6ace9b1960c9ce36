"""Everything adjustable about domains, directories and password hashes."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from attrs import Attribute, Factory, frozen

from mailsrv.address.setting_check import are_domains, is_domain_or_empty
from mailsrv.directory.ldap.changes_mode import ChangesMode
from mailsrv.directory.ldap.filters import is_attribute
from mailsrv.directory.ldap.login_check import LoginCheck
from mailsrv.directory.ldap.mapping import LdapMapping, changed, preset_names
from mailsrv.directory.ldap.servers import parse_server
from mailsrv.directory.ldap.service_records import SCHEME, SrvTrust, parse_service
from mailsrv.setting import required, setting


@frozen
class DomainSettings:
    """One ``[[domain]]``: mail for it is delivered here."""

    name: str = required("The domain.", check=are_domains, example="example.test")
    aliases: tuple[str, ...] = setting(
        (), "Further domains whose addresses mean the same as those of this one.", check=are_domains
    )
    subaddress_delimiter: str = setting(
        "+", 'What separates a user from the detail of a subaddress (alice+lists@…); "" for none.'
    )
    postmaster: str = setting(
        "",
        "Who gets mail for postmaster where neither a user nor an alias has that name; "
        "empty: the first user by alphabet. Mail for postmaster is never refused.",
        example="alice@example.test",
    )
    catch_all: str = setting(
        "",
        "Who gets mail for names nobody has, here or elsewhere; empty: it is refused. Spam grows with it.",
        example="alice@example.test",
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
        raise ValueError("expected the name of an attribute", attribute)


def _empty() -> Mapping[str, Any]:
    return {}


@frozen
class DirectorySettings:
    """One ``[[directory]]``; they are asked in order."""

    type: DirectoryType = required(
        "passwd-file: users, in Dovecot's format. alias-file: lines of 'address: target, target'. "
        "aliases: names for all domains, in the form of /etc/aliases. ldap: users and groups of a server."
    )
    path: str = setting("", "The file.", example="mailsrv.passwd")
    domain: str = setting(
        "",
        "aliases: the domain its names are of; empty: all domains, and names on the right are of auth.default_domain.",
        check=is_domain_or_empty,
        example="example.test",
    )
    check_seconds: float = setting(1.0, "How often, at most, the file is looked at for changes.", at_least=0, unit="s")
    deadline_seconds: float = setting(
        5.0,
        "A file that cannot be read, or a question that no server answers, in this time is unavailable.",
        above=0,
        unit="s",
    )
    max_octets: int = setting(64 * 1024 * 1024, "A larger file is refused.", unit="octets")
    uri: tuple[str, ...] = setting(
        (),
        "ldap: the servers, the preferred one first: ldap://HOST (with StartTLS), ldaps://HOST, or "
        "ldapi://%2Frun%2Fldapi for a Unix socket. srv:DOMAIN: those that the DNS names (SRV).",
        check=_uris,
        example='["ldap://ldap1.example.test", "ldap://ldap2.example.test"]',
    )
    preset: str = setting(
        "openldap",
        "ldap: what the attributes mean: openldap, active-directory, freeipa or samba-ad. "
        "mailsrvctl ldap preset NAME shows it.",
        check=_presets,
    )
    base: str = setting("", "ldap: users and groups are searched below this entry.", example="dc=example,dc=test")
    starttls: bool = setting(True, "ldap: whether ldap:// begins with StartTLS. Without it passwords travel readable.")
    srv_trust: SrvTrust = setting(
        SrvTrust.DNSSEC,
        "ldap: with srv:, whose certificate is taken. dnssec: that of the host the DNS named if DNSSEC "
        "proves the answer, otherwise only one for the domain itself. subdomains: without proof also that of any "
        "host in the domain.",
    )
    login: LoginCheck = setting(
        LoginCheck.BIND,
        "ldap: how passwords are checked. bind: the server does it. compare: the service account reads the "
        "stored hash, and we compare.",
    )
    password_attribute: str = setting(
        "userPassword",
        "ldap: with login = compare, where hashes are stored: {SCHEME}value, as in passwd-files.",
        check=lambda record, attribute, value: _attribute_name(attribute, value),
    )
    ca_file: str = setting(
        "",
        "ldap: PEM file of the authorities that the servers' certificates come from; empty: the system's.",
        example="/etc/mailsrv/ldap-ca.pem",
    )
    client_certificate_file: str = setting(
        "", "ldap: certificate we show the servers.", example="/etc/mailsrv/ldap.pem"
    )
    client_key_file: str = setting("", "ldap: its key; empty: in the same file.", example="/etc/mailsrv/ldap.key")
    bind_external: bool = setting(False, "ldap: searches are made as the client certificate says (SASL EXTERNAL).")
    bind_dn: str = setting(
        "",
        "ldap: the account that searches are made with; empty: anonymous.",
        example="cn=mailsrv,ou=services,dc=example,dc=test",
    )
    bind_password_file: str = setting(
        "", "ldap: file with its password, and nothing else.", example="/etc/mailsrv/ldap.secret"
    )
    threads: int = setting(4, "ldap: connections for searches, in each worker.", at_least=1)
    login_threads: int = setting(
        4, "ldap: connections on which users' passwords are checked, in each worker.", at_least=1
    )
    queued_requests: int = setting(
        256, "ldap: requests that may wait for a connection; past it the answer is a temporary failure.", at_least=1
    )
    attempt_seconds: float = setting(
        2.0, "ldap: after so long without an answer the next server is asked.", above=0, unit="s"
    )
    retry_seconds: float = setting(
        15.0, "ldap: how often, at least, a server that is down is tried again.", at_least=1, unit="s"
    )
    idle_seconds: float = setting(300.0, "ldap: a connection nobody used for so long is closed.", above=0, unit="s")
    cache_seconds: float = setting(30.0, "ldap: how old an answer about an address may be.", at_least=0, unit="s")
    outage_seconds: float = setting(
        3600.0,
        "ldap: while no server answers, mail for recipients seen within this time is taken; log-ins wait.",
        at_least=0,
        unit="s",
    )
    cache_entries: int = setting(20_000, "ldap: answers remembered, in each worker.", at_least=1)
    changes: ChangesMode = setting(
        ChangesMode.CACHE,
        "ldap: how changes are noticed before remembered answers run out. cache: not; poll: by asking for "
        "what is newer (uSNChanged, modifyTimestamp); sync: told by the server (RFC 4533); persistent-search: "
        "told by servers that have no sync; auto: the best of these that the server offers.",
    )
    changes_seconds: float = setting(10.0, "ldap: how often is asked where changes are polled.", at_least=1, unit="s")
    group_members: int = setting(10_000, "ldap: mail for a group with more members waits.", at_least=1)
    user_groups: int = setting(
        1000, "ldap: who is in more groups cannot log in where there are rules on groups.", at_least=1
    )
    administrator_groups: tuple[str, ...] = setting(
        (),
        "ldap: users in one of these groups, directly or through others, are administrators: they may act "
        "for other users where auth.impersonation allows it.",
        example=["mail-admins"],
    )
    domains: bool = setting(
        False,
        "ldap: mail for the domains that the directory lists is delivered here, beside those of [[domain]]; where they "
        "stand is said by domain_base, domain_filter, domain, domain_alias and domain_alias_of of attributes.",
    )
    domains_seconds: float = setting(
        30.0, "ldap: how often it is asked for its domains.", at_least=1, at_most=3600, unit="s"
    )
    domains_limit: int = setting(
        10_000, "ldap: a longer list of domains (other names included) is not taken.", at_least=1, at_most=1_000_000
    )
    attributes: Mapping[str, Any] = setting(
        Factory(_empty), "ldap: what differs from the preset, by its keys.", check=_mapping
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

    argon2_time_cost: int = setting(2, "Argon2id passes over the memory, for new hashes.", at_least=1)
    argon2_memory_kib: int = setting(19 * 1024, "Argon2id memory, for new hashes.", unit="KiB")
    argon2_parallelism: int = setting(1, "Argon2id lanes, for new hashes.", at_least=1)
    hash_threads: int = setting(2, "Password hashes computed at the same time, per process.", at_least=1)
    hash_queue: int = setting(
        128, "Log-ins that may wait for a hash; past it the answer is a temporary failure.", at_least=0
    )
    scram: tuple[ScramMechanism, ...] = setting(
        (ScramMechanism.SHA_256,),
        "For which mechanisms keys are stored beside the hash when a password is set: SCRAM-SHA-256, "
        "SCRAM-SHA-1. Without keys nobody can log in by them; with them a stolen file is cheaper to guess at.",
    )
    scram_iterations: int = setting(
        100_000,
        "Rounds of PBKDF2 for such keys; the client computes them at every log-in.",
        at_least=4096,
        at_most=10_000_000,
    )
