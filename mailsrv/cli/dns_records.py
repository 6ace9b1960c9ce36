"""Every DNS record a domain of the configuration should have, and why.

What the configuration cannot know are the server's public addresses; they are asked for where it
matters. Texts are the records' data as a zone file has them, without quotes and final dots.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator, Sequence

from attrs import field, frozen
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mailsrv.app.endpoints import EndpointError, parse_endpoint
from mailsrv.app.settings import ListenSettings, Service
from mailsrv.config.schema import Settings
from mailsrv.mailauth.key_store import KeyState, StoredKey
from mailsrv.tls.certificates import ServerCertificate
from mailsrv.wire.tls_mode import TlsMode

MX_PREFERENCE = 10
MTA_STS_SECONDS = 604_800
"""max_age: a week (RFC 8461 3.2 wants weeks)."""


class RecordType(enum.Enum):
    """As in a zone file."""

    MX = "MX"
    ADDRESS = "A/AAAA"
    PTR = "PTR"
    TXT = "TXT"
    TLSA = "TLSA"
    SRV = "SRV"
    CNAME = "CNAME"


class Purpose(enum.Enum):
    """What a record is for; also how it is compared."""

    MX = "mx"
    HOST = "host"
    REVERSE = "reverse"
    SPF = "spf"
    DKIM = "dkim"
    DMARC = "dmarc"
    MTA_STS = "mta-sts"
    TLS_RPT = "tls-rpt"
    DANE = "dane"
    CLIENTS = "clients"
    AUTOCONFIG = "autoconfig"


class Need(enum.Enum):
    """What happens without it."""

    REQUIRED = "required"
    """Mail does not arrive, or is likely to be refused."""
    RECOMMENDED = "recommended"
    OPTIONAL = "optional"
    UNWANTED = "unwanted"
    """It may go."""


@frozen
class WantedRecord:
    """One record; ``values`` are alternatives of equal rank that stand there together (addresses)."""

    purpose: Purpose
    type: RecordType
    name: str
    values: tuple[str, ...]
    need: Need
    why: str


@frozen
class DomainRecords:
    """All of a domain, with what is no record."""

    domain: str
    hostname: str
    records: tuple[WantedRecord, ...]
    mta_sts_policy: str
    remarks: tuple[str, ...] = field(factory=tuple)


def wanted_records(
    settings: Settings,
    domain: str,
    keys: Sequence[StoredKey],
    certificate: ServerCertificate | None,
    addresses: Sequence[str] = (),
) -> DomainRecords:
    """``addresses`` are the server's public ones, where they are known."""
    hostname = settings.hostname.lower()
    policy = mta_sts_policy(hostname)
    records = [
        *_incoming(domain, hostname, addresses),
        *_authentication(domain, keys),
        *_transport(domain, hostname, certificate, policy),
        *_clients(domain, hostname, settings.listen),
    ]
    return DomainRecords(domain, hostname, tuple(records), policy, tuple(_remarks(domain, hostname, keys, certificate)))


def mta_sts_policy(hostname: str) -> str:
    """RFC 8461 3.2. In testing mode: nothing is refused while one looks at the reports."""
    return f"version: STSv1\nmode: testing\nmx: {hostname}\nmax_age: {MTA_STS_SECONDS}\n"


def _incoming(domain: str, hostname: str, addresses: Sequence[str]) -> Iterator[WantedRecord]:
    yield WantedRecord(
        Purpose.MX, RecordType.MX, domain, (f"{MX_PREFERENCE} {hostname}",), Need.REQUIRED, "where mail is delivered"
    )
    yield WantedRecord(
        Purpose.HOST, RecordType.ADDRESS, hostname, tuple(addresses), Need.REQUIRED, "where this server is"
    )
    for address in addresses:
        yield WantedRecord(
            Purpose.REVERSE,
            RecordType.PTR,
            address,
            (hostname,),
            Need.RECOMMENDED,
            "many servers refuse mail from addresses without it; set by who gave you the address",
        )


def _authentication(domain: str, keys: Sequence[StoredKey]) -> Iterator[WantedRecord]:
    yield WantedRecord(
        Purpose.SPF, RecordType.TXT, domain, ("v=spf1 mx -all",), Need.REQUIRED, "who may send (RFC 7208)"
    )
    needs = {
        KeyState.ACTIVE: (Need.REQUIRED, "the key that signs (RFC 6376)"),
        KeyState.PUBLISHED: (Need.RECOMMENDED, "a key that is to be activated"),
        KeyState.RETIRED: (Need.UNWANTED, "a retired key; may go a week after its retirement"),
    }
    for stored in keys:
        need, why = needs[stored.state]
        yield WantedRecord(
            Purpose.DKIM, RecordType.TXT, stored.key.record_name, (stored.key.record,), need, f"DKIM: {why}"
        )
    yield WantedRecord(
        Purpose.DMARC,
        RecordType.TXT,
        f"_dmarc.{domain}",
        (f"v=DMARC1; p=quarantine; rua=mailto:postmaster@{domain}",),
        Need.RECOMMENDED,
        "what to do with mail that is not from here, and where to report it (RFC 7489)",
    )


