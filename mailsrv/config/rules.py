"""Combinations of settings that cannot work, found before anything is started."""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Callable, Iterator, Set

from mailsrv.address import AddressError, parse_domain, parse_mailbox
from mailsrv.app.endpoints import INHERITABLE_KINDS, parse_endpoint
from mailsrv.app.settings import ListenSettings, Service
from mailsrv.config.problems import Problem, show_value
from mailsrv.config.schema import Settings
from mailsrv.directory.domains import LocalDomains
from mailsrv.directory.ldap.service_records import SCHEME, parse_service
from mailsrv.directory.settings import DirectorySettings, DirectoryType
from mailsrv.routing.rules import find_contradictions
from mailsrv.store.settings import RepositoryType
from mailsrv.wire.client_certificate import CertificateUse
from mailsrv.wire.tls_mode import TlsMode

# RFC 952, RFC 1123 2.1
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")


def _shown(value: object) -> str:
    return show_value("", value)


def _check_hostname(settings: Settings) -> Iterator[Problem]:
    if not _is_host_name(settings.hostname):
        yield Problem("hostname", "expected a host name such as mail.example.test", _shown(settings.hostname))


def _is_host_name(text: str) -> bool:
    return len(text) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in text.split("."))


def _check_listeners(settings: Settings) -> Iterator[Problem]:
    if not settings.listen:
        yield Problem("listen", "missing; expected at least one [[listen]]")
    seen: dict[tuple[str, ...], int] = {}
    for index, listen in enumerate(settings.listen):
        key = f"listen[{index}]"
        found = _shown(listen.endpoint)
        description = parse_endpoint(listen.endpoint)
        if settings.workers > 1 and not description.is_inheritable:
            kinds = ", ".join(sorted(INHERITABLE_KINDS))
            expected = f"with workers = {settings.workers} expected a type that workers can inherit ({kinds})"
            yield Problem(f"{key}.endpoint", expected, found)
        place = _place(listen.endpoint)
        if place is not None and seen.setdefault(place, index) != index:
            yield Problem(f"{key}.endpoint", f"the same place as listen[{seen[place]}]", found)
        yield from _check_service(settings, listen, key)


def _check_service(settings: Settings, listen: ListenSettings, key: str) -> Iterator[Problem]:
    if listen.service is Service.LMTP:
        if listen.tls is not TlsMode.NONE:
            yield Problem(f"{key}.tls", 'LMTP is spoken on a trusted path; expected "none"', _shown(listen.tls.value))
        if listen.plaintext_networks is not None:
            yield Problem(f"{key}.plaintext_networks", "nobody logs in by LMTP; leave it out")
        return
    if listen.service is Service.MX:
        if listen.plaintext_networks is not None:
            yield Problem(f"{key}.plaintext_networks", "nobody logs in at an MX; leave it out")
        return
    if listen.service is Service.SUBMISSION and parse_endpoint(listen.endpoint).kind == "unix":
        # Users of this machine submit there: the system says who they are.
        return
    plaintext = settings.auth.plaintext_networks if listen.plaintext_networks is None else listen.plaintext_networks
    if listen.tls is TlsMode.NONE and not plaintext:
        yield Problem(
            f"{key}.tls",
            'nobody could log in here: expected "starttls" or "implicit", or networks in plaintext_networks',
            _shown("none"),
        )


def _place(endpoint: str) -> tuple[str, ...] | None:
    """What two listeners may not share; None where the system chooses (port 0) or a plugin knows."""
    description = parse_endpoint(endpoint)
    if description.kind in ("tcp", "tcp6"):
        port = description.number("port")
        address = ipaddress.ip_address(description.argument("interface", "") or "::")
        # Who listens at all addresses of IPv6 gets what comes by IPv4, too.
        where = "any" if address.is_unspecified else str(address)
        return None if port == 0 else ("tcp", where, str(port))
    if description.kind == "unix":
        return ("unix", description.argument("address"))
    return ("systemd", endpoint) if description.kind == "systemd" else None


def _check_tls(settings: Settings) -> Iterator[Problem]:
    wanting = [index for index, listen in enumerate(settings.listen) if listen.tls is not TlsMode.NONE]
    for name in ("certificate", "key"):
        if wanting and not getattr(settings.tls, name):
            yield Problem(
                f"tls.{name}", f'missing; listen[{wanting[0]}] has tls = "{settings.listen[wanting[0]].tls.value}"'
            )
    asking = [
        index for index, listen in enumerate(settings.listen) if listen.client_certificates is not CertificateUse.OFF
    ]
    for index in asking:
        listen = settings.listen[index]
        found = _shown(listen.client_certificates.value)
        if listen.tls is TlsMode.NONE:
            yield Problem(f"listen[{index}].client_certificates", "certificates are shown under TLS alone", found)
        elif listen.service in (Service.MX, Service.LMTP):
            yield Problem(f"listen[{index}].client_certificates", "nobody logs in there; leave it out", found)
    if asking and not settings.tls.client_ca_file:
        yield Problem("tls.client_ca_file", f"missing; listen[{asking[0]}] asks for client certificates")


