"""What cannot be said of listeners, alone and with what they depend on; a part of :mod:`mailsrv.config.rules`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from mailsrv.app.endpoints import INHERITABLE_KINDS, parse_endpoint
from mailsrv.app.settings import ListenSettings, Service
from mailsrv.config.partial import those, where_sound
from mailsrv.config.problems import Problem, shown
from mailsrv.config.schema import Settings
from mailsrv.wire.client_certificate import CertificateUse
from mailsrv.wire.tls_mode import TlsMode


def _check_listeners(settings: Settings) -> Iterator[Problem]:
    if not settings.listen:
        yield Problem("listen", "missing; expected at least one [[listen]]")
    seen: dict[tuple[str, ...], int] = {}
    for index, listen in enumerate(settings.listen):
        yield from where_sound(_check_workers_can_listen(settings, index, listen))
        yield from where_sound(_check_place(index, listen, seen))
        yield from where_sound(_check_service(settings, listen, f"listen[{index}]"))


def _check_workers_can_listen(settings: Settings, index: int, listen: ListenSettings) -> Iterator[Problem]:
    if not parse_endpoint(listen.endpoint).is_inheritable and settings.workers > 1:
        kinds = ", ".join(sorted(INHERITABLE_KINDS))
        expected = f"with workers = {settings.workers} expected a type that workers can inherit ({kinds})"
        yield Problem(f"listen[{index}].endpoint", expected, shown(listen.endpoint))


def _check_place(index: int, listen: ListenSettings, seen: dict[tuple[str, ...], int]) -> Iterator[Problem]:
    place = _place(listen.endpoint)
    if place is not None and seen.setdefault(place, index) != index:
        yield Problem(f"listen[{index}].endpoint", f"the same place as listen[{seen[place]}]", shown(listen.endpoint))


def _check_service(settings: Settings, listen: ListenSettings, key: str) -> Iterator[Problem]:
    if listen.service is Service.LMTP:
        yield from where_sound(_check_lmtp(listen, key))
    if listen.service in (Service.MX, Service.LMTP):
        if listen.plaintext_networks is not None:
            place = "by LMTP" if listen.service is Service.LMTP else "at an MX"
            yield Problem(f"{key}.plaintext_networks", f"nobody logs in {place}; leave it out")
        return
    if listen.tls is not TlsMode.NONE:
        return
    if listen.service is Service.SUBMISSION and parse_endpoint(listen.endpoint).kind == "unix":
        # Users of this machine submit there: the system says who they are.
        return
    own = listen.plaintext_networks
    if not (settings.auth.plaintext_networks if own is None else own):
        yield Problem(
            f"{key}.tls",
            'nobody could log in here: expected "starttls" or "implicit", or networks in plaintext_networks',
            shown("none"),
        )


def _check_lmtp(listen: ListenSettings, key: str) -> Iterator[Problem]:
    if listen.tls is not TlsMode.NONE:
        yield Problem(f"{key}.tls", 'LMTP is spoken on a trusted path; expected "none"', shown(listen.tls.value))


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


def _check_certificate(settings: Settings) -> Iterator[Problem]:
    yield from _check_tls_has(settings, "certificate")


def _check_key(settings: Settings) -> Iterator[Problem]:
    yield from _check_tls_has(settings, "key")


def _check_tls_has(settings: Settings, name: str) -> Iterator[Problem]:
    for index, listen in those(settings.listen, lambda each: each.tls is not TlsMode.NONE):
        if not getattr(settings.tls, name):
            yield Problem(f"tls.{name}", f'missing; listen[{index}] has tls = "{listen.tls.value}"')
        return


def _check_client_certificates(settings: Settings) -> Iterator[Problem]:
    for index, listen in those(settings.listen, lambda each: each.client_certificates is not CertificateUse.OFF):
        yield from where_sound(_check_asks_for_certificates(listen, f"listen[{index}].client_certificates"))


def _check_asks_for_certificates(listen: ListenSettings, key: str) -> Iterator[Problem]:
    found = shown(listen.client_certificates.value)
    if listen.tls is TlsMode.NONE:
        yield Problem(key, "certificates are shown under TLS alone", found)
    elif listen.service in (Service.MX, Service.LMTP):
        yield Problem(key, "nobody logs in there; leave it out", found)


def _check_client_issuers(settings: Settings) -> Iterator[Problem]:
    for index, _ in those(settings.listen, lambda each: each.client_certificates is not CertificateUse.OFF):
        if not settings.tls.client_ca_file:
            yield Problem("tls.client_ca_file", f"missing; listen[{index}] asks for client certificates")
        return


LISTENER_RULES = (
    _check_listeners,
    _check_certificate,
    _check_key,
    _check_client_certificates,
    _check_client_issuers,
)
