"""What a session raises to itself: each knows the answer it becomes.

`BadCommand` becomes a tagged BAD, `CommandRefused` a tagged NO with its response code
(RFC 3501 7.1, RFC 5530), `ConnectionOver` an untagged BYE. `PeerGone` ends a command whose
client is no longer there; nothing is answered.
"""

from __future__ import annotations

from mailsrv.errors import MailError, Unavailable
from mailsrv.status import BAD_ARGUMENTS, BAD_SYNTAX, SYSTEM_ERROR


class BadCommand(MailError):
    """The client broke the grammar or the order of commands: tagged BAD."""

    def __init__(self, text: str, *, code: bytes = b"") -> None:
        super().__init__(BAD_SYNTAX, text)
        self.code = code


class CommandRefused(MailError):
    """The command was understood and will not be done: tagged NO."""

    def __init__(self, text: str, *, code: bytes = b"") -> None:
        super().__init__(BAD_ARGUMENTS, text)
        self.code = code


class ConnectionOver(MailError):
    """The connection cannot go on: untagged BYE, then it is closed."""

    def __init__(self, text: str, *, code: bytes = b"") -> None:
        super().__init__(BAD_SYNTAX, text)
        self.code = code


class PeerGone(Unavailable):
    """The client went away in the middle of a command."""

    def __init__(self) -> None:
        super().__init__("Connection lost")
        self.status = SYSTEM_ERROR