def _check_domains(settings: Settings) -> Iterator[Problem]:
    if not settings.domain and not _has_supplied_domains(settings):
        yield Problem("domain", "missing; expected at least one [[domain]]")
    if not settings.domain and _has_supplied_domains(settings) and not settings.auth.default_domain:
        yield Problem("auth.default_domain", "missing; without [[domain]], expected the domain of names without one")
    seen: dict[str, str] = {}
    for index, domain in enumerate(settings.domain):
        names = [(f"domain[{index}].name", domain.name)]
        names += [(f"domain[{index}].aliases[{position}]", alias) for position, alias in enumerate(domain.aliases)]
        for key, name in names:
            if seen.setdefault(name.lower(), key) != key:
                yield Problem(key, f"the same as {seen[name.lower()]}", _shown(name))
        if len(domain.subaddress_delimiter) > 1:
            found = _shown(domain.subaddress_delimiter)
            yield Problem(f"domain[{index}].subaddress_delimiter", "expected one character, or none", found)
    default = settings.auth.default_domain
    if default and _has_supplied_domains(settings):
        yield from _check_domain_name("auth.default_domain", default)
    elif default and settings.domain and default.lower() not in seen:
        yield Problem("auth.default_domain", "expected one of the domains in [[domain]]", _shown(default))


def _check_domain_name(key: str, name: str) -> Iterator[Problem]:
    """Whether it may be one of a directory's."""
    try:
        parse_domain(name)
    except AddressError:
        yield Problem(key, "expected a domain", _shown(name))


def _has_supplied_domains(settings: Settings) -> bool:
    """Whether a directory has domains, too, so that nobody knows here which there are."""
    return any(directory.type is DirectoryType.LDAP and directory.domains for directory in settings.directory)


def _check_directories(settings: Settings) -> Iterator[Problem]:
    if not any(directory.type in (DirectoryType.PASSWD_FILE, DirectoryType.LDAP) for directory in settings.directory):
        yield Problem("directory", 'missing; expected a [[directory]] of type = "passwd-file" or "ldap"')
    for index, directory in enumerate(settings.directory):
        if directory.type is DirectoryType.LDAP:
            yield from _check_ldap(directory, f"directory[{index}]")
        elif not directory.path:
            yield Problem(f"directory[{index}].path", "missing; expected the path of the file")
        known = {each.name.lower() for each in settings.domain}
        if directory.domain and not _has_supplied_domains(settings) and directory.domain.lower() not in known:
            expected = "expected the name of one of the domains in [[domain]]"
            yield Problem(f"directory[{index}].domain", expected, _shown(directory.domain))


def _check_ldap(directory: DirectorySettings, key: str) -> Iterator[Problem]:
    if not directory.uri:
        yield Problem(f"{key}.uri", 'missing; expected servers such as ["ldap://ldap.example.test"]')
    for position, uri in enumerate(directory.uri):
        if uri.startswith(SCHEME) and not directory.starttls and not parse_service(uri).is_ldaps:
            expected = "servers that the DNS names are asked by TLS only; expected starttls = true, or _ldaps._tcp"
            yield Problem(f"{key}.uri[{position}]", expected, _shown(uri))
    if not directory.base:
        yield Problem(f"{key}.base", "missing; expected the entry below which users are, such as dc=example,dc=test")
    if bool(directory.bind_dn) != bool(directory.bind_password_file):
        lacking = "bind_password_file" if directory.bind_dn else "bind_dn"
        yield Problem(f"{key}.{lacking}", "missing; the service account needs both its DN and its password")
    if directory.bind_external and not directory.client_certificate_file:
        yield Problem(f"{key}.client_certificate_file", "missing; bind_external says who we are by it")
    if directory.bind_external and directory.bind_dn:
        yield Problem(f"{key}.bind_dn", "the client certificate says who we are; expected one of both")


def _check_store(settings: Settings) -> Iterator[Problem]:
    if settings.store.type is RepositoryType.MEMORY:
        if settings.workers > 1:
            yield Problem("store.type", "memory is not shared by workers; expected workers = 1", _shown("memory"))
        return
    for placeholder in ("{domain}", "{local}"):
        if placeholder == "{domain}" and len(settings.domain) < 2 and not _has_supplied_domains(settings):
            continue
        if placeholder not in settings.store.path:
            expected = f"expected {placeholder} in it, or accounts would share a folder"
            yield Problem("store.path", expected, _shown(settings.store.path))


