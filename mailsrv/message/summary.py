"""What the index keeps of a message's content, made once at delivery or when a file is first seen."""

from __future__ import annotations

from attrs import frozen

from mailsrv.message.body_structure import format_body_structures
from mailsrv.message.dates import sent_day
from mailsrv.message.fields import FieldRow, Octets
from mailsrv.message.imap_envelope import format_envelope
from mailsrv.message.scanner import Scanner
from mailsrv.message.settings import DEFAULT_LIMITS, MessageLimits
from mailsrv.message.structure import MessageStructure

CACHED_FIELD_NAMES = frozenset(
    {
        # What message lists of Thunderbird, Outlook, Apple Mail, mutt, K-9 and web mail programs ask for.
        b"date",
        b"from",
        b"sender",
        b"reply-to",
        b"to",
        b"cc",
        b"bcc",
        b"subject",
        b"message-id",
        b"in-reply-to",
        b"references",
        b"newsgroups",
        b"content-type",
        b"content-transfer-encoding",
        b"content-class",
        b"mime-version",
        b"priority",
        b"x-priority",
        b"importance",
        b"x-msmail-priority",
        # Receipts, mailing lists, threads and marks that clients and their filters show.
        b"disposition-notification-to",
        b"return-receipt-to",
        b"list-id",
        b"list-post",
        b"list-unsubscribe",
        b"followup-to",
        b"mail-followup-to",
        b"delivered-to",
        b"x-label",
        b"keywords",
        b"x-spam-status",
        b"x-spam-flag",
        b"x-spam-level",
        b"x-uniform-type-identifier",
        b"x-universally-unique-identifier",
        b"chat-version",
        b"x-k9mail-identity",
    }
)
"""Field names in lower case; a HEADER.FIELDS of these alone is answered without the message.

Left out on purpose: Received, signatures and authentication results, which are long and asked
for only when one message is opened.
"""


@frozen
class Summary:
    """The content fields of :class:`mailsrv.interfaces.mailbox.MessageSummary`, under the same names."""

    size_octets: int
    header_octets: int
    imap_envelope: bytes
    body_structure: bytes
    body: bytes
    cached_fields: bytes
    """Empty means "not cached, ask the message", never "it has no such field"."""
    sent_day: int


def summarise(octets: Octets, limits: MessageLimits = DEFAULT_LIMITS) -> Summary:
    """Scan a message and write what the index keeps. Never raises; pure computation, about 250 µs for 10 KiB."""
    return summarise_with_structure(octets, limits)[0]


def summarise_with_structure(
    octets: Octets, limits: MessageLimits = DEFAULT_LIMITS
) -> tuple[Summary, MessageStructure]:
    """As :func:`summarise`, with the tree, for callers that go on with it."""
    scanner = Scanner(octets, limits)
    structure = scanner.scan()
    root = structure.root
    body, body_structure = format_body_structures(structure, limits)
    dates = root.fields.get(b"date")
    summary = Summary(
        size_octets=structure.size_octets,
        header_octets=root.body_start,
        imap_envelope=format_envelope(root.fields, limits),
        body_structure=body_structure,
        body=body,
        cached_fields=_cached_fields(scanner.header_rows, root.body_start, limits),
        sent_day=sent_day(dates[0]) if dates else -1,
    )
    return summary, structure


def _cached_fields(rows: list[FieldRow], header_octets: int, limits: MessageLimits) -> bytes:
    if len(rows) >= limits.fields or header_octets > limits.header_octets:
        return b""  # there may be more of them behind what was read
    kept = b"".join([row[0] for row in rows if row[1].lower() in CACHED_FIELD_NAMES])
    return kept if len(kept) <= limits.cached_fields_octets else b""
