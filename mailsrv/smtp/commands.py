"""The commands: their values, how their arguments are read, and the table with what each one may do and needs.

:func:`parse_command` turns a line into a value or raises :class:`CommandRefused`, which holds the
reply. The table is the documentation of the dialogue: the engine (``session.py``) checks its flags
before it looks at an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from attrs import define, field, frozen

from mailsrv.address import Address, AddressError, parse_mailbox, scan_forward_path, scan_reverse_path
from mailsrv.interfaces.envelope import RecipientParameters
from mailsrv.smtp import replies
from mailsrv.smtp.grammar import CHUNK, FORBIDDEN, HELO_NAME, MECHANISM
from mailsrv.smtp.parameters import (
    NO_ARGUMENTS,
    NO_RECIPIENT_PARAMETERS,
    BadParameter,
    MailArguments,
    UnknownParameter,
    parse_mail_parameters,
    parse_rcpt_parameters,
)
from mailsrv.smtp.replies import Reply, make_reply
from mailsrv.smtp.settings import Service
from mailsrv.status import BAD_ARGUMENTS, BAD_RECIPIENT_SYNTAX, BAD_SENDER_SYNTAX


class CommandRefused(Exception):
    """A line that is no command of ours; the reply says why. ``rule`` is the command's, if it was known."""

    def __init__(self, reply: Reply, rule: Rule | None = None) -> None:
        super().__init__(reply.lines[0])
        self.reply = reply
        self.rule = rule


@frozen
class Helo:
    """EHLO, HELO or LHLO."""

    domain: str
    is_extended: bool


@define
class Mail:
    """MAIL FROM. ``reverse_path`` None is the null reverse-path."""

    reverse_path: Address | None
    arguments: MailArguments = NO_ARGUMENTS


@define
class Rcpt:
    """RCPT TO."""

    forward_path: Address
    parameters: RecipientParameters = NO_RECIPIENT_PARAMETERS
    is_ascii: bool = True
    """False: it was written with UTF-8, which needs SMTPUTF8 in the transaction."""


@frozen
class Auth:
    """AUTH; the initial response is still in base64."""

    mechanism: str
    initial_response: bytes | None = field(default=None, repr=False)


@frozen
class Bdat:
    """A chunk of the message: so many octets follow (RFC 3030 2)."""

    octets: int
    is_last: bool = False


@frozen
class Query:
    """VRFY or EXPN."""

    address: Address | None
    """None: a name that is no address, or one without a domain."""
    is_expansion: bool
    is_smtputf8: bool = False
    """The reply may be in UTF-8 (RFC 6531 3.7.4.2)."""
    is_ascii: bool = True


@frozen
class Introduction:
    """XCLIENT; ``text`` is read when it is known that the client may say it."""

    text: str


@frozen
class Plain:
    """A command whose verb says it all: DATA, RSET, NOOP, QUIT, HELP, STARTTLS, and those refused."""

    verb: str


Command = Helo | Mail | Rcpt | Auth | Bdat | Query | Introduction | Plain


_EVERYWHERE = frozenset(Service)
_SMTP = frozenset({Service.MX, Service.SUBMISSION})


@frozen
class Rule:
    """A row of the table: a command, what it needs and what it does."""

    verb: str
    parse: Callable[[str, str], Command]
    """Called with the verb and the argument."""
    needs_greeting: bool = False
    """EHLO, HELO or LHLO must have come."""
    synchronises: bool = False
    """Nothing may have been sent after it before its reply (R-SMTP-6).

    RFC 2920 3.1 wants EHLO, DATA, VRFY, EXPN, QUIT and NOOP at the end of a group. Those that change
    how the following octets are understood are held to it, with AUTH (RFC 4954 4) and STARTTLS
    (RFC 3207 4); the others do no harm.
    """
    is_junk: bool = False
    """Has no effect on mail; only so many of them between two messages."""
    services: frozenset[Service] = _EVERYWHERE
    """Where it exists. RFC 2033 4.1: LHLO takes the place of EHLO and HELO in LMTP."""
    is_always_heard: bool = False
    """Also after 554 in place of a greeting (RFC 5321 3.1)."""
    is_restricted: bool = field(init=False)
    """Not everywhere."""

    @is_restricted.default
    def _is_restricted(self) -> bool:
        return self.services != _EVERYWHERE


