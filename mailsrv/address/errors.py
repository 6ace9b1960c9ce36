"""The error of this folder. It carries no text of the refused input: that stays in nobody's log line."""

from __future__ import annotations

from mailsrv.errors import MailError
from mailsrv.status import BAD_RECIPIENT_SYNTAX


class AddressError(MailError):
    """Input that is no address; 5.1.3 unless a session knows better (5.1.7 for a reverse-path)."""

    def __init__(self, text: str, *, cause: str = "") -> None:
        super().__init__(BAD_RECIPIENT_SYNTAX, text, cause=cause)
