"""Replies of the server (RFC 5321 4.2, RFC 2034), and which reply a MailError becomes.

Text on the wire is printable ASCII of bounded length whatever somebody put into an error; only VRFY and
EXPN are answered in UTF-8, where the client asked for it.
"""

from __future__ import annotations

import enum
import re

from attrs import field, frozen

from mailsrv import status
from mailsrv.errors import MailError
from mailsrv.sasl import SaslCancelled, SaslError
from mailsrv.status import EnhancedStatus

TEXT_LIMIT = 400
"""RFC 5321 4.5.3.1.5: a reply line has at most 512 octets, with code, status and CRLF."""

_UNPRINTABLE = re.compile(r"[^ -~]")


@frozen
class Reply:
    """One reply, of one or more lines. Replies of class 2, 4 and 5 carry an enhanced status (RFC 2034 4)."""

    code: int
    status: EnhancedStatus | None
    lines: tuple[str, ...]
    closes: bool = False
    """The connection ends after it."""
    is_utf8: bool = False
    """RFC 6531 3.7.4.2; printable all the same."""
    octets: bytes = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        prefix = f"{self.status} " if self.status is not None else ""
        last = len(self.lines) - 1
        clean = _printable_utf8 if self.is_utf8 else _printable
        text = "".join(
            f"{self.code}{' ' if number == last else '-'}{prefix}{clean(line)}\r\n"
            for number, line in enumerate(self.lines)
        )
        object.__setattr__(self, "octets", text.encode())

    @property
    def is_positive(self) -> bool:
        """2xx or 3xx."""
        return self.code < 400


def _printable(line: str) -> str:
    if not (line.isascii() and line.isprintable()):
        line = _UNPRINTABLE.sub("?", line)
    return line[:TEXT_LIMIT]


def _printable_utf8(line: str) -> str:
    if not line.isprintable():
        line = "".join(character if character.isprintable() else "?" for character in line)
    return line[:TEXT_LIMIT]


def make_reply(code: int, enhanced: EnhancedStatus | None, *lines: str, closes: bool = False) -> Reply:
    """A reply from its parts."""
    return Reply(code, enhanced, lines, closes)


def make_text_reply(code: int, enhanced: EnhancedStatus, *lines: str) -> Reply:
    """One that may hold UTF-8, for clients that said they take it."""
    return Reply(code, enhanced, lines, is_utf8=True)


def make_accepted_reply(transaction_id: str) -> Reply:
    """250 at the end of the data, as often as mail comes: written without what other replies need."""
    text = _printable(f"Accepted as {transaction_id}")
    reply = _new_reply(Reply)
    _set(reply, "code", 250)
    _set(reply, "status", status.MESSAGE_ACCEPTED)
    _set(reply, "lines", (text,))
    _set(reply, "closes", False)
    _set(reply, "is_utf8", False)
    _set(reply, "octets", b"250 2.6.0 %b\r\n" % text.encode("ascii"))
    return reply


_new_reply, _set = Reply.__new__, object.__setattr__


class Stage(enum.Enum):
    """Where in a session an error is answered; the same refusal has different codes (RFC 5321 4.3.2)."""

    CONNECT = "connect"
    HELO = "helo"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    MESSAGE = "message"
    QUERY = "query"


# Codes by meaning, wherever the error comes up. Class 5 first.
_CODES: dict[EnhancedStatus, int] = {
    status.BAD_RECIPIENT_SYNTAX: 553,
    status.BAD_SENDER_SYNTAX: 553,
    status.MAILBOX_FULL: 552,
    status.MESSAGE_TOO_LARGE_FOR_MAILBOX: 552,
    status.MESSAGE_TOO_LARGE: 552,
    status.ROUTING_LOOP: 554,
    status.BAD_SEQUENCE: 503,
    status.BAD_ARGUMENTS: 501,
    status.NON_ASCII_NOT_SUPPORTED: 553,
    status.AUTHENTICATION_REQUIRED: 530,
    status.BAD_CREDENTIALS: 535,
    status.ENCRYPTION_REQUIRED: 538,
    status.MAILBOX_FULL.as_temporary(): 452,
    status.SYSTEM_FULL: 452,
    status.TOO_MANY_RECIPIENTS: 452,
    status.POLICY_DELAY: 450,
    status.SHUTTING_DOWN: 421,
}
# RFC 5321 4.3.2: what the end of data may be answered with has no 501, 503, 530, 53x and 553.
_MESSAGE_CODES = frozenset({552, 554, 451, 452, 450, 550, 421})

