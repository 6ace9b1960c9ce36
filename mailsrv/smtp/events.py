"""What happens in a session, as values: the engine answers :meth:`SmtpSession.next_event` with one of these.

An event whose docstring says *answer* pauses the engine until it is replied to.
"""

from __future__ import annotations

import enum

from attrs import define, field, frozen

from mailsrv.address import Address
from mailsrv.interfaces.delivery import MailParameters
from mailsrv.interfaces.envelope import RecipientParameters
from mailsrv.sasl import PasswordGiven, ResponseOffered
from mailsrv.smtp.replies import Reply
from mailsrv.smtp.xclient import Xclient


class Wait(enum.Enum):
    """Why there is no event."""

    NEED_DATA = "need data"
    PAUSED = "paused"
    """An answer is owed."""


# Looking a member up in its class costs as much as a small method.
NEED_DATA, PAUSED = Wait.NEED_DATA, Wait.PAUSED


@frozen
class ClientGreeted:
    """EHLO, HELO or LHLO. Answer."""

    domain: str
    is_extended: bool


@define
class MailGiven:
    """MAIL, checked. Answer."""

    reverse_path: Address | None
    """None is the null reverse-path."""
    parameters: MailParameters


@define
class RecipientNamed:
    """RCPT, checked. Answer."""

    forward_path: Address
    parameters: RecipientParameters


@define
class ContentRequested:
    """DATA with recipients, or the first BDAT. Answer: yes means that text may come."""


@define
class ContentReceived:
    """A slice of the message, un-stuffed."""

    octets: bytes = field(repr=False)


@frozen
class ContentRefused:
    """The message cannot be taken, whatever still comes of it; ``refusal`` is what the client will be told."""

    refusal: Reply


@define
class MessageEnded:
    """The end of the data. Answer: one reply, or for LMTP one for each accepted recipient."""

    size: int


@frozen
class TransactionAborted:
    """The transaction that was under way is over without a message."""


@frozen
class CommandRejected:
    """A command was refused by the engine itself, before anybody was asked; for the log."""

    reply: Reply


@frozen
class TlsRequested:
    """Send what is to be sent, call ``start_tls``, and start TLS."""


@frozen
class PasswordOffered:
    """AUTH came to its end. Answer."""

    given: PasswordGiven
    mechanism: str


@frozen
class AddressQueried:
    """VRFY or EXPN. Answer."""

    address: Address
    is_expansion: bool
    is_utf8: bool
    """The reply may be in UTF-8."""


@frozen
class ClientIntroduced:
    """A trusted proxy said whose connection this is. Call ``restart``, then answer as to a greeting."""

    client: Xclient


@frozen
class ReplyDelayed:
    """The client made many errors: call ``resume`` after this time. Octets that come meanwhile wait."""

    seconds: float


Event = (
    ClientGreeted
    | MailGiven
    | RecipientNamed
    | ContentRequested
    | ContentReceived
    | ContentRefused
    | MessageEnded
    | TransactionAborted
    | CommandRejected
    | TlsRequested
    | PasswordOffered
    | ResponseOffered
    | AddressQueried
    | ClientIntroduced
    | ReplyDelayed
)
