"""Questions and answers as octets (RFC 1035 section 4, EDNS: RFC 6891), and names that are good.

Answers are taken apart by twisted.names, which leaves types it does not know (TLSA) as octets.
Whatever is malformed, is no answer to the question, or has too many records is a :class:`WireError`.
"""

from __future__ import annotations

import re
import struct

from attrs import frozen
from twisted.names import dns

CNAME, RRSIG, OPT, TLSA = dns.CNAME, 46, 41, 52
UDP_PAYLOAD_OCTETS = 1232
"""Asked for by EDNS: what passes any path without fragments."""

NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3
RCODES = {1: "FORMERR", SERVFAIL: "SERVFAIL", NXDOMAIN: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 16: "BADVERS"}

_QR, _TC, _RD, _AD = 0x8000, 0x0200, 0x0100, 0x0020
_DO = 0x8000
_HEADER = struct.Struct("!6H")
# RFC 1035 2.3.4; the underscore is for names of services (RFC 8552) and for hosts that have one all the same.
_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*\Z"
)
_LARGEST_TTL = 0x7FFFFFFF
ROOT = "."


class WireError(Exception):
    """An answer that cannot be used; the text is for the log."""


@frozen
class Record:
    """A record of the answer section: owner (lower case), type, time to live, what twisted.names made of it."""

    owner: str
    type: int
    ttl: int
    payload: object


@frozen
class Reply:
    """An answer, as far as it matters here. ``negative_ttl``: by the SOA record (RFC 2308 5), None without one."""

    rcode: int
    is_truncated: bool
    is_authentic: bool
    answers: tuple[Record, ...] = ()
    negative_ttl: int | None = None


def normalize_name(text: str) -> str | None:
    """Lower case without the final dot; the root as "."; None for what is no name that mail may ask for."""
    if text == ROOT:
        return ROOT
    name = text.lower().removesuffix(".")
    return name if _NAME.match(name) else None


def name_of(octets: bytes) -> str | None:
    """A name from an answer, as :func:`normalize_name` has it."""
    return normalize_name(octets.decode("ascii", "replace") or ROOT)


def encode_query(number: int, name: str, record_type: int, *, wants_dnssec: bool) -> bytes:
    """A question for a recursive resolver; ``name`` is a normalized one. AD asks for the AD bit (RFC 6840 5.7)."""
    flags = _RD | (_AD if wants_dnssec else 0)
    labels = [] if name == ROOT else [label.encode("ascii") for label in name.split(".")]
    if any(not 0 < len(label) < 64 for label in labels):
        raise ValueError("a label of a name has 1 to 63 octets")
    owner = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    question = owner + struct.pack("!HH", record_type, dns.IN)
    option = b"\0" + struct.pack("!HHIH", OPT, UDP_PAYLOAD_OCTETS, _DO if wants_dnssec else 0, 0)
    return _HEADER.pack(number, flags, 1, 0, 0, 1) + question + option


def decode_reply(octets: bytes, name: str, record_type: int, max_records: int) -> Reply:
    """Raises WireError. Records that only prove others (RRSIG) do not count as records (R-DNS-1)."""
    if len(octets) < _HEADER.size:
        raise WireError("an answer shorter than its header")
    _, flags, questions, answers, _, _ = _HEADER.unpack_from(octets)
    if not flags & _QR or questions > 1:
        raise WireError("what came is no answer")
    is_truncated = bool(flags & _TC)
    # Before anything is taken apart; each record may have its signature.
    if answers > 2 * max_records + 64:
        raise WireError(f"more than {max_records} records")
    if is_truncated:
        return Reply(flags & 15, is_truncated=True, is_authentic=False)
    message = dns.Message()
    try:
        message.fromStr(octets)
    except Exception as error:  # twisted.names has many ways to say that octets are no message
        raise WireError("an answer that is malformed") from error
    rcode = flags & 15
    for extra in message.additional:
        if extra.type == OPT:
            rcode |= (extra.ttl >> 24) << 4
    if rcode in (NOERROR, NXDOMAIN):
        _check_question(message, name, record_type)
        if len(message.answers) != answers:
            raise WireError("an answer that ends too early")
    records = tuple(
        Record(name_of(one.name.name) or "", one.type, _bounded_ttl(one.ttl), one.payload)
        for one in message.answers
        if one.type != RRSIG and one.cls == dns.IN
    )
    if len(records) > max_records:
        raise WireError(f"more than {max_records} records")
    return Reply(rcode, is_truncated, bool(flags & _AD), records, _negative_ttl(message))


def _check_question(message: dns.Message, name: str, record_type: int) -> None:
    asked = [(name_of(query.name.name), query.type) for query in message.queries]
    if asked != [(name, record_type)]:
        raise WireError("an answer to another question")


def _bounded_ttl(ttl: int) -> int:
    """RFC 2181 section 8: with the highest bit set it counts as 0."""
    return ttl if ttl <= _LARGEST_TTL else 0


def _negative_ttl(message: dns.Message) -> int | None:
    for one in message.authority:
        payload: object = one.payload
        if isinstance(payload, dns.Record_SOA):
            return min(_bounded_ttl(one.ttl), _bounded_ttl(payload.minimum))
    return None
