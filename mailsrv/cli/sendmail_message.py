"""What ``mailsrv-sendmail`` does to a message before it hands it over.

Line ends become CRLF, an mbox ``From `` line goes, a missing empty line behind the header is put in. From, Date and
Message-ID are added where they are missing, addresses without a domain get one in the fields that name people, and
with ``-t`` the recipients are read and Bcc is taken out. Everything else stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

from mailsrv.address import Address
from mailsrv.message import InvalidField, format_field, new_message_id, parse_addresses, read_header
from mailsrv.message.dates import format_date
from mailsrv.message.fields import field_body, is_mbox_from_line
from mailsrv.message.settings import MessageLimits

_LINE_END = re.compile(rb"\r\n|\r|\n")
_PEOPLE = frozenset({b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc", b"resent-from", b"resent-to", b"resent-cc"})
_RECIPIENTS = (b"to", b"cc", b"bcc")
_RESENT_RECIPIENTS = (b"resent-to", b"resent-cc", b"resent-bcc")
_SPECIALS = re.compile(r'[()<>\[\]:;@\\,."]')
_ATOM_TEXT = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+")
_NAME_LIMIT = 200
_DOT_LINE = re.compile(rb"(?:\A|(?<=\n))\.(?:\r?\n|\Z)")


@frozen
class PreparedMessage:
    """Ready to be handed over; ``header_recipients`` as they stand in its fields."""

    octets: bytes
    header_recipients: tuple[str, ...] = ()

    @property
    def is_8bit(self) -> bool:
        return not self.octets.isascii()

    @property
    def needs_smtputf8(self) -> bool:
        """Whether its header section holds more than ASCII (RFC 6532)."""
        end = self.octets.find(b"\r\n\r\n")
        return not self.octets[: end if end >= 0 else len(self.octets)].isascii()


def cut_at_dot(octets: bytes) -> bytes:
    """What stands before a line with nothing but a dot."""
    match = _DOT_LINE.search(octets)
    return octets if match is None else octets[: match.start()]


def prepare(
    octets: bytes,
    *,
    sender: Address,
    full_name: str,
    domain: str,
    hostname: str,
    reads_recipients: bool,
    seconds: int,
    offset_minutes: int,
) -> PreparedMessage:
    """``sender`` is for a missing From, ``domain`` for addresses without one."""
    octets = _LINE_END.sub(b"\r\n", octets)
    if is_mbox_from_line(octets[:6]):
        octets = octets.partition(b"\r\n")[2]
    if octets and not octets.endswith(b"\r\n"):
        octets += b"\r\n"
    # All of it: what is not read here would be lost.
    section = read_header(octets, 0, len(octets), MessageLimits(header_octets=len(octets), fields=len(octets)))
    rows = [row for row in section.rows if row[1]]
    body = octets[section.body_start :]
    names = {row[1].lower() for row in rows}
    recipients: list[str] = []
    if reads_recipients:
        is_resent = any(name in names for name in _RESENT_RECIPIENTS)
        fields = _RESENT_RECIPIENTS if is_resent else _RECIPIENTS
        for row in rows:
            if row[1].lower() in fields:
                recipients.extend(_addresses_in(field_body(row), domain))
    lines: list[bytes] = []
    if b"from" not in names:
        # The name comes from a command line or the system, in whatever encoding.
        person = full_name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")[:_NAME_LIMIT]
        lines.append(format_field(b"From", _person(person, str(sender)).encode()))
    if b"date" not in names:
        lines.append(format_field(b"Date", format_date(seconds, offset_minutes)))
    if b"message-id" not in names:
        lines.append(format_field(b"Message-ID", new_message_id(hostname)))
    for row in rows:
        name = row[1].lower()
        if reads_recipients and name in (b"bcc", b"resent-bcc"):
            continue
        qualified = _qualified(row[1], field_body(row), domain) if name in _PEOPLE else None
        field = row[0] if qualified is None else qualified
        lines.append(field if field.endswith(b"\r\n") else field + b"\r\n")
    return PreparedMessage(b"".join(lines) + b"\r\n" + body, tuple(recipients))


def _addresses_in(body: bytes, domain: str) -> Iterator[str]:
    for entry in parse_addresses(body):
        # Without a host it is the mark of a group; an empty one is missing.
        if entry.mailbox and entry.host is not None:
            yield f"{_local_part(_text(entry.mailbox))}@{_text(entry.host) or domain}"


def _qualified(name: bytes, body: bytes, domain: str) -> bytes | None:
    """The field with a domain for each address; None where all have one, or where it holds more than a list of them."""
    entries = parse_addresses(body)
    if any(not entry.mailbox or entry.host is None for entry in entries) or all(entry.host for entry in entries):
        return None
    people = (
        _person(_text(name or b""), f"{_local_part(_text(mailbox or b''))}@{_text(host or b'') or domain}")
        for name, _, mailbox, host in entries
    )
    try:
        return format_field(name, ", ".join(people).encode("utf-8", "surrogateescape"))
    except InvalidField:
        # It holds what no field of ours may: it stays as its author wrote it.
        return None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _local_part(text: str) -> str:
    return text if _ATOM_TEXT.fullmatch(text) or not text.isascii() else '"' + _escaped(text) + '"'


def _person(name: str, address: str) -> str:
    name = " ".join("".join(each if each.isprintable() else " " for each in name).split())
    if not name:
        return address
    return f'"{_escaped(name)}" <{address}>' if _SPECIALS.search(name) else f"{name} <{address}>"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
