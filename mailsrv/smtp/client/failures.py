"""What the shell's Deferreds fail with."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from mailsrv.smtp.client.events import Problem
from mailsrv.smtp.client.replies import ServerReply, printable


class SessionFailed(Exception):
    """The connection is of no use any more; ``reply`` is the server's last word, where it had one."""

    def __init__(self, problem: Problem, reply: ServerReply | None, text: str) -> None:
        super().__init__(text)
        self.problem = problem
        self.reply = reply
        self.text = text


class TlsNotStarted(Exception):
    """The server refused STARTTLS. The connection can go on in the clear."""

    def __init__(self, reply: ServerReply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class TlsFailed(Exception):
    """There was no handshake; the connection is closed."""


class LoginRefused(Exception):
    """AUTH was refused (``reply``), or the server offers nothing that can be used."""

    def __init__(self, reply: ServerReply | None) -> None:
        super().__init__("" if reply is None else reply.text)
        self.reply = reply


def handshake_trouble(reason: Failure) -> str:
    """What OpenSSL says, on one line; a connection that just ended says nothing."""
    if reason.check(ConnectionDone, ConnectionLost) is not None:
        return "the connection was closed during the TLS handshake"
    details = [str(part) for entry in getattr(reason.value, "args", ()) for part in _flat(entry)]
    return printable("TLS handshake failed: " + " ".join(part for part in details if part)[:200])


def _flat(value: object) -> list[object]:
    if isinstance(value, list | tuple):
        return [part for each in value for part in _flat(each)]
    return [value]
