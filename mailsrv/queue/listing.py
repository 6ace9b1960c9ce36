"""What the administrator is shown of the queue, and how it is read from the database."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from mailsrv.queue.schema import ENDINGS, Place
from mailsrv.queue.selection import shown_state


@frozen
class ListedRecipient:
    """One of a message."""

    number: int
    address: str
    destination: str
    state: str
    attempts: int
    due: float
    """When it is tried next; of an ended one, when it ended."""
    ending: str
    last_reply: str


@frozen
class ListedMessage:
    """A message with those of its recipients that were asked for."""

    id: int
    transaction_id: str
    sender: str
    account: str
    accepted_at: float
    size: int
    priority: int
    is_damaged: bool
    recipients: tuple[ListedRecipient, ...] = field(factory=tuple)


@frozen
class Event:
    """A line of a message's history."""

    at: float
    recipient: str
    text: str


@frozen
class DestinationStatistics:
    """What waits for a destination."""

    destination: str
    waiting: int
    next_due: float | None


@frozen
class Statistics:
    """The queue in numbers."""

    messages: int
    octets: int
    remembered: int
    """Messages that left and are still known."""
    recipients: dict[str, int]
    """By state."""
    destinations: tuple[DestinationStatistics, ...]
    """Those with the most waiting recipients first."""


LIST = (
    "SELECT m.id, m.transaction_id, m.reverse_path, m.account, m.accepted_at, m.size, r.rank, m.place, "
    "r.number, r.address, d.name, r.state, r.attempts, r.due, r.ending, r.reply "
    "FROM recipient r JOIN message m ON m.id=r.message LEFT JOIN destination d ON d.id=r.destination "
    "WHERE {condition} ORDER BY r.message, r.number"
)
"""Rows for :func:`listed`; ``condition`` is one of a :class:`~mailsrv.queue.selection.Selection`."""


def listed(row: Any) -> tuple[ListedMessage, ListedRecipient]:
    """A recipient, and its message without any recipients."""
    identity, transaction_id, sender, account, accepted_at, size, rank, place, *rest = row
    number, address, destination, state, attempts, due, ending, reply = rest
    message = ListedMessage(
        identity, transaction_id, sender or "", account, accepted_at, size, -rank, place == Place.CORRUPT
    )
    ended = "" if ending is None else ENDINGS[ending].value
    return message, ListedRecipient(number, address, destination or "", shown_state(state), attempts, due, ended, reply)