def _parse_helo(verb: str, argument: str) -> Helo:
    domain = argument.strip(" ")
    if not HELO_NAME.fullmatch(domain):
        raise CommandRefused(_bad_arguments(f"Syntax: {verb} hostname"))
    return Helo(domain, verb != "HELO")


def _parse_mail(_verb: str, argument: str) -> Mail:
    start = _after_keyword(argument, "FROM:", "Syntax: MAIL FROM:<address>")
    try:
        address, end = _scan_reverse_path(argument, start)
    except AddressError as error:
        raise CommandRefused(make_reply(501, BAD_SENDER_SYNTAX, error.text)) from error
    arguments = NO_ARGUMENTS
    if end != len(argument):
        try:
            arguments = parse_mail_parameters(argument[end:])
        except (BadParameter, UnknownParameter) as error:
            raise CommandRefused(_bad_parameter(error)) from error
    if not arguments.is_smtputf8 and not argument.isascii():
        raise CommandRefused(replies.NEEDS_SMTPUTF8)
    return Mail(address, arguments)


def _parse_rcpt(_verb: str, argument: str) -> Rcpt:
    start = _after_keyword(argument, "TO:", "Syntax: RCPT TO:<address>")
    try:
        address, end = _scan_forward_path(argument, start)
    except AddressError as error:
        raise CommandRefused(make_reply(501, BAD_RECIPIENT_SYNTAX, error.text)) from error
    if end == len(argument):
        return Rcpt(address, NO_RECIPIENT_PARAMETERS, argument.isascii())
    try:
        return Rcpt(address, parse_rcpt_parameters(argument[end:]), argument.isascii())
    except (BadParameter, UnknownParameter) as error:
        raise CommandRefused(_bad_parameter(error)) from error


def _bad_parameter(error: BadParameter | UnknownParameter) -> Reply:
    if isinstance(error, UnknownParameter):
        return replies.UNKNOWN_PARAMETER
    return _bad_arguments(f"Bad parameter {error.keyword}" if error.keyword else "Bad parameters")


# The same paths come again and again. Looked up is only what ends with the first ">", which is all but a
# quoted local part that has one.
_remembered_reverse_path = lru_cache(maxsize=2048)(scan_reverse_path)
_remembered_forward_path = lru_cache(maxsize=2048)(scan_forward_path)
_REMEMBERED_LENGTH = 320


def _scan_reverse_path(argument: str, start: int) -> tuple[Address | None, int]:
    end = argument.find(">", start) + 1
    if start < end < _REMEMBERED_LENGTH and '"' not in argument:
        scanned = _remembered_reverse_path(argument[start:end])
        return scanned.address, start + scanned.end
    scanned = scan_reverse_path(argument, start)
    return scanned.address, scanned.end


def _scan_forward_path(argument: str, start: int) -> tuple[Address, int]:
    end = argument.find(">", start) + 1
    if start < end < _REMEMBERED_LENGTH and '"' not in argument:
        address, length = _remembered_forward_path(argument[start:end])
        return address, start + length
    return scan_forward_path(argument, start)


def _after_keyword(argument: str, keyword: str, complaint: str) -> int:
    """The index after ``FROM:`` or ``TO:``. A space after the colon is no part of the grammar, but common."""
    if not argument.startswith(keyword) and argument[: len(keyword)].upper() != keyword:
        raise CommandRefused(_bad_arguments(complaint))
    start = len(keyword)
    return start + 1 if argument.startswith(" ", start) else start


def _parse_auth(_verb: str, argument: str) -> Auth:
    mechanism, _, initial = argument.partition(" ")
    if not MECHANISM.fullmatch(mechanism):
        raise CommandRefused(_bad_arguments("Syntax: AUTH mechanism"))
    # Judged later, as base64 (R-AUTH-3); what is not even ASCII is broken for certain.
    return Auth(mechanism.upper(), initial.encode() if initial else None)


def _parse_bdat(_verb: str, argument: str) -> Bdat:
    match = CHUNK.fullmatch(argument)
    if match is None:
        raise CommandRefused(_bad_arguments("Syntax: BDAT size [LAST]"))
    return Bdat(int(match[1]), bool(match[2]))


def _parse_xclient(_verb: str, argument: str) -> Introduction:
    return Introduction(argument)


