"""Terminals of POP3 commands, each under its rule (RFC 2449 section 4, RFC 5034 section 4).

A line is octets without its CRLF. Control octets are refused here for all commands at once
(R-CTL-1); octets from 0x80 up are UTF-8 of a name or a password.
"""

from __future__ import annotations

import re

from mailsrv.pop3.errors import CommandRefused

# schar = %x21-7F less DEL; a password may have spaces (RFC 1939 7, PASS)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_C1_CONTROL = re.compile("[\x80-\x9f]")
# RFC 1939 3: message-numbers in decimal; leading zeros do no harm
_NUMBER = re.compile(rb"[0-9]{1,10}")


def split_command(line: bytes) -> tuple[bytes, bytes]:
    """Keyword in capitals and what follows the first space."""
    if _CONTROL.search(line):
        raise CommandRefused("Control characters in a command")
    keyword, _, argument = line.partition(b" ")
    return keyword.upper(), argument


def parse_number(argument: bytes) -> int:
    """``msg = 1*DIGIT``, from 1."""
    if not _NUMBER.fullmatch(argument) or int(argument) == 0:
        raise CommandRefused("A message number is expected")
    return int(argument)


def parse_count(argument: bytes) -> int:
    """A non-negative number (the lines of TOP)."""
    if not _NUMBER.fullmatch(argument):
        raise CommandRefused("A number is expected")
    return int(argument)


def parse_text(argument: bytes) -> str:
    """A name or a password."""
    if not argument:
        raise CommandRefused("An argument is expected")
    try:
        text = argument.decode()
    except UnicodeDecodeError as error:
        raise CommandRefused("Not UTF-8") from error
    if _C1_CONTROL.search(text):
        raise CommandRefused("Control characters in a command")
    return text
