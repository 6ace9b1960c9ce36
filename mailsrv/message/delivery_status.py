"""Delivery status notifications, written (RFC 3464 in a multipart/report of RFC 6522; RFC 6533 for UTF-8).

A report tells, for one message and one or more of its recipients, what became of them: first for people,
in plain words, then for programs, then the message itself or its header section. It comes from us alone, but
it quotes: replies of other servers, addresses and ORCPT or ENVID values of clients. All of these pass
:func:`one_line`, so that none can end a field or begin one (R-INJ), and what they weigh is bounded.

A report is marked as made by a machine (RFC 3834), so that no other machine answers it.
"""

from __future__ import annotations

import datetime
import enum
import hashlib
import re

from attrs import field, frozen

from mailsrv.address import Address
from mailsrv.message.dates import format_date
from mailsrv.message.delivery_status_text import explain
from mailsrv.message.edits import format_field
from mailsrv.status import EnhancedStatus

QUOTED_OCTETS = 512
"""Of a reply, an ENVID or an ORCPT."""
_LINE_OCTETS = 998

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_NOT_ASCII = re.compile(r"[^ -~]")
_MESSAGE_ID = re.compile(rb"^message-id:[ \t]*(?:\r?\n[ \t]+)?(<[!-~]{1,250}>)", re.IGNORECASE | re.MULTILINE)
_LONG_LINE = re.compile(rb"[^\n]{999,}")
_HOST = re.compile(r"[0-9A-Za-z._-]+|\[[0-9A-Za-z:.]+\]")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]{1,40}")


class Action(enum.Enum):
    """What became of a recipient (RFC 3464 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    """To a server that will not say what became of it."""
    EXPANDED = "expanded"
    """To more than one address; these will not be reported on."""


@frozen
class ReportedRecipient:
    """One recipient's part of a report."""

    address: Address
    action: Action
    status: EnhancedStatus
    reply: str = ""
    """What the other server, or we, said."""
    host: str = ""
    """Who said it; "" where we did."""
    original_recipient: str = ""
    """As in ORCPT, decoded."""
    last_attempt: int | None = None
    """Seconds since the epoch."""
    will_retry_until: int | None = None

    @property
    def is_ascii(self) -> bool:
        return self.address.is_ascii and one_line(self.original_recipient).isascii()


@frozen
class ReturnedContent:
    """What comes back of the message."""

    octets: bytes
    is_complete: bool
    """The whole message; else its header section, or the beginning of it."""
    is_internationalized: bool = False
    """It travelled with SMTPUTF8: its header section may hold UTF-8 (RFC 6532)."""


@frozen
class DeliveryReport:
    """All a report says. ``recipients`` all have one kind of action, or several."""

    reporting_mta: str
    """Our host name."""
    author: Address
    """Who the report is from, for people."""
    to: Address
    """The reverse-path of the message."""
    recipients: tuple[ReportedRecipient, ...]
    report_id: str
    """Letters and digits; unique, also in the Message-ID."""
    date: int
    transaction_id: str
    """Of the message, as the log has it."""
    arrival: int
    """When the message came."""
    returned: ReturnedContent
    envelope_id: str = ""
    deliver_by: int | None = None
    """The deadline asked for (RFC 2852), seconds since the epoch."""
    held_until: int | None = None
    """The release asked for (RFC 4865), seconds since the epoch."""
    note: str = ""
    """A paragraph for people in front of all others."""


@frozen
class WrittenReport:
    """The octets, and what carrying them needs."""

    octets: bytes
    is_8bit: bool = field(default=False)
    is_internationalized: bool = field(default=False)
    """Its own header section holds UTF-8."""


