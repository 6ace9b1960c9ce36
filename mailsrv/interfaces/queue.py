"""The queue: mail that was accepted but not yet handed on.

Mail gets into the queue by one way only, the delivery journal: a record holds the message with an
:class:`OnwardDelivery`, the queue applies it under its delivery key, once. Whatever a queued recipient
turns into here (a notice of failure, a delivery into a mailbox, a forwarded copy) is again one journal
record, and a :class:`QueueSettlement` in that same record ends the recipient. So there is no moment
in which a kill or a power cut could leave both, or neither.

Towards the next hop only the recipient's own reply counts: it is made durable by ``settle`` before the
recipient is forgotten. A connection that dies between our end of data and the peer's 250 leaves a
recipient that may get the message twice, the one case SMTP cannot know (RFC 5321 4.5.4.2; RFC 1047).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.envelope import NOTIFY_UNSAID, EnvelopeParameters, Notify
from mailsrv.status import EnhancedStatus


class Transport(enum.Enum):
    """How mail leaves the queue."""

    # Part of every destination, which is looked up several times a message; an Enum's own hash is computed in Python.
    __hash__ = object.__hash__

    MX = "mx"
    """By the MX records of a domain, or to an address literal."""
    SMTP = "smtp"
    """To one host and port: a smarthost."""
    LMTP = "lmtp"
    """To an LMTP server at a Twisted client endpoint."""
    LOCAL = "local"
    """Resolved and delivered here, when its time comes (notices of failure, released mail)."""


@frozen(order=True)
class Destination:
    """Where the queue hands mail to; what shares one waits, fails and gets connections together.

    ``str()`` gives ``mx:example.org``, ``smtp:mail.example.net:587``, ``lmtp:unix:/run/lmtp`` or ``local``;
    :meth:`parse` is its inverse.
    """

    transport: Transport
    target: str = ""

    def __str__(self) -> str:
        return f"{self.transport.value}:{self.target}" if self.target else self.transport.value

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Raises ValueError."""
        transport, _, target = text.partition(":")
        if (not target) is not (transport == Transport.LOCAL.value):
            raise ValueError(f"no destination: {text}")
        return cls(Transport(transport), target)


LOCAL = Destination(Transport.LOCAL)


@frozen
class OnwardRecipient:
    """A forward-path as it goes out, and where to."""

    address: Address
    destination: Destination
    notify: Notify = NOTIFY_UNSAID
    original_recipient: str = ""
    """As in ORCPT, decoded; where the client gave none and an alias or forward changed the address: the
    address it gave, as ``rfc822;…`` (RFC 3461 5.2.7)."""


@frozen
class OnwardDelivery:
    """In a journal record: the queue takes this envelope with the record's message. At least one recipient."""

    reverse_path: Address | None
    recipients: tuple[OnwardRecipient, ...]
    parameters: EnvelopeParameters = field(factory=EnvelopeParameters)
    account: str = ""
    """The canonical address of who submitted it, "" for mail from other servers: delay notices go to users only,
    and the queue is fair between senders."""


class Ending(enum.Enum):
    """How a queued recipient came to its end."""

    DELIVERED = "delivered"
    """The next hop took it, or it is in the mailbox."""
    BOUNCED = "bounced"
    """Refused for good; the sender was told where they wanted to be."""
    EXPIRED = "expired"
    """As BOUNCED, after its time was over."""
    DROPPED = "dropped"
    """By an administrator, without a word to anybody."""


@frozen
class QueueSettlement:
    """In a journal record: these recipients of a queued message have become what else stands in the record."""

    entry_id: int
    recipient_ids: tuple[int, ...]
    ending: Ending
    text: str = ""
    """One line for the history."""


@frozen
class QueuedRecipient:
    """A recipient that is owed the message."""

    id: int
    """Unique in its entry's queue, never used again."""
    address: Address
    notify: Notify = NOTIFY_UNSAID
    original_recipient: str = ""
    attempts: int = 0
    """Finished attempts so far."""
    last_reply: str = ""
    """What the last one ended with, for the notice when its time is over."""
    is_delay_told: bool = False


@frozen
class QueueEntry:
    """A message in the queue. ``id`` is the queue's own number, ``transaction_id`` the name in log and Received."""

    id: int
    transaction_id: str
    reverse_path: Address | None
    parameters: EnvelopeParameters
    account: str
    accepted_at: float
    """Seconds since the epoch."""
    size: int
    """Octets of the content, Return-Path field excluded: it is not relayed."""


@frozen
class Consignment:
    """One message for some recipients of one destination, leased to this process for an attempt."""

    entry: QueueEntry
    destination: Destination
    recipients: tuple[QueuedRecipient, ...]


@frozen
class Delivered:
    """The next hop said 250; ``text`` is its reply and host, for history and log."""

    recipient_id: int
    text: str = ""
    is_relayed: bool = False
    """It did not offer DSN: a success notice, if wanted, is ours to send as "relayed" (RFC 3461 5.2.2 / 6)."""


@frozen
class Postponed:
    """Not now. ``until``: seconds since the epoch of the next attempt; the runner computes it."""

    recipient_id: int
    until: float
    text: str = ""
    is_attempt: bool = True
    """False: nobody was asked (the destination is known to be down), so the count stays."""
    is_delay_told: bool = False
    """A delay notice has gone out."""
    destination: Destination | None = None
    """Not None: it waits for another destination from now on."""


