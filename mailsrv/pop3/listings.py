"""Drop, scan and unique-id listings of a maildrop: the answers to STAT, LIST and UIDL (RFC 1939 5 and 7).

Scan and unique-id listings come in slices, so that they can be sent as the client takes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mailsrv.pop3.errors import CommandRefused
from mailsrv.pop3.maildrop import Maildrop
from mailsrv.pop3.replies import format_ok

_SLICE_LINES = 1000


def checked(maildrop: Maildrop, number: int) -> int:
    """The number of a message that is there and not marked; raises CommandRefused."""
    if not maildrop.holds(number):
        raise CommandRefused("No such message")
    return number


def drop_listing(maildrop: Maildrop) -> bytes:
    """How many messages there are, and their octets."""
    return f"+OK {maildrop.messages_left} {maildrop.octets_left}\r\n".encode()


def scan_listing(maildrop: Maildrop, number: int | None) -> Iterator[bytes]:
    """The size of a message, or of each."""
    if number is not None:
        return iter((format_ok(f"{number} {maildrop.size(checked(maildrop, number))}"),))
    return _slices(
        format_ok(f"{maildrop.messages_left} messages ({maildrop.octets_left} octets)"),
        (f"{each} {maildrop.size(each)}\r\n" for each in maildrop.numbers()),
    )


def unique_id_listing(maildrop: Maildrop, number: int | None) -> Iterator[bytes]:
    """The unique-id of a message, or of each."""
    if number is not None:
        return iter((format_ok(f"{number} {maildrop.unique_id(checked(maildrop, number))}"),))
    return _slices(format_ok("Unique-ids"), (f"{each} {maildrop.unique_id(each)}\r\n" for each in maildrop.numbers()))


def _slices(first: bytes, lines: Iterable[str]) -> Iterator[bytes]:
    """So many lines at a time that a long listing is never built whole; its end comes with the last."""
    yield first
    pending: list[str] = []
    for line in lines:
        pending.append(line)
        if len(pending) == _SLICE_LINES:
            yield "".join(pending).encode("ascii")
            pending.clear()
    yield "".join(pending).encode("ascii") + b".\r\n"
