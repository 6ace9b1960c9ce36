"""What the engine of a client tells, and how a recipient fared."""

from __future__ import annotations

import enum

from attrs import frozen

from mailsrv.smtp.client.capabilities import Capabilities
from mailsrv.smtp.client.replies import ServerReply


class Phase(enum.Enum):
    """What is being waited for; each has its own timeout (RFC 5321 4.5.3.2)."""

    # As for Asked: every reply begins a phase.
    __hash__ = object.__hash__

    GREETING = "greeting"
    COMMAND = "command"
    TLS = "TLS handshake"
    IDLE = "idle"
    """Nothing: it is the client's turn."""
    DATA_START = "data start"
    DATA_BLOCK = "data block"
    DATA_END = "data end"
    QUIT = "quit"
    CLOSED = "closed"


class Stage(enum.Enum):
    """Where in a transaction the answer was given that decided about a recipient."""

    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CONTENT = "end of data"


class Problem(enum.Enum):
    """Why a connection cannot go on."""

    REFUSED = "refused"
    """The server will not speak with us: its greeting, or its answer to EHLO and HELO."""
    CLOSED_BY_SERVER = "closed by the server"
    """421."""
    LOST = "lost"
    TIMED_OUT = "timed out"
    CONFUSED = "confused"
    """It does not answer as the protocol wants; whose answer is whose is no longer known."""
    OURS = "ours"
    """Given up by ourselves."""


class Wait(enum.Enum):
    """Why there is no event."""

    NEED_DATA = "need data"


@frozen
class Ready:
    """Greeted: mail can be sent, or STARTTLS, or AUTH."""

    capabilities: Capabilities


@frozen
class TlsAgreed:
    """220 to STARTTLS: start TLS now, and say ``tls_established`` after the handshake."""


@frozen
class TlsRefused:
    """Anything else. The connection can go on without."""

    reply: ServerReply


@frozen
class Authenticated:
    """235."""


@frozen
class AuthenticationRefused:
    """The connection should be left: what follows would be refused too."""

    reply: ServerReply


@frozen
class ContentWanted:
    """The message may go out now: ``write_content`` while ``wants_content()``."""


@frozen
class RecipientOutcome:
    """How one recipient of a transaction fared."""

    is_taken: bool
    stage: Stage
    reply: ServerReply | None = None
    """What the server said; None where it said nothing."""
    problem: Problem | None = None
    """The connection ended before an answer for this recipient."""
    text: str = ""
    """About the problem."""
    is_uncertain: bool = False
    """The whole message was sent and the answer is missing."""
    is_untouched: bool = False
    """Not a single command of the transaction was answered, and no content was sent: as if never begun."""


@frozen
class TransactionEnded:
    """One outcome for each recipient, in order."""

    outcomes: tuple[RecipientOutcome, ...]


@frozen
class SessionEnded:
    """The connection is of no use any more: close it. After the ``TransactionEnded`` of what was under way."""

    problem: Problem | None
    """None: QUIT."""
    reply: ServerReply | None = None
    text: str = ""


Event = (
    Ready
    | TlsAgreed
    | TlsRefused
    | Authenticated
    | AuthenticationRefused
    | ContentWanted
    | TransactionEnded
    | SessionEnded
)
