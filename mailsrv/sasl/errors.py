"""What can go wrong in an exchange before anybody's password is looked at."""

from __future__ import annotations

from mailsrv.errors import MailError
from mailsrv.status import AUTHENTICATION_REQUIRED, BAD_SYNTAX


class SaslError(MailError):
    """A response that is not strict base64 or not what the mechanism asks for: SMTP 501, IMAP BAD, POP3 -ERR.

    The exchange is over; the connection can go on.
    """

    def __init__(self, text: str = "Malformed authentication response", *, cause: str = "") -> None:
        super().__init__(BAD_SYNTAX, text, cause=cause)


class SaslCancelled(MailError):
    """The client sent ``*`` (RFC 4954 4, RFC 9051 6.2.2, RFC 5034 4)."""

    def __init__(self) -> None:
        super().__init__(AUTHENTICATION_REQUIRED, "Authentication cancelled")