def _check_listeners_networks(settings: Settings) -> Iterator[Problem]:
    for index, listen in enumerate(settings.listen):
        yield from _check_networks(f"listen[{index}].plaintext_networks", listen.plaintext_networks or ())


def _check_exempt_networks(settings: Settings) -> Iterator[Problem]:
    yield from _check_networks("limits.exempt_networks", settings.limits.exempt_networks)


def _check_networks(key: str, networks: tuple[str, ...]) -> Iterator[Problem]:
    for position, text in enumerate(networks):
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            yield Problem(f"{key}[{position}]", f"expected a network such as 192.0.2.0/24 ({error})", _shown(text))


def _check_filters(settings: Settings) -> Iterator[Problem]:
    for index, each in enumerate(settings.filter):
        if not each.use:
            yield Problem(f"filter[{index}].use", "missing; expected the name of a filter")


def _check_lists(settings: Settings) -> Iterator[Problem]:
    domains = LocalDomains(settings.domain) if not list(_check_domains(settings)) else None
    seen: dict[str, int] = {}
    for index, one in enumerate(settings.list):
        address = parse_mailbox(one.address)
        found = domains.find(address.domain) if domains is not None else (address.domain, None)
        if found is None and _has_supplied_domains(settings):
            found = (address.domain, None)
        if found is None:
            yield Problem(f"list[{index}].address", "expected an address of one of [[domain]]", _shown(one.address))
            continue
        name = f"{address.local_part.lower()}@{found[0]}"
        if seen.setdefault(name, index) != index:
            yield Problem(f"list[{index}].address", f"the same list as list[{seen[name]}]", _shown(one.address))


def _check_shared(settings: Settings) -> Iterator[Problem]:
    domains = LocalDomains(settings.domain) if not list(_check_domains(settings)) else None
    seen: dict[str, int] = {}
    for index, one in enumerate(settings.shared):
        address = parse_mailbox(one.account)
        found = domains.find(address.domain) if domains is not None else None
        name = f"{address.local_part.lower()}@{found[0] if found else address.domain}"
        if seen.setdefault(name, index) != index:
            yield Problem(f"shared[{index}].account", f"the same account as shared[{seen[name]}]", _shown(one.account))


def _check_routes(settings: Settings) -> Iterator[Problem]:
    local_domains = {name for domain in settings.domain for name in map(parse_domain, (domain.name, *domain.aliases))}
    for found in find_contradictions(settings.route, local_domains, may_be_more=_has_supplied_domains(settings)):
        value = getattr(settings.route[found.route], found.key)
        shown = value.value if isinstance(value, enum.Enum) else value
        yield Problem(f"route[{found.route}].{found.key}", found.expected, _shown(shown) if shown else "")


def _check_delivery(settings: Settings) -> Iterator[Problem]:
    own = settings.delivery.srs_domain
    if own and _has_supplied_domains(settings):
        yield from _check_domain_name("delivery.srs_domain", own)
        return
    if own and own.lower() not in {name.lower() for each in settings.domain for name in (each.name, *each.aliases)}:
        yield Problem("delivery.srs_domain", "expected one of [[domain]]: bounces come back there", _shown(own))


# Each with the sections it looks at.
_RULES: tuple[tuple[Callable[[Settings], Iterator[Problem]], frozenset[str]], ...] = (
    (_check_hostname, frozenset({"hostname"})),
    (_check_listeners, frozenset({"listen", "workers", "auth"})),
    (_check_tls, frozenset({"listen", "tls"})),
    (_check_domains, frozenset({"domain", "directory", "auth"})),
    (_check_directories, frozenset({"directory", "domain"})),
    (_check_lists, frozenset({"list", "domain", "directory", "auth"})),
    (_check_shared, frozenset({"shared", "domain", "directory", "auth"})),
    (_check_store, frozenset({"store", "workers", "domain", "directory"})),
    (_check_listeners_networks, frozenset({"listen"})),
    (_check_exempt_networks, frozenset({"limits"})),
    (_check_filters, frozenset({"filter"})),
    (_check_routes, frozenset({"route", "domain", "directory"})),
    (_check_delivery, frozenset({"delivery", "domain", "directory"})),
)


def check_rules(settings: Settings, wrong: Set[str] = frozenset()) -> list[Problem]:
    """Everything that contradicts itself in otherwise well-formed settings.

    ``wrong`` sections hold other mistakes and are not what the file says: nothing that concerns them is judged.
    """
    return [problem for rule, sections in _RULES if not sections & wrong for problem in rule(settings)]