_QUERY_CODES = frozenset({421, 550, 551, 553})


def reply_for_error(error: MailError, stage: Stage) -> Reply:
    """The reply that tells the peer of a refusal; ``error.cause`` is never part of it."""
    enhanced = error.status
    temporary = enhanced.is_temporary
    code = _CODES.get(enhanced) or (451 if temporary else 550)
    if stage is Stage.CONNECT:
        code = 421 if temporary else 554
    elif isinstance(error, SaslError | SaslCancelled):
        code = 501  # RFC 4954 4
    elif stage is Stage.AUTH and temporary and code != 421:
        # RFC 4954 6: whatever is out of order, it is the log-in that cannot be had now (R-AUTH-7).
        code, enhanced = 454, status.TEMPORARY_AUTHENTICATION_FAILURE
    elif stage is Stage.MESSAGE and code not in _MESSAGE_CODES:
        code = 554
    elif stage is Stage.QUERY:
        # RFC 5321 4.3.2 has no temporary refusal of VRFY and EXPN: 252 says that nothing is known now.
        if temporary and code != 421:
            return CANNOT_VERIFY
        code = code if code in _QUERY_CODES else 550
    return Reply(code, enhanced, (error.text,), code == 421)


def internal_error_reply(stage: Stage) -> Reply:
    """For everything that is not a MailError: the log has the traceback, the peer a general word."""
    if stage is Stage.CONNECT:
        return INTERNAL_ERROR_AT_CONNECT
    if stage is Stage.QUERY:
        return CANNOT_VERIFY
    return INTERNAL_ERROR_AT_AUTH if stage is Stage.AUTH else INTERNAL_ERROR


INTERNAL_ERROR = make_reply(451, status.SYSTEM_ERROR, "Temporary failure, try again later")
INTERNAL_ERROR_AT_AUTH = make_reply(454, status.TEMPORARY_AUTHENTICATION_FAILURE, "Temporary authentication failure")
INTERNAL_ERROR_AT_CONNECT = make_reply(421, status.SYSTEM_ERROR, "Temporary failure, try again later", closes=True)

OK = make_reply(250, status.OK, "Ok")
SENDER_OK = make_reply(250, status.SENDER_OK, "Ok")
RECIPIENT_OK = make_reply(250, status.RECIPIENT_OK, "Ok")
START_CONTENT = make_reply(354, None, "Go ahead, end with a line of a single dot")
AUTHENTICATED = make_reply(235, status.AUTHENTICATED, "Authentication succeeded")
START_TLS = make_reply(220, status.OK, "Ready to start TLS")
CANNOT_VERIFY = make_reply(252, status.CANNOT_VERIFY, "Cannot verify; send mail and see")

SHUTTING_DOWN = make_reply(421, status.SHUTTING_DOWN, "Server shutting down, try again", closes=True)
TIMED_OUT = make_reply(421, status.TIMED_OUT, "Timeout, closing connection", closes=True)
TOO_SLOW = make_reply(421, status.TIMED_OUT, "Data arrive too slowly, closing connection", closes=True)
TOO_MANY_ERRORS = make_reply(421, status.TEMPORARY_AUTHENTICATION_FAILURE, "Too many errors", closes=True)
TOO_MUCH_JUNK = make_reply(421, status.TEMPORARY_AUTHENTICATION_FAILURE, "Too many commands without mail", closes=True)
TOO_MANY_MESSAGES = make_reply(
    421, status.TEMPORARY_AUTHENTICATION_FAILURE, "Too many messages in one connection, open another", closes=True
)
TOO_MANY_FAILED_LOGINS = make_reply(
    421, status.TEMPORARY_AUTHENTICATION_FAILURE, "Too many failed log-ins", closes=True
)
EARLY_TALKER = make_reply(554, status.PROTOCOL_ERROR, "Client spoke before it was greeted", closes=True)
NOT_SYNCHRONISED = make_reply(554, status.PROTOCOL_ERROR, "SMTP protocol synchronisation error", closes=True)
NOT_SMTP = make_reply(554, status.PROTOCOL_ERROR, "This is a mail server", closes=True)
BARE_LINE_BREAK = make_reply(550, status.BAD_SYNTAX, "Bare carriage return or line feed", closes=True)

