"""What the engine asks of its shell; each event says with which method of the engine it is answered."""

from __future__ import annotations

import enum

from attrs import field, frozen

from mailsrv.interfaces.mailbox import Uid
from mailsrv.sasl import ResponseOffered


class Signal(enum.Enum):
    """Events that carry nothing."""

    NEED_DATA = "need data"
    SEND = "send"
    """More will come when ``octets_to_send`` was taken."""
    PAUSED = "paused"
    """An answer is owed to the engine."""
    TLS_REQUESTED = "tls requested"
    """Send, start TLS, then call ``tls_started``."""
    ENDED = "ended"
    """Send and close."""


NEED_DATA, SEND, PAUSED = Signal.NEED_DATA, Signal.SEND, Signal.PAUSED
TLS_REQUESTED, ENDED = Signal.TLS_REQUESTED, Signal.ENDED


@frozen
class LoginRequested:
    """Answer with ``login_succeeded`` or ``refuse``."""

    authcid: str
    password: str = field(repr=False)
    authzid: str = ""


@frozen
class MessageRequested:
    """RETR or TOP: answer with ``send_message``; or ``begin_message``, ``send_part`` …, ``end_message``; or ``refuse``.

    What TOP leaves out is cut off by the engine.
    """

    number: int
    uid: Uid


@frozen
class UpdateRequested:
    """QUIT with messages marked: remove them, then ``update_done`` or ``refuse``."""

    uids: list[Uid]


Event = Signal | LoginRequested | ResponseOffered | MessageRequested | UpdateRequested