def _transport(
    domain: str, hostname: str, certificate: ServerCertificate | None, policy: str
) -> Iterator[WantedRecord]:
    policy_id = hashlib.sha256(policy.encode("ascii")).hexdigest()[:16]
    yield WantedRecord(
        Purpose.MTA_STS,
        RecordType.TXT,
        f"_mta-sts.{domain}",
        (f"v=STSv1; id={policy_id};",),
        Need.OPTIONAL,
        "mail comes over verified TLS only (RFC 8461)",
    )
    yield WantedRecord(
        Purpose.MTA_STS,
        RecordType.CNAME,
        f"mta-sts.{domain}",
        (hostname,),
        Need.OPTIONAL,
        "where the MTA-STS policy is read",
    )
    yield WantedRecord(
        Purpose.TLS_RPT,
        RecordType.TXT,
        f"_smtp._tls.{domain}",
        (f"v=TLSRPTv1; rua=mailto:postmaster@{domain}",),
        Need.OPTIONAL,
        "where others report TLS failures (RFC 8460)",
    )
    if certificate is not None:
        yield WantedRecord(
            Purpose.DANE,
            RecordType.TLSA,
            f"_25._tcp.{hostname}",
            (f"3 1 1 {public_key_digest(certificate).hex()}",),
            Need.OPTIONAL,
            "the certificate's key (RFC 7672); counts where the zone is signed by DNSSEC",
        )


def public_key_digest(certificate: ServerCertificate) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo: selector 1, matching type 1 (RFC 6698 2.1)."""
    key = certificate.chain[0].public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


# RFC 6186 3.4, RFC 8314 5.1, in the order in which clients should prefer them.
_CLIENT_SERVICES = (
    ("_submissions", Service.SUBMISSION, TlsMode.IMPLICIT, 465),
    ("_imaps", Service.IMAP, TlsMode.IMPLICIT, 993),
    ("_pop3s", Service.POP3, TlsMode.IMPLICIT, 995),
    ("_submission", Service.SUBMISSION, TlsMode.STARTTLS, 587),
    ("_imap", Service.IMAP, TlsMode.STARTTLS, 143),
    ("_pop3", Service.POP3, TlsMode.STARTTLS, 110),
)


def _clients(domain: str, hostname: str, listeners: Sequence[ListenSettings]) -> Iterator[WantedRecord]:
    for label, service, tls, usual_port in _CLIENT_SERVICES:
        ports = [_port(listen, usual_port) for listen in listeners if (listen.service, listen.tls) == (service, tls)]
        # RFC 6186 3.4: the target "." says that there is no such service.
        weight = 0 if tls is TlsMode.IMPLICIT else 10
        value = f"{weight} 1 {ports[0]} {hostname}" if ports else "0 0 0 ."
        why = (
            f"how mail programs find {service.value}" if ports else f"tells mail programs that there is no {label[1:]}"
        )
        yield WantedRecord(
            Purpose.CLIENTS, RecordType.SRV, f"{label}._tcp.{domain}", (value,), Need.OPTIONAL, why + " (RFC 6186)"
        )
    why = "needs a web server there that answers with the settings of this server"
    yield WantedRecord(
        Purpose.AUTOCONFIG, RecordType.CNAME, f"autoconfig.{domain}", (hostname,), Need.OPTIONAL, f"Thunderbird: {why}"
    )
    yield WantedRecord(
        Purpose.AUTOCONFIG,
        RecordType.SRV,
        f"_autodiscover._tcp.{domain}",
        (f"0 0 443 {hostname}",),
        Need.OPTIONAL,
        f"Outlook: {why}",
    )


def _port(listen: ListenSettings, usual: int) -> int:
    """The port of a listener; the usual one where another program holds the socket."""
    try:
        endpoint = parse_endpoint(listen.endpoint)
        number = endpoint.number("port") if endpoint.kind in ("tcp", "tcp6") else usual
    except (EndpointError, ValueError):
        return usual
    return number or usual


def _remarks(
    domain: str, hostname: str, keys: Sequence[StoredKey], certificate: ServerCertificate | None
) -> Iterator[str]:
    if not any(stored.state is KeyState.ACTIVE for stored in keys):
        waiting = [stored.key.selector for stored in keys if stored.state is KeyState.PUBLISHED]
        follows = (
            f"activate {domain} --selector {waiting[0]}, when its record can be seen" if waiting else f"new {domain}"
        )
        yield f"mail of {domain} is not signed: mailsrvctl dkim {follows}"
    yield f"the MTA-STS policy is to be served at https://mta-sts.{domain}/.well-known/mta-sts.txt"
    issuer = _issuer(certificate)
    yield (
        f"a CAA record of {hostname} may say who issues its certificates"
        + (f"; the present one is by {issuer}" if issuer else "")
        + " (RFC 8659)"
    )


def _issuer(certificate: ServerCertificate | None) -> str:
    """Who issued it; "" for a self-signed one, which no CAA record allows or forbids."""
    if certificate is None or certificate.chain[0].issuer == certificate.chain[0].subject:
        return ""
    return certificate.chain[0].issuer.rfc4514_string()
