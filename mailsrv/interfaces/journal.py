"""The delivery journal: the point at which mail is acknowledged, and what is applied from it.

A record is one atomic, durable unit: a message with all its deliveries (into mailboxes here, into the
queue), or the messages of one MULTIAPPEND. It is synced once, acknowledged, then *applied* to the
accounts and the queue by an :class:`IApplier`. Applying is idempotent: every delivery has a
:class:`DeliveryKey`, and a key that an account or the queue has seen is not delivered again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Generic, TypeVar

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.interfaces.content import Content
from mailsrv.interfaces.queue import OnwardDelivery, QueueSettlement


@frozen(order=True)
class DeliveryKey:
    """Names one delivery for ever: (segment id, offset of the record, number of the delivery in it)."""

    segment_id: bytes
    offset: int
    number: int

    def to_octets(self) -> bytes:
        """28 octets; the form kept in an account's index."""
        return self.segment_id + self.offset.to_bytes(8, "big") + self.number.to_bytes(4, "big")

    @classmethod
    def from_octets(cls, octets: bytes) -> DeliveryKey:
        """The inverse of :meth:`to_octets`."""
        if len(octets) != 28:
            raise ValueError(f"a delivery key has 28 octets, not {len(octets)}")
        return cls(octets[:16], int.from_bytes(octets[16:24], "big"), int.from_bytes(octets[24:], "big"))


@frozen
class LocalDelivery:
    """One message into one mailbox of one account."""

    account: Address
    mailbox: str = "INBOX"
    flags: frozenset[str] = frozenset()
    recipient: str = ""
    """The forward-path it came for, kept in the index and not in the message ("" for APPEND)."""


Delivery = LocalDelivery | OnwardDelivery | QueueSettlement
"""What a record may ask for."""


@frozen
class JournaledMessage:
    """A message as the journal keeps it: final octets, and where they go.

    One that holds nothing but a :class:`QueueSettlement` has the content ``InlineContent(b"")``.
    """

    content: Content
    deliveries: tuple[Delivery, ...]
    internal_date: int
    """Seconds since the epoch, UTC."""
    date_offset_minutes: int = 0
    """The time zone INTERNALDATE is shown in."""


@frozen
class JournalRecord:
    """One atomic unit. ``transaction_id`` is what our log and the Received field call it."""

    messages: tuple[JournaledMessage, ...]
    transaction_id: str = ""
    reverse_path: str = ""


D_co = TypeVar("D_co", bound=Delivery, covariant=True)


@frozen
class PendingDelivery(Generic[D_co]):
    """One delivery that the journal asks an applier to carry out."""

    key: DeliveryKey
    message: JournaledMessage
    delivery: D_co
    is_replay: bool = field(default=False)
    """True where the journal is replayed after a start: the delivery may have been applied before."""
    noted: Applied | None = field(default=None)
    """What was told of this delivery before (APPENDUID): where the index has lost it, it gets this UID again
    (in a mailbox of this UIDVALIDITY), and a later mod-sequence."""
    transaction_id: str = ""
    """That of the record."""


@frozen
class Applied:
    """A delivery is in its mailbox or in the queue (now, or already before). In the queue the numbers are 0."""

    key: DeliveryKey
    uid_validity: int
    uid: int
    mod_seq: int


@frozen
class NotApplied:
    """A delivery could not be carried out now; the journal keeps it and tries again."""

    key: DeliveryKey
    error: MailError


class IApplier(Interface):
    """Carries deliveries out. Every method is called in the journal's apply thread and may wait."""

    def apply(deliveries: Sequence[PendingDelivery[Any]]) -> Sequence[Applied | NotApplied]:
        """Apply a batch; one answer each, in order. Never raises for a single account's trouble.

        Deliveries of one account are applied in the order given; those of one record (equal
        segment id and offset) into one account all together or none. For this the queue is one
        account. File content is linked or copied, never moved. Files may be left unsynced: the
        checkpoint sees to that.
        """

    def take_touched() -> Collection[str]:
        """Directories written since the last call: what a checkpoint has to make durable.

        Also names directories whose last checkpoint failed (see ``checkpoint_failed``). May raise OSError or
        MailError where what was applied cannot be put where it lasts: the checkpoint has failed then.
        """

    def checkpoint_failed(keys: Collection[DeliveryKey]) -> None:
        """What was applied under these keys may not be on disk, whatever can be read: it is written anew on re-apply.

        Also told before the replay of what another process had applied when its checkpoint failed.
        """


class IJournal(Interface):
    """Accepts records. Called in the reactor thread."""

    def check_acceptance(octets: int) -> MailError | None:
        """Why a message of about this size would be refused now (backlog, free space), or None. Does not wait."""

    def commit(record: JournalRecord) -> Deferred[None]:
        """Fires when the record is synced and (for at most the apply wait, 250 ms) applied.

        From then on the record survives anything. Fails with ``InsufficientStorage`` or
        ``Unavailable``; then nothing of it will ever be delivered. File content belongs to
        the journal from the call on, whatever comes of it.
        """

    def commit_and_note(record: JournalRecord) -> Deferred[Sequence[Applied]]:
        """As ``commit``, but waits until all is applied and the notes (key → uid, mod-sequence) are synced.

        One :class:`Applied` for each delivery, in order. For APPEND, which tells UIDs. If the
        apply fails the record is withdrawn (durably) and this fails: all or none.
        """

    def live_segments() -> frozenset[bytes]:
        """Ids of all segments, of all slots, that may still be replayed. A key of another segment is history.

        The only method for any thread: it reads a small file a slot, so better not the reactor's.
        Collect the keys in question first and ask then. Raises ``Unavailable`` where it cannot tell.
        """
