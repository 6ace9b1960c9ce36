"""What the server says: status indicators, response codes (RFC 2449 8, RFC 3206), capabilities."""

from __future__ import annotations

import enum

from mailsrv.errors import MailError
from mailsrv.interfaces.account import InvalidCredentials
from mailsrv.interfaces.mailbox import MailboxInUse
from mailsrv.sasl import Challenge, encode_challenge


class ResponseCode(enum.Enum):
    """Extended response codes. LOGIN-DELAY is not among them: nobody is made to wait between sessions."""

    IN_USE = "IN-USE"
    """RFC 2449 8.1.2."""
    SYS_TEMP = "SYS/TEMP"
    """RFC 3206 4."""
    SYS_PERM = "SYS/PERM"
    """RFC 3206 4."""
    AUTH = "AUTH"
    """RFC 3206 5: the credentials are wrong, nothing else."""


def format_ok(text: str) -> bytes:
    """``+OK text``."""
    return f"+OK {text}\r\n".encode()


def format_challenge(octets: bytes) -> bytes:
    """``+ challenge`` (RFC 5034 4)."""
    return b"+ " + encode_challenge(Challenge(octets)) + b"\r\n"


def format_error(text: str, code: ResponseCode | None = None) -> bytes:
    """``-ERR [CODE] text``. The text has at most 400 printable ASCII characters on the wire."""
    line = "".join(character if " " <= character <= "~" else "?" for character in text[:400])
    return (f"-ERR [{code.value}] {line}\r\n" if code else f"-ERR {line}\r\n").encode()


def format_refusal(error: MailError) -> bytes:
    """The answer to a command that something below refused (R-AUTH-7: a directory that is down is SYS/TEMP)."""
    return format_error(error.text, code_of(error))


def code_of(error: MailError) -> ResponseCode:
    """Which response code says it."""
    if isinstance(error, InvalidCredentials):
        return ResponseCode.AUTH
    if isinstance(error, MailboxInUse):
        return ResponseCode.IN_USE
    return ResponseCode.SYS_TEMP if error.is_temporary else ResponseCode.SYS_PERM


def format_capabilities(*, may_log_in: bool, may_start_tls: bool, mechanisms: tuple[str, ...]) -> bytes:
    """The answer to CAPA (RFC 2449 6), each capability with where it is defined."""
    lines = [
        "+OK Capabilities",
        "TOP",  # RFC 1939 7
        "UIDL",  # RFC 1939 7
        "RESP-CODES",  # RFC 2449 6.4
        "AUTH-RESP-CODE",  # RFC 3206 6
        "PIPELINING",  # RFC 2449 6.6
        "EXPIRE NEVER",  # RFC 2449 6.7
        "IMPLEMENTATION mailsrv",  # RFC 2449 6.9
    ]
    if may_log_in:
        lines += ["USER", f"SASL {' '.join(mechanisms)}"]  # RFC 2449 6.2, RFC 5034 3
    if may_start_tls:
        lines.append("STLS")  # RFC 2595 4
    return "\r\n".join([*lines, ".", ""]).encode("ascii")
