"""The one error type of mailsrv: what the peer may read, and apart from it what our log should say.

Anything that can be answered is raised as a :class:`MailError`; anything else is a bug or an
operating system's refusal and is answered generally ("temporary failure") by the session, with
the traceback in the log and never on the wire.
"""

from __future__ import annotations

from mailsrv.status import SYSTEM_ERROR, SYSTEM_FULL, EnhancedStatus


class MailError(Exception):
    """A refusal with its reason.

    ``status`` says whether it is temporary (class 4) or permanent (class 5); ``text`` is one
    line of ASCII the peer may see; ``cause`` is for the log alone.
    """

    def __init__(self, status: EnhancedStatus, text: str, *, cause: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.cause = cause

    @property
    def is_temporary(self) -> bool:
        """Whether trying again later may help."""
        return self.status.is_temporary

    def __str__(self) -> str:
        private = f" ({self.cause})" if self.cause else ""
        return f"{self.status} {self.text}{private}"


class Unavailable(MailError):
    """Something we depend on (a directory, a disk, a helper) does not answer now.

    SMTP: 451/454; IMAP: ``NO [UNAVAILABLE]``; POP3: ``-ERR [SYS/TEMP]``. Never an invalid
    credential, never an unknown recipient.
    """

    def __init__(self, text: str = "Temporary failure, try again later", *, cause: str = "") -> None:
        super().__init__(SYSTEM_ERROR, text, cause=cause)


class InsufficientStorage(MailError):
    """No room to keep what was offered: SMTP 452 4.3.1, IMAP ``NO``. Nothing was kept (R-DUR-5)."""

    def __init__(self, text: str = "Insufficient system storage", *, cause: str = "") -> None:
        super().__init__(SYSTEM_FULL, text, cause=cause)
