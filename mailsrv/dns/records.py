"""Records of the DNS as the values mail works with. What is no good is left out: None. No I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TypeVar

from twisted.names import dns

from mailsrv.dns.wire import ROOT, name_of
from mailsrv.interfaces.resolver import MailExchange, ServiceRecord, TlsaRecord

T = TypeVar("T")

Reader = Callable[[object], T | None]
"""Makes a value of what twisted.names made of a record's data."""

MAX_TEXT_OCTETS = 8192


def read_mail_exchange(payload: object) -> MailExchange | None:
    """MX; the root as host is a null MX (RFC 7505 section 3)."""
    if not isinstance(payload, dns.Record_MX):
        return None
    host = name_of(payload.name.name)
    return None if host is None else MailExchange(payload.preference, "" if host == ROOT else host)


def read_address(payload: object) -> str | None:
    """A and AAAA."""
    if isinstance(payload, dns.Record_A | dns.Record_AAAA) and payload.address is not None:
        try:
            return str(ipaddress.ip_address(payload.address))
        except ValueError:
            return None
    return None


def read_text(payload: object) -> bytes | None:
    """TXT: the strings joined (RFC 7208 3.3, RFC 8461 3.1)."""
    if not isinstance(payload, dns.Record_TXT):
        return None
    text = b"".join(payload.data)
    return text if len(text) <= MAX_TEXT_OCTETS else None


def read_host(payload: object) -> str | None:
    """The name of PTR, NS or CNAME."""
    if isinstance(payload, dns.Record_PTR | dns.Record_NS | dns.Record_CNAME) and payload.name is not None:
        host = name_of(payload.name.name)
        return None if host == ROOT else host
    return None


def read_service(payload: object) -> ServiceRecord | None:
    """SRV; the root as host says that there is no such service (RFC 2782): host ""."""
    if not isinstance(payload, dns.Record_SRV):
        return None
    host = name_of(payload.target.name)
    if host is None:
        return None
    return ServiceRecord(payload.priority, payload.weight, payload.port, "" if host == ROOT else host)


def read_tlsa(payload: object) -> TlsaRecord | None:
    """RFC 6698 2.1. Records that make no sense are values too: that they are there means something (RFC 7672 2.1)."""
    data = payload.data if isinstance(payload, dns.UnknownRecord) else b""
    return decode_tlsa(data) if len(data) > 3 else None


def decode_tlsa(data: bytes) -> TlsaRecord:
    """Of the record's octets; more than three."""
    return TlsaRecord(data[0], data[1], data[2], bytes(data[3:]))
