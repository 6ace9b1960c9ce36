"""Why a command is not carried out, where nobody outside the engine had to be asked."""

from __future__ import annotations

from mailsrv.errors import MailError
from mailsrv.status import BAD_SYNTAX


class CommandRefused(MailError):
    """-ERR; it counts as an error of the client's, and the session goes on."""

    def __init__(self, text: str) -> None:
        super().__init__(BAD_SYNTAX, text)