def _parse_bare(verb: str, argument: str) -> Plain:
    """RFC 5321 4.1.1.4 and others: these have no argument."""
    if argument:
        raise CommandRefused(_bad_arguments(f"Syntax: {verb}"))
    return Plain(verb)


def _parse_free(verb: str, argument: str) -> Plain:
    """NOOP and HELP may have one, which means nothing."""
    return Plain(verb)


def _parse_query(verb: str, argument: str) -> Query:
    """RFC 5321 4.1.1.6 and 4.1.1.7, with the parameter of RFC 6531 3.7.4.2.

    A string is a path, a mailbox, or a user's name; names are ambiguous where there is more than one domain.
    """
    text, found, last = argument.strip(" ").rpartition(" ")
    is_smtputf8 = bool(found) and last.upper() == "SMTPUTF8"
    text = text.rstrip(" ") if is_smtputf8 else argument.strip(" ")
    if not text:
        raise CommandRefused(_bad_arguments(f"Syntax: {verb} address"))
    address: Address | None = None
    try:
        if text.startswith("<"):
            scanned, end = scan_forward_path(text)
            address = scanned if end == len(text) else None
        elif text.lower() == "postmaster":
            address = Address("postmaster", "")
        else:
            address = parse_mailbox(text)
    except AddressError:
        address = None
    return Query(address, verb == "EXPN", is_smtputf8, text.isascii())


def _bad_arguments(text: str) -> Reply:
    return make_reply(501, BAD_ARGUMENTS, text)


COMMANDS: Mapping[str, Rule] = {
    rule.verb: rule
    for rule in (
        Rule("EHLO", _parse_helo, synchronises=True, is_junk=True, services=_SMTP),
        Rule("HELO", _parse_helo, synchronises=True, is_junk=True, services=_SMTP),
        Rule("LHLO", _parse_helo, synchronises=True, is_junk=True, services=frozenset({Service.LMTP})),
        Rule("MAIL", _parse_mail, needs_greeting=True),
        Rule("RCPT", _parse_rcpt, needs_greeting=True),
        Rule("DATA", _parse_bare, needs_greeting=True, synchronises=True),
        Rule("RSET", _parse_bare, is_junk=True),
        Rule("NOOP", _parse_free, is_junk=True),
        Rule("VRFY", _parse_query, is_junk=True),
        Rule("EXPN", _parse_query, is_junk=True),
        Rule("HELP", _parse_free, is_junk=True),
        Rule("QUIT", _parse_bare, is_always_heard=True),
        Rule("STARTTLS", _parse_bare, needs_greeting=True, synchronises=True, is_junk=True),
        Rule("AUTH", _parse_auth, needs_greeting=True, synchronises=True, is_junk=True),
        Rule("BDAT", _parse_bdat, is_always_heard=True),
        Rule("XCLIENT", _parse_xclient, is_junk=True),
        Rule("ETRN", _parse_free),
        Rule("TURN", _parse_free),
    )
}
# What web browsers say: a page can make them talk to any port, so nothing after it is a command.
FOREIGN_VERBS = frozenset({"GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS", "DELETE", "PATCH"})


# What most clients say so, understood without looking into it.
_WHOLE_LINES: Mapping[bytes, tuple[Rule, Command]] = {
    verb.encode(): (COMMANDS[verb], Plain(verb)) for verb in ("DATA", "RSET", "NOOP", "QUIT", "STARTTLS")
}


def parse_command(line: bytes) -> tuple[Rule, Command]:
    """The command on a line without its CRLF; raises :class:`CommandRefused`."""
    whole = _WHOLE_LINES.get(line)
    if whole is not None:
        return whole
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CommandRefused(replies.BAD_OCTETS) from error
    # isprintable is far cheaper than the search, and stricter.
    if not text.isprintable() and FORBIDDEN.search(text):
        raise CommandRefused(replies.BAD_OCTETS)
    verb, _, argument = text.rstrip(" ").partition(" ")
    rule = COMMANDS.get(verb)
    if rule is None:
        rule = COMMANDS.get(verb.upper())
    if rule is None:
        reply = replies.NOT_SMTP if verb.upper() in FOREIGN_VERBS else replies.UNKNOWN_COMMAND
        raise CommandRefused(reply)
    try:
        return rule, rule.parse(rule.verb, argument)
    except CommandRefused as refusal:
        refusal.rule = rule
        raise