def one_line(text: str, limit: int = QUOTED_OCTETS) -> str:
    """``text`` without anything that could end a line, bounded; octets that are no UTF-8 become question marks."""
    line = _CONTROLS.sub(" ", text[: 4 * limit]).strip()
    return line.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def format_report(report: DeliveryReport) -> WrittenReport:
    """The notification as a message, with canonical line ends and no line longer than 998 octets."""
    is_utf8 = not all(recipient.is_ascii for recipient in report.recipients)
    human = _text_part(report)
    machine = _status_part(report, is_utf8)
    returned = _returned_part(report.returned)
    boundary = _boundary(report.report_id, human + machine + returned)
    header = _header(report, boundary)
    line = b"--" + boundary
    octets = b"".join(
        (header, b"\r\n", line, b"\r\n", human, line, b"\r\n", machine, line, b"\r\n", returned, line, b"--\r\n")
    )
    return WrittenReport(octets, not octets.isascii(), not header.isascii())


def _header(report: DeliveryReport, boundary: bytes) -> bytes:
    domain = _ascii(report.reporting_mta)
    fields = [
        (b"Date", format_date(report.date)),
        (b"From", f"Mail delivery system <{report.author}>".encode()),
        (b"To", f"<{report.to}>".encode()),
        (b"Subject", subject(report).encode()),
        (b"Message-ID", f"<{_ascii(report.report_id)}@{domain}>".encode()),
    ]
    original = _MESSAGE_ID.search(report.returned.octets[:65_536])
    if original is not None:
        fields.append((b"In-Reply-To", original[1]))
        fields.append((b"References", original[1]))
    # RFC 3834 5: nobody's machine shall answer. RFC 3464 2: the null reverse-path sees to the rest.
    fields.append((b"Auto-Submitted", b"auto-replied"))
    fields.append((b"MIME-Version", b"1.0"))
    fields.append(
        (b"Content-Type", b'multipart/report; report-type=delivery-status; boundary="' + boundary + b'"'),
    )
    return b"".join(format_field(name, value) for name, value in fields)


def subject(report: DeliveryReport) -> str:
    """What happened, and to whom where that is one ASCII address."""
    actions = {recipient.action for recipient in report.recipients}
    if Action.FAILED in actions:
        text = "Delivery failed"
    elif Action.DELAYED in actions:
        text = "Delivery is delayed"
    else:
        text = "Delivery report"
    first = str(report.recipients[0].address)
    if len(report.recipients) == 1 and first.isascii():
        return f"{text}: {first}"
    return text


def _text_part(report: DeliveryReport) -> bytes:
    text = explain(
        report.note,
        report.reporting_mta,
        report.transaction_id,
        [
            (
                recipient.action.value,
                str(recipient.address),
                recipient.status,
                one_line(recipient.reply),
                _public_host(recipient),
                recipient.will_retry_until,
            )
            for recipient in report.recipients
        ],
    )
    octets = text.replace("\n", "\r\n").encode("utf-8", "replace")
    return _part_header("text/plain; charset=utf-8", octets) + octets + b"\r\n"


def _status_part(report: DeliveryReport, is_utf8: bool) -> bytes:
    """RFC 3464 2.1: the message's fields, then each recipient's, after empty lines."""
    lines: list[bytes] = []
    envelope_id = _ascii(report.envelope_id)
    if envelope_id:
        lines.append(_status_field("Original-Envelope-Id", envelope_id))
    lines.append(_status_field("Reporting-MTA", f"dns; {_ascii(report.reporting_mta)}"))
    lines.append(_status_field("Arrival-Date", format_date(report.arrival).decode("ascii")))
    if report.deliver_by is not None:
        lines.append(_status_field("Deliver-By-Date", format_date(report.deliver_by).decode("ascii")))
    if report.held_until is not None:
        until = datetime.datetime.fromtimestamp(report.held_until, datetime.UTC)
        lines.append(_status_field("Future-Release-Request", f"until;{until:%Y-%m-%dT%H:%M:%SZ}"))
    for recipient in report.recipients:
        lines.append(b"\r\n")
        lines.extend(_recipient_fields(recipient, is_utf8))
    octets = b"".join(lines)
    # RFC 6533 4: addresses beyond ASCII need the type that holds UTF-8.
    kind = "message/global-delivery-status" if is_utf8 else "message/delivery-status"
    return _part_header(kind, octets) + octets + b"\r\n"


def _public_host(recipient: ReportedRecipient) -> str:
    """The name or address of the host that spoke; "" for an LMTP server: a path or port of ours concerns nobody."""
    host = one_line(recipient.host, 255)
    return host if _HOST.fullmatch(host) else ""