UNKNOWN_COMMAND = make_reply(500, status.BAD_SEQUENCE, "Command unrecognized")
BAD_OCTETS = make_reply(500, status.BAD_SYNTAX, "Bad characters in a command")
LINE_TOO_LONG = make_reply(500, status.LINE_TOO_LONG, "Line too long")
NOT_IMPLEMENTED = make_reply(502, status.BAD_SEQUENCE, "Command not implemented")
SERVICE_REFUSED = make_reply(503, status.BAD_SEQUENCE, "No service here")
GREET_FIRST = make_reply(503, status.BAD_SEQUENCE, "Say hello first")
NESTED_MAIL = make_reply(503, status.BAD_SEQUENCE, "A transaction is under way")
MAIL_FIRST = make_reply(503, status.BAD_SEQUENCE, "MAIL first")
RCPT_FIRST = make_reply(503, status.BAD_SEQUENCE, "RCPT first")
NO_VALID_RECIPIENTS = make_reply(554, status.BAD_SEQUENCE, "No valid recipients")
TOO_MANY_RECIPIENTS = make_reply(452, status.TOO_MANY_RECIPIENTS, "Too many recipients")
MESSAGE_TOO_LARGE = make_reply(552, status.MESSAGE_TOO_LARGE, "Message too large")
MESSAGE_WITHOUT_END = make_reply(421, status.MESSAGE_TOO_LARGE.as_temporary(), "Message too large", closes=True)
CHUNK_TOO_LARGE = make_reply(552, status.MESSAGE_TOO_LARGE, "Chunk too large", closes=True)
TOO_MANY_SMALL_CHUNKS = make_reply(421, status.TEMPORARY_AUTHENTICATION_FAILURE, "Too many small chunks", closes=True)
BARE_LINE_BREAK_IN_CHUNK = make_reply(550, status.BAD_SYNTAX, "Bare carriage return or line feed")
CHUNKS_UNDER_WAY = make_reply(503, status.BAD_SEQUENCE, "The message comes by BDAT")
BINARY_NEEDS_CHUNKS = make_reply(503, status.BAD_SEQUENCE, "BINARYMIME needs BDAT")
NO_BINARY = make_reply(555, status.BINARY_NOT_SUPPORTED, "BINARYMIME is not offered")
PARAMETERS_NEED_EHLO = make_reply(555, status.BAD_ARGUMENTS, "Parameters need EHLO")
UNKNOWN_PARAMETER = make_reply(555, status.BAD_ARGUMENTS, "Parameter not recognized")
REQUIRETLS_NEEDS_TLS = make_reply(530, status.ENCRYPTION_NEEDED, "REQUIRETLS needs TLS from the first hop on")
DELIVER_BY_TOO_SOON = make_reply(555, status.BAD_ARGUMENTS, "That time is too short to deliver a message in")
HELD_TOO_LONG = make_reply(501, status.BAD_ARGUMENTS, "Release is too far ahead")
HELD_PAST_DEADLINE = make_reply(501, status.BAD_ARGUMENTS, "Release comes after the time to deliver by")
AMBIGUOUS_NAME = make_reply(553, status.AMBIGUOUS_MAILBOX, "Give a whole address")
UTF8_REPLY_NEEDED = make_reply(252, status.UTF8_REPLY_NOT_PERMITTED, "The answer needs SMTPUTF8")
NOT_A_PROXY = make_reply(550, status.AUTHENTICATION_REQUIRED, "XCLIENT is not for you")
BAD_XCLIENT = make_reply(501, status.BAD_ARGUMENTS, "Bad XCLIENT attributes")
TEXT_LINE_TOO_LONG = make_reply(554, status.LINE_TOO_LONG, "Message has a line that is too long")
NEEDS_SMTPUTF8 = make_reply(553, status.NON_ASCII_NOT_SUPPORTED, "This address needs SMTPUTF8")
AUTHENTICATE_FIRST = make_reply(530, status.AUTHENTICATION_REQUIRED, "Authentication required")
TLS_FIRST = make_reply(530, status.AUTHENTICATION_REQUIRED, "Must issue a STARTTLS command first")
ENCRYPT_FIRST = make_reply(538, status.ENCRYPTION_REQUIRED, "Encryption required for authentication")
ALREADY_AUTHENTICATED = make_reply(503, status.BAD_SEQUENCE, "Already authenticated")
UNKNOWN_MECHANISM = make_reply(504, status.BAD_ARGUMENTS, "Authentication mechanism not supported")
TLS_IS_ON = make_reply(503, status.BAD_SEQUENCE, "TLS is on already")
