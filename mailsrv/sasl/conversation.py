"""Between a protocol whose lines come as events and a log-in that asks for them: one response at a time.

``converse`` is for who decides about the log-in; :class:`Conversations` is for the protocol's shell, which
answers nothing for a log-in that is decided when its client has gone on to something else.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailsrv.errors import MailError
from mailsrv.sasl.errors import SaslCancelled


@frozen
class ResponseOffered:
    """Event of an engine: an exchange that is judged step by step has come further. Answer, or ask once more."""

    mechanism: str
    response: bytes | MailError = field(repr=False)
    """An error where the client cancelled or sent what is no response: it will be the answer."""
    is_first: bool


class Conversation:
    """``send`` puts a challenge, not yet in base64, on its way to the client."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._waiting: Deferred[bytes] | None = None
        self._is_over = False

    def converse(self, challenge: bytes) -> Deferred[bytes]:
        """The client's response to a challenge; fails with SaslError or SaslCancelled."""
        answer: Deferred[bytes] = Deferred()
        if self._is_over:
            answer.errback(Failure(SaslCancelled()))
            return answer
        self._waiting = answer
        self._send(challenge)
        return answer

    def respond(self, response: bytes | Exception) -> None:
        """The response came, or something that is none."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and isinstance(response, Exception):
            waiting.errback(Failure(response))
        elif waiting is not None and isinstance(response, bytes):
            waiting.callback(response)

    def end(self) -> None:
        """The connection is gone, or the log-in decided."""
        self._is_over = True
        self.respond(SaslCancelled())


class Conversations:
    """Those of one connection, one at a time."""

    __slots__ = ("_current",)

    def __init__(self) -> None:
        self._current: Conversation | None = None

    def begin(self, send: Callable[[bytes], None]) -> Conversation:
        """``send`` as of :class:`Conversation`. The client has given up the one before, if there is one."""
        self.end()
        self._current = Conversation(send)
        return self._current

    def respond(self, response: bytes | Exception) -> bool:
        """The response came, or something that is none. False: none is under way."""
        if self._current is None:
            return False
        self._current.respond(response)
        return True

    def settle(self, conversation: Conversation) -> bool:
        """The log-in is decided. False: nobody waits for that any more."""
        if self._current is not conversation:
            return False
        self._current = None
        return True

    def end(self) -> None:
        """The one under way is given up."""
        current, self._current = self._current, None
        if current is not None:
            current.end()