def _recipient_fields(recipient: ReportedRecipient, is_utf8: bool) -> list[bytes]:
    lines: list[bytes] = []
    if one_line(recipient.original_recipient):
        original = _original_recipient(recipient.original_recipient, is_utf8)
        lines.append(_status_field("Original-Recipient", original))
    address = str(recipient.address)
    lines.append(_status_field("Final-Recipient", f"{'rfc822' if address.isascii() else 'utf-8'}; {address}"))
    lines.append(_status_field("Action", recipient.action.value))
    lines.append(_status_field("Status", str(recipient.status)))
    host = _public_host(recipient)
    if host:
        lines.append(_status_field("Remote-MTA", f"dns; {host}"))
    reply = _ascii(recipient.reply)
    if reply:
        # RFC 3464 2.3.6: what is not a reply of SMTP has a type of its own.
        kind = "smtp" if recipient.host and reply[:3].isdigit() else "X-Mailsrv"
        lines.append(_status_field("Diagnostic-Code", f"{kind}; {reply}"))
    if recipient.last_attempt is not None:
        lines.append(_status_field("Last-Attempt-Date", format_date(recipient.last_attempt).decode("ascii")))
    if recipient.will_retry_until is not None and recipient.action is Action.DELAYED:
        lines.append(_status_field("Will-Retry-Until", format_date(recipient.will_retry_until).decode("ascii")))
    return lines


def _original_recipient(text: str, is_utf8: bool) -> str:
    """``type; address``, the type checked."""
    kind, separator, address = text.partition(";")
    if not separator or not _ADDRESS_TYPE.fullmatch(kind):
        kind, address = "unknown", text
    address = one_line(address) if is_utf8 else _ascii(address)
    return f"{kind}; {address}"


def _status_field(name: str, value: str) -> bytes:
    return format_field(name.encode("ascii"), value.encode("utf-8", "replace"))


def _ascii(text: str, limit: int = QUOTED_OCTETS) -> str:
    return _NOT_ASCII.sub("?", one_line(text, limit))


def _part_header(kind: str, octets: bytes) -> bytes:
    encoding = b"7bit" if octets.isascii() else b"8bit"
    return b"Content-Type: " + kind.encode("ascii") + b"\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n"


def _returned_part(returned: ReturnedContent) -> bytes:
    """The message, or its header section where it is cut or no text lines (a message/rfc822 part cannot be encoded)."""
    octets, is_complete = returned.octets, returned.is_complete
    if is_complete and not _is_text(octets):
        octets, is_complete = header_section(octets), False
    if is_complete:
        kind = "message/global" if returned.is_internationalized else "message/rfc822"
    else:
        kind = "message/global-headers" if returned.is_internationalized else "text/rfc822-headers"
        octets = _tame(octets)
    if not octets.endswith(b"\r\n"):
        octets += b"\r\n"
    return _part_header(kind, octets) + octets


def header_section(octets: bytes) -> bytes:
    """Up to the empty line, or all there is."""
    if octets.startswith(b"\r\n"):
        return b""
    end = octets.find(b"\r\n\r\n")
    return octets if end < 0 else octets[: end + 2]


def _is_text(octets: bytes) -> bool:
    """Lines that end with CRLF, none too long, no NUL."""
    ends = octets.count(b"\r\n")
    return (
        octets.count(b"\r") == octets.count(b"\n") == ends and b"\0" not in octets and _LONG_LINE.search(octets) is None
    )


def _tame(octets: bytes) -> bytes:
    """Lines as a text part may have them; what is too long for one is cut."""
    lines = octets.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\0", b" ").split(b"\n")
    return b"\r\n".join(line[: _LINE_OCTETS - 2] for line in lines)


def _boundary(seed: str, content: bytes) -> bytes:
    """One that does not stand in the content, found without chance."""
    number = 0
    while True:
        digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=15).hexdigest()
        boundary = f"=_{digest}".encode("ascii")
        if boundary not in content:
            return boundary
        number += 1
