"""Terminals of POP3 commands, each under its rule (RFC 2449 section 4, RFC 5034 section 4).

A line is octets without its CRLF. Control octets are refused here for all commands at once
(R-CTL-1); octets from 0x80 up are UTF-8 of a name or a password.
"""

from __future__ import annotations

import re

from mailsrv.errors import MailError
from mailsrv.status import BAD_SYNTAX

# schar = %x21-7F less DEL; a password may have spaces (RFC 1939 7, PASS)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_C1_CONTROL = re.compile("[\x80-\x9f]")
# RFC 1939 3: message-numbers in decimal; leading zeros do no harm
_NUMBER = re.compile(rb"[0-9]{1,10}")


class SyntaxRefused(MailError):
    """A command that cannot be understood; the session goes on."""

    def __init__(self, text: str) -> None:
        super().__init__(BAD_SYNTAX, text)


def split_command(line: bytes) -> tuple[bytes, bytes]:
    """Keyword in capitals and what follows the first space."""
    if _CONTROL.search(line):
        raise SyntaxRefused("Control characters in a command")
    keyword, _, argument = line.partition(b" ")
    return keyword.upper(), argument


def parse_number(argument: bytes) -> int:
    """``msg = 1*DIGIT``, from 1."""
    if not _NUMBER.fullmatch(argument) or int(argument) == 0:
        raise SyntaxRefused("A message number is expected")
    return int(argument)


def parse_count(argument: bytes) -> int:
    """A non-negative number (the lines of TOP)."""
    if not _NUMBER.fullmatch(argument):
        raise SyntaxRefused("A number is expected")
    return int(argument)


def parse_text(argument: bytes) -> str:
    """A name or a password."""
    if not argument:
        raise SyntaxRefused("An argument is expected")
    try:
        text = argument.decode()
    except UnicodeDecodeError as error:
        raise SyntaxRefused("Not UTF-8") from error
    if _C1_CONTROL.search(text):
        raise SyntaxRefused("Control characters in a command")
    return text
