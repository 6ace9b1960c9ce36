"""The commands, how to read them, and in which states they may come (RFC 1939 sections 4 to 7).

:data:`COMMANDS` is the table of the dialogue; what is not in it is refused.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from attrs import field, frozen

from mailsrv.pop3.errors import CommandRefused
from mailsrv.pop3.grammar import parse_count, parse_number, parse_text, split_command


class State(enum.Enum):
    """RFC 1939 section 3."""

    AUTHORIZATION = "authorization"
    TRANSACTION = "transaction"
    UPDATE = "update"
    """QUIT was said in the transaction state, or the session is over."""


@frozen
class User:
    """RFC 1939 7."""

    name: str


@frozen
class Pass:
    """RFC 1939 7; the rest of the line, spaces and all."""

    password: str = field(repr=False)


@frozen
class Auth:
    """RFC 5034 4. Without a mechanism: a request for the list, as clients of before 2007 make it."""

    mechanism: str
    initial_response: bytes | None = field(repr=False)


@frozen
class Stls:
    """RFC 2595 4."""


@frozen
class Capa:
    """RFC 2449 5."""


@frozen
class Stat:
    """RFC 1939 5."""


@frozen
class List:
    """RFC 1939 5; None: all messages."""

    number: int | None


@frozen
class Uidl:
    """RFC 1939 7; None: all messages."""

    number: int | None


@frozen
class Retr:
    """RFC 1939 5."""

    number: int


@frozen
class Top:
    """RFC 1939 7."""

    number: int
    lines: int


@frozen
class Dele:
    """RFC 1939 5."""

    number: int


@frozen
class Noop:
    """RFC 1939 5."""


@frozen
class Rset:
    """RFC 1939 5."""


@frozen
class Quit:
    """RFC 1939 4 and 6."""


Command = User | Pass | Auth | Stls | Capa | Stat | List | Uidl | Retr | Top | Dele | Noop | Rset | Quit


def _alone(command: Command) -> Callable[[bytes], Command]:
    def parse(argument: bytes) -> Command:
        if argument.strip(b" "):
            raise CommandRefused("No argument is expected")
        return command

    return parse


def _user(argument: bytes) -> User:
    return User(parse_text(argument.strip(b" ")))


def _pass(argument: bytes) -> Pass:
    return Pass(parse_text(argument))


def _auth(argument: bytes) -> Auth:
    mechanism, space, initial_response = argument.partition(b" ")
    return Auth(mechanism.decode(errors="replace").upper(), initial_response if space else None)


def _list(argument: bytes) -> List:
    argument = argument.strip(b" ")
    return List(parse_number(argument) if argument else None)


def _uidl(argument: bytes) -> Uidl:
    argument = argument.strip(b" ")
    return Uidl(parse_number(argument) if argument else None)


def _retr(argument: bytes) -> Retr:
    return Retr(parse_number(argument.strip(b" ")))


def _top(argument: bytes) -> Top:
    number, _, lines = argument.strip(b" ").partition(b" ")
    return Top(parse_number(number), parse_count(lines.strip(b" ")))


def _dele(argument: bytes) -> Dele:
    return Dele(parse_number(argument.strip(b" ")))


@frozen
class CommandRule:
    """One row of the table."""

    parse: Callable[[bytes], Command]
    states: frozenset[State]


_BEFORE = frozenset({State.AUTHORIZATION})
_AFTER = frozenset({State.TRANSACTION})
_ANY = _BEFORE | _AFTER

COMMANDS: dict[bytes, CommandRule] = {
    b"RETR": CommandRule(_retr, _AFTER),
    b"DELE": CommandRule(_dele, _AFTER),
    b"TOP": CommandRule(_top, _AFTER),
    b"UIDL": CommandRule(_uidl, _AFTER),
    b"LIST": CommandRule(_list, _AFTER),
    b"STAT": CommandRule(_alone(Stat()), _AFTER),
    b"NOOP": CommandRule(_alone(Noop()), _AFTER),
    b"RSET": CommandRule(_alone(Rset()), _AFTER),
    b"USER": CommandRule(_user, _BEFORE),
    b"PASS": CommandRule(_pass, _BEFORE),
    b"AUTH": CommandRule(_auth, _BEFORE),
    b"STLS": CommandRule(_alone(Stls()), _BEFORE),
    b"CAPA": CommandRule(_alone(Capa()), _ANY),
    b"QUIT": CommandRule(_alone(Quit()), _ANY),
}


def parse_command(line: bytes, state: State) -> Command:
    """The command of a line; raises :class:`CommandRefused` also where it may not come now."""
    keyword, argument = split_command(line)
    rule = COMMANDS.get(keyword)
    if rule is None:
        raise CommandRefused("Unknown command")
    if state not in rule.states:
        raise CommandRefused("Log in first" if state is State.AUTHORIZATION else "Not after log-in")
    return rule.parse(argument)
