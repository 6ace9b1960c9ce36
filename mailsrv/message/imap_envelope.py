"""The IMAP ENVELOPE of a message, ready to send (RFC 9051 7.5.2, RFC 3501 7.4.2).

Address fields that occur more than once are read as one long list: taking only the first or only
the last would let a message show one originator here and another in the client. Of the other
fields the first counts. Subject and the rest stay encoded as they stand; clients decode them.
"""

from __future__ import annotations

from functools import lru_cache

from mailsrv.message.addresses import EnvelopeAddress, parse_addresses
from mailsrv.message.fields import unfold
from mailsrv.message.imap_strings import EMPTY, NIL, format_nstring, format_string
from mailsrv.message.settings import DEFAULT_LIMITS, MessageLimits
from mailsrv.message.structure import Fields

_LONGEST_MEMORISED = 120
ADDRESS_FIELD_NAMES = frozenset({b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc"})
ENVELOPE_FIELD_NAMES = ADDRESS_FIELD_NAMES | {b"date", b"subject", b"in-reply-to", b"message-id"}


def format_envelope(fields: Fields, limits: MessageLimits = DEFAULT_LIMITS) -> bytes:
    """``envelope`` from raw field bodies by lower-case name."""
    originators = _address_list(fields, b"from", limits)
    sender = _address_list(fields, b"sender", limits)
    reply_to = _address_list(fields, b"reply-to", limits)
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        _text(fields, b"date"),
        _text(fields, b"subject"),
        originators,
        # The server sets these two where the field is missing or empty.
        originators if sender is NIL else sender,
        originators if reply_to is NIL else reply_to,
        _address_list(fields, b"to", limits),
        _address_list(fields, b"cc", limits),
        _address_list(fields, b"bcc", limits),
        _text(fields, b"in-reply-to"),
        _text(fields, b"message-id"),
    )


def _text(fields: Fields, name: bytes) -> bytes:
    bodies = fields.get(name)
    return NIL if bodies is None else format_string(unfold(bodies[0]))


def _address_list(fields: Fields, name: bytes, limits: MessageLimits) -> bytes:
    bodies = fields.get(name)
    if bodies is None:
        return NIL
    if len(bodies) == 1 and len(bodies[0]) <= _LONGEST_MEMORISED:
        return _memorised_list(bodies[0], limits.addresses)
    return _format_list(bodies, limits)


@lru_cache(maxsize=2048)
def _memorised_list(body: bytes, most: int) -> bytes:
    """Mail has few correspondents: the same fields come again and again."""
    entries = parse_addresses(body, most)
    return b"(%b)" % b"".join([format_address(entry) for entry in entries]) if entries else NIL


def _format_list(bodies: list[bytes], limits: MessageLimits) -> bytes:
    entries = parse_addresses(bodies[0], limits.addresses)
    for body in bodies[1:]:
        if len(entries) >= limits.addresses:
            break
        entries += parse_addresses(body, limits.addresses - len(entries))
    if not entries:
        return NIL
    return b"(%b)" % b"".join([format_address(entry) for entry in entries])


def format_address(entry: EnvelopeAddress) -> bytes:
    """``address``: a name that is missing is NIL, a host that is missing is empty (NIL would begin a group)."""
    name, adl, mailbox, host = entry
    return b"(%b %b %b %b)" % (
        NIL if name is None else format_string(name),
        NIL if adl is None else format_string(adl),
        NIL if mailbox is None else format_string(mailbox),
        format_nstring(host) if host != b"" else EMPTY,
    )
