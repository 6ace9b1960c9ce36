"""Combinations of settings that cannot work, found before anything is started.

A rule looks at what it needs and knows nothing of other mistakes: where something it looks at is one of
them already, it has nothing to say (:mod:`mailsrv.config.partial`). What can be judged alone is a generator
of its own, so that one mistake does not hide another.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Set

from mailsrv.address import parse_domain, parse_mailbox
from mailsrv.config.listener_rules import LISTENER_RULES
from mailsrv.config.partial import Unsound, any_sound, is_whole, those, where_sound
from mailsrv.config.problems import Problem, shown
from mailsrv.config.schema import Settings
from mailsrv.directory.ldap.service_records import SCHEME, parse_service
from mailsrv.directory.list_settings import ListSettings
from mailsrv.directory.settings import DirectorySettings, DirectoryType, DomainSettings
from mailsrv.directory.shared_settings import SharedSettings
from mailsrv.routing.rules import find_contradictions
from mailsrv.store.settings import RepositoryType

# RFC 952, RFC 1123 2.1
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")


def _check_hostname(settings: Settings) -> Iterator[Problem]:
    if not _is_host_name(settings.hostname):
        yield Problem("hostname", "expected a host name such as mail.example.test", shown(settings.hostname))


def _is_host_name(text: str) -> bool:
    return len(text) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in text.split("."))


def _check_there_are_domains(settings: Settings) -> Iterator[Problem]:
    if settings.domain:
        return
    if not _has_supplied_domains(settings):
        yield Problem("domain", "missing; expected at least one [[domain]]")
    elif not settings.auth.default_domain:
        yield Problem("auth.default_domain", "missing; without [[domain]], expected the domain of names without one")


def _check_domains(settings: Settings) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for index, domain in enumerate(settings.domain):
        yield from where_sound(_check_name(index, domain, seen))
        yield from where_sound(_check_aliases(index, domain, seen))
        yield from where_sound(_check_delimiter(index, domain))


def _check_name(index: int, domain: DomainSettings, seen: dict[str, str]) -> Iterator[Problem]:
    yield from _check_is_new(f"domain[{index}].name", domain.name, seen)


def _check_aliases(index: int, domain: DomainSettings, seen: dict[str, str]) -> Iterator[Problem]:
    for position, alias in enumerate(domain.aliases):
        yield from _check_is_new(f"domain[{index}].aliases[{position}]", alias, seen)


def _check_is_new(key: str, name: str, seen: dict[str, str]) -> Iterator[Problem]:
    if seen.setdefault(name.lower(), key) != key:
        yield Problem(key, f"the same as {seen[name.lower()]}", shown(name))


def _check_delimiter(index: int, domain: DomainSettings) -> Iterator[Problem]:
    if len(domain.subaddress_delimiter) > 1:
        found = shown(domain.subaddress_delimiter)
        yield Problem(f"domain[{index}].subaddress_delimiter", "expected one character, or none", found)


def _check_default_domain(settings: Settings) -> Iterator[Problem]:
    default = settings.auth.default_domain
    if not default or _has_supplied_domains(settings):
        return
    if settings.domain and not any_sound(settings.domain, lambda each: default.lower() in _names(each)):
        yield Problem("auth.default_domain", "expected one of the domains in [[domain]]", shown(default))


def _has_supplied_domains(settings: Settings) -> bool:
    """Whether a directory has domains, too, so that nobody knows here which there are."""
    return any_sound(settings.directory, lambda each: each.type is DirectoryType.LDAP and each.domains)


def _names(domain: DomainSettings) -> Iterator[str]:
    """In lower case; the main one is known before it is asked whether the others are sound."""
    yield domain.name.lower()
    yield from (alias.lower() for alias in domain.aliases)


def _main_domain(settings: Settings, name: str) -> str | None:
    """The main name of one of our domains, by any of its canonical names; None where it is not ours."""
    for _, domain in those(settings.domain, lambda each: name in map(parse_domain, _names(each))):
        return parse_domain(domain.name)
    if _has_supplied_domains(settings):
        return name
    # That none is named is told elsewhere; that it is none of these can be said if all of their names are known.
    if not settings.domain or any_sound(settings.domain, lambda each: name in map(parse_domain, _names(each))):
        raise Unsound("domain")
    return None


def _check_there_are_users(settings: Settings) -> Iterator[Problem]:
    if not any_sound(settings.directory, lambda each: each.type in (DirectoryType.PASSWD_FILE, DirectoryType.LDAP)):
        yield Problem("directory", 'missing; expected a [[directory]] of type = "passwd-file" or "ldap"')


def _check_directories(settings: Settings) -> Iterator[Problem]:
    for index, directory in enumerate(settings.directory):
        key = f"directory[{index}]"
        yield from where_sound(_check_path(directory, key))
        yield from where_sound(_check_domain_of_names(settings, directory, key))
    for index, directory in those(settings.directory, lambda each: each.type is DirectoryType.LDAP):
        for rule in _LDAP_RULES:
            yield from where_sound(rule(directory, f"directory[{index}]"))


def _check_path(directory: DirectorySettings, key: str) -> Iterator[Problem]:
    if directory.type is not DirectoryType.LDAP and not directory.path:
        yield Problem(f"{key}.path", "missing; expected the path of the file")


def _check_domain_of_names(settings: Settings, directory: DirectorySettings, key: str) -> Iterator[Problem]:
    wanted = directory.domain.lower()
    if not wanted or _has_supplied_domains(settings):
        return
    if not any_sound(settings.domain, lambda each: each.name.lower() == wanted):
        expected = "expected the name of one of the domains in [[domain]]"
        yield Problem(f"{key}.domain", expected, shown(directory.domain))


def _check_servers(directory: DirectorySettings, key: str) -> Iterator[Problem]:
    if not directory.uri:
        yield Problem(f"{key}.uri", 'missing; expected servers such as ["ldap://ldap.example.test"]')
    for position, uri in enumerate(directory.uri):
        if uri.startswith(SCHEME) and not parse_service(uri).is_ldaps and not directory.starttls:
            expected = "servers that the DNS names are asked by TLS only; expected starttls = true, or _ldaps._tcp"
            yield Problem(f"{key}.uri[{position}]", expected, shown(uri))


def _check_base(directory: DirectorySettings, key: str) -> Iterator[Problem]:
    if not directory.base:
        yield Problem(f"{key}.base", "missing; expected the entry below which users are, such as dc=example,dc=test")


def _check_service_account(directory: DirectorySettings, key: str) -> Iterator[Problem]:
    if bool(directory.bind_dn) != bool(directory.bind_password_file):
        lacking = "bind_password_file" if directory.bind_dn else "bind_dn"
        yield Problem(f"{key}.{lacking}", "missing; the service account needs both its DN and its password")


def _check_external_certificate(directory: DirectorySettings, key: str) -> Iterator[Problem]:
    if directory.bind_external and not directory.client_certificate_file:
        yield Problem(f"{key}.client_certificate_file", "missing; bind_external says who we are by it")


def _check_external_alone(directory: DirectorySettings, key: str) -> Iterator[Problem]:
    if directory.bind_external and directory.bind_dn:
        yield Problem(f"{key}.bind_dn", "the client certificate says who we are; expected one of both")


_LDAP_RULES = (
    _check_servers,
    _check_base,
    _check_service_account,
    _check_external_certificate,
    _check_external_alone,
)


def _check_memory(settings: Settings) -> Iterator[Problem]:
    if settings.store.type is RepositoryType.MEMORY and settings.workers > 1:
        yield Problem("store.type", "memory is not shared by workers; expected workers = 1", shown("memory"))


def _check_folder_of_users(settings: Settings) -> Iterator[Problem]:
    yield from _check_placeholder(settings, "{local}")


def _check_folder_of_domains(settings: Settings) -> Iterator[Problem]:
    if len(settings.domain) > 1 or _has_supplied_domains(settings):
        yield from _check_placeholder(settings, "{domain}")


def _check_placeholder(settings: Settings, placeholder: str) -> Iterator[Problem]:
    if settings.store.type is not RepositoryType.MEMORY and placeholder not in settings.store.path:
        yield Problem(
            "store.path", f"expected {placeholder} in it, or accounts would share a folder", shown(settings.store.path)
        )


def _check_filters(settings: Settings) -> Iterator[Problem]:
    for index, _ in those(settings.filter, lambda each: not each.use):
        yield Problem(f"filter[{index}].use", "missing; expected the name of a filter")


def _check_lists(settings: Settings) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, one in enumerate(settings.list):
        yield from where_sound(_check_list(settings, index, one, seen))


def _check_list(settings: Settings, index: int, one: ListSettings, seen: dict[str, int]) -> Iterator[Problem]:
    address = parse_mailbox(one.address)
    domain = _main_domain(settings, address.domain)
    if domain is None:
        yield Problem(f"list[{index}].address", "expected an address of one of [[domain]]", shown(one.address))
        return
    name = f"{address.local_part.lower()}@{domain}"
    if seen.setdefault(name, index) != index:
        yield Problem(f"list[{index}].address", f"the same list as list[{seen[name]}]", shown(one.address))


def _check_shared(settings: Settings) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, one in enumerate(settings.shared):
        yield from where_sound(_check_account(settings, index, one, seen))


def _check_account(settings: Settings, index: int, one: SharedSettings, seen: dict[str, int]) -> Iterator[Problem]:
    address = parse_mailbox(one.account)
    name = f"{address.local_part.lower()}@{_main_domain(settings, address.domain) or address.domain}"
    if seen.setdefault(name, index) != index:
        yield Problem(f"shared[{index}].account", f"the same account as shared[{seen[name]}]", shown(one.account))


def _check_routes(settings: Settings) -> Iterator[Problem]:
    # The numbers of those that can be judged.
    numbers = [index for index, route in enumerate(settings.route) if is_whole(route)]
    names, are_all = _local_names(settings)
    for found in find_contradictions([settings.route[index] for index in numbers], names, may_be_more=not are_all):
        number = numbers[found.route]
        value = getattr(settings.route[number], found.key)
        written = value.value if isinstance(value, enum.Enum) else value
        yield Problem(f"route[{number}].{found.key}", found.expected, shown(written) if written else "")


def _local_names(settings: Settings) -> tuple[Set[str], bool]:
    """The names of our domains, and whether there can be no others."""
    try:
        names = {name for domain in settings.domain for name in map(parse_domain, _names(domain))}
        return names, not _has_supplied_domains(settings)
    except Unsound:
        return set(), False


def _check_delivery(settings: Settings) -> Iterator[Problem]:
    own = settings.delivery.srs_domain
    if not own or _has_supplied_domains(settings):
        return
    if not any_sound(settings.domain, lambda each: own.lower() in _names(each)):
        yield Problem("delivery.srs_domain", "expected one of [[domain]]: bounces come back there", shown(own))


_RULES = (
    _check_hostname,
    *LISTENER_RULES,
    _check_there_are_domains,
    _check_domains,
    _check_default_domain,
    _check_there_are_users,
    _check_directories,
    _check_lists,
    _check_shared,
    _check_memory,
    _check_folder_of_users,
    _check_folder_of_domains,
    _check_filters,
    _check_routes,
    _check_delivery,
)


def check_rules(settings: Settings) -> list[Problem]:
    """Everything that contradicts itself in what is otherwise well-formed; ``settings`` may be partial."""
    return [problem for rule in _RULES for problem in where_sound(rule(settings))]