@frozen
class Finished:
    """The end of a recipient without any further message."""

    recipient_id: int
    ending: Ending
    text: str = ""


Settlement = Delivered | Postponed | Finished


AT_ONCE = 0.0
"""A due time that an administrator gives: tried now, whatever is known of the destination."""


@frozen
class DestinationState:
    """What waits for one destination."""

    destination: Destination
    waiting: int
    """Recipients neither leased nor held."""
    next_due: float
    """Seconds since the epoch; of the earliest of them. Infinity where nothing waits."""


class IQueueStore(Interface):
    """The durable queue, shared by all workers. Called in the reactor thread; the work is done in a thread of its own.

    Every Deferred may fail with :class:`~mailsrv.errors.Unavailable` (disk trouble): what was leased stays leased
    and is to be settled again.
    """

    def check_acceptance(octets: int, recipients: int) -> MailError | None:
        """Why an onward message would be refused now (too many queued, disk floor), or None. Does not wait."""

    def listen(enqueued: Callable[[Sequence[DestinationState]], None]) -> None:
        """Have ``enqueued`` called in the reactor thread whenever mail came to wait or to be due earlier:
        accepted here, by another worker, or released by an administrator (noticed within about a second).
        The states told are whole (absolute counts), of the destinations concerned. Mail with ``hold_until``
        becomes due then and not before. What this process settles or gives back itself is not told.
        """

    def destinations() -> Deferred[Sequence[DestinationState]]:
        """All that waits, for the start. May take a second for a million messages."""

    def take(destination: Destination, now: float, messages: int, recipients: int) -> Deferred[Sequence[Consignment]]:
        """Lease what is due: at most so many messages with at most so many recipients each.

        Highest priority first, then fair between senders, then oldest first. Nobody else is given them until
        they are settled, released, or this process is dead and its journal replayed; or after a long time in which
        nobody has called :meth:`renew`.
        """

    def state(destination: Destination) -> Deferred[DestinationState]:
        """What waits for one destination now. Asked after a ``take`` that gave less than it might have; only
        ``next_due`` has to be exact (infinity where nothing waits), ``waiting`` need not be above 1,000.
        """

    def open_content(entry: QueueEntry) -> Deferred[IContent]:
        """The message's octets as they go out (without our Return-Path). To be closed."""

    def settle(entry: QueueEntry, settlements: Sequence[Settlement]) -> Deferred[None]:
        """End the lease of these recipients. Fires when it is durable; concurrent calls share one sync."""

    def give_back(consignment: Consignment) -> None:
        """End the lease of all its recipients, untried: they are due as before. Does not wait; never raises."""

    def renew(entry_ids: Sequence[int]) -> None:
        """This process is still at these messages: they are leased anew. Does not wait; never raises."""


class AttemptProblem(enum.Enum):
    """How far a failed attempt's reason reaches."""

    RECIPIENT = "recipient"
    """Only this recipient: another message may go through at once."""
    MESSAGE = "message"
    """Only this message (too large, needs an extension the next hop has not)."""
    DESTINATION = "destination"
    """Nobody there to be spoken to: all mail for the destination waits."""


@frozen
class Taken:
    """A recipient whose message the next hop took (250 after the end of data)."""

    recipient_id: int
    host: str
    reply: str
    offers_dsn: bool = False
    """NOTIFY was passed on: what it asked for is the next hop's duty now (RFC 3461 5.2.2)."""
    is_local: bool = False
    """In a mailbox here or by LMTP: a success notice says "delivered", not "relayed"."""
    offers_deliver_by: bool = False
    """BY was passed on: a delay is the next hop's to tell now (RFC 2852 4.1.4.2)."""


@frozen
class Declined:
    """A recipient who did not get it in this attempt."""

    recipient_id: int
    status: EnhancedStatus
    """Class 4: again later; class 5: never."""
    reply: str
    """The peer's reply, or in our words why there was none. One line of printable ASCII, at most 512 octets."""
    host: str = ""
    """Who said it; "" where we did."""
    problem: AttemptProblem = AttemptProblem.RECIPIENT
    is_uncertain: bool = False
    """The connection was lost after the end of data: the next hop may have it."""
    is_asked: bool = True
    """False: the recipient was not tried at all."""


@frozen
class Settled:
    """A recipient whom a journal record of the agent has ended already (its :class:`QueueSettlement`): there is
    nothing left to settle. Only LOCAL delivery can do that, for only there what we hand over is ours, too.
    """

    recipient_id: int
    ending: Ending
    reply: str
    """What became of it, for the log."""


AttemptOutcome = Taken | Declined | Settled


class ITransportAgent(Interface):
    """Carries one consignment to its destination: by SMTP, by LMTP or into a mailbox here."""

    def attempt(consignment: Consignment) -> Deferred[Sequence[AttemptOutcome]]:
        """One outcome for each recipient, in order. Never fails for what the network or a peer does."""

    def stop() -> Deferred[None]:
        """Finish what is under way (bounded), QUIT idle connections."""
