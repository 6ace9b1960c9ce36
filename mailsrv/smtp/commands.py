"""The commands: their values, how their arguments are read, and the table with what each one may do and needs.

:func:`parse_command` turns a line into a value or raises :class:`CommandRefused`, which holds the
reply. The table is the documentation of the dialogue: the engine (``session.py``) checks its flags
before it looks at an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import field, frozen

from mailsrv.address import Address, AddressError, scan_forward_path, scan_reverse_path
from mailsrv.smtp import replies
from mailsrv.smtp.grammar import CHUNK, FORBIDDEN, HELO_NAME, MECHANISM, PARAMETER, SIZE_VALUE, XTEXT
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


@frozen
class Mail:
    """MAIL FROM. ``reverse_path`` None is the null reverse-path."""

    reverse_path: Address | None
    size: int | None = None
    is_8bit: bool = False
    is_smtputf8: bool = False


@frozen
class Rcpt:
    """RCPT TO."""

    forward_path: Address
    is_ascii: bool = True
    """False: the path was written with UTF-8, which needs SMTPUTF8 in the transaction."""


@frozen
class Auth:
    """AUTH; the initial response is still in base64."""

    mechanism: str
    initial_response: bytes | None = field(default=None, repr=False)


@frozen
class Bdat:
    """A chunk that nobody offered to take (CHUNKING is not announced): its octets are skipped (R-SMTP-8)."""

    octets: int


@frozen
class Plain:
    """A command whose verb says it all: DATA, RSET, NOOP, QUIT, HELP, VRFY, EXPN, STARTTLS, and those refused."""

    verb: str


Command = Helo | Mail | Rcpt | Auth | Bdat | Plain


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


def _parse_helo(verb: str, argument: str) -> Helo:
    domain = argument.strip(" ")
    if not HELO_NAME.fullmatch(domain):
        raise CommandRefused(_bad_arguments(f"Syntax: {verb} hostname"))
    return Helo(domain, verb != "HELO")


def _parse_mail(_verb: str, argument: str) -> Mail:
    start = _after_keyword(argument, "FROM:", "Syntax: MAIL FROM:<address>")
    try:
        path = scan_reverse_path(argument, start)
    except AddressError as error:
        raise CommandRefused(make_reply(501, BAD_SENDER_SYNTAX, error.text)) from error
    parameters = argument[path.end :]
    mail = _with_parameters(path.address, parameters) if parameters else Mail(path.address)
    if not mail.is_smtputf8 and not argument.isascii():
        raise CommandRefused(replies.NEEDS_SMTPUTF8)
    return mail


def _with_parameters(reverse_path: Address | None, text: str) -> Mail:
    size: int | None = None
    is_8bit = is_smtputf8 = False
    for keyword, value in _parse_parameters(text).items():
        if keyword == "SIZE" and value and SIZE_VALUE.fullmatch(value):  # RFC 1870 6.1
            size = int(value)
        elif keyword == "BODY" and value and value.upper() in {"7BIT", "8BITMIME"}:  # RFC 6152 3
            is_8bit = value.upper() == "8BITMIME"
        elif keyword == "SMTPUTF8" and value is None:  # RFC 6531 3.4
            is_smtputf8 = True
        elif keyword == "AUTH" and value and (value == "<>" or XTEXT.fullmatch(value)):
            pass  # RFC 4954 5: as we trust no client's word on that, it is as if it were <>
        elif keyword in {"SIZE", "BODY", "SMTPUTF8", "AUTH"}:
            raise CommandRefused(_bad_arguments(f"Bad parameter {keyword}"))
        else:
            raise CommandRefused(make_reply(555, BAD_ARGUMENTS, "Parameter not recognized"))
    return Mail(reverse_path, size, is_8bit, is_smtputf8)


def _parse_rcpt(_verb: str, argument: str) -> Rcpt:
    start = _after_keyword(argument, "TO:", "Syntax: RCPT TO:<address>")
    try:
        address, end = scan_forward_path(argument, start)
    except AddressError as error:
        raise CommandRefused(make_reply(501, BAD_RECIPIENT_SYNTAX, error.text)) from error
    if end != len(argument):
        _parse_parameters(argument[end:])
        raise CommandRefused(make_reply(555, BAD_ARGUMENTS, "Parameter not recognized"))
    return Rcpt(address, argument.isascii())


def _after_keyword(argument: str, keyword: str, complaint: str) -> int:
    """The index after ``FROM:`` or ``TO:``. A space after the colon is no part of the grammar, but common."""
    if argument[: len(keyword)].upper() != keyword:
        raise CommandRefused(_bad_arguments(complaint))
    start = len(keyword)
    return start + 1 if argument.startswith(" ", start) else start


def _parse_parameters(text: str) -> Mapping[str, str | None]:
    if not text.startswith(" "):
        raise CommandRefused(_bad_arguments("Bad parameters"))
    found: dict[str, str | None] = {}
    for word in text.split():
        match = PARAMETER.fullmatch(word)
        if match is None or match.group(1).upper() in found:
            raise CommandRefused(_bad_arguments("Bad parameters"))
        found[match.group(1).upper()] = match.group(2)
    return found


def _parse_auth(_verb: str, argument: str) -> Auth:
    mechanism, _, initial = argument.partition(" ")
    if not MECHANISM.fullmatch(mechanism):
        raise CommandRefused(_bad_arguments("Syntax: AUTH mechanism"))
    # Judged later, as base64 (R-AUTH-3); what is not even ASCII is broken for certain.
    return Auth(mechanism.upper(), initial.encode() if initial else None)


def _parse_bdat(_verb: str, argument: str) -> Bdat:
    match = CHUNK.fullmatch(argument)
    if match is None:
        raise CommandRefused(_bad_arguments("Syntax: BDAT size"))
    return Bdat(int(match.group(1)))


def _parse_bare(verb: str, argument: str) -> Plain:
    """RFC 5321 4.1.1.4 and others: these have no argument."""
    if argument:
        raise CommandRefused(_bad_arguments(f"Syntax: {verb}"))
    return Plain(verb)


def _parse_free(verb: str, argument: str) -> Plain:
    """NOOP and HELP may have one, which means nothing."""
    return Plain(verb)


def _parse_name(verb: str, argument: str) -> Plain:
    if not argument.strip():
        raise CommandRefused(_bad_arguments(f"Syntax: {verb} name"))
    return Plain(verb)


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
        Rule("VRFY", _parse_name, is_junk=True),
        Rule("EXPN", _parse_name, is_junk=True),
        Rule("HELP", _parse_free, is_junk=True),
        Rule("QUIT", _parse_bare),
        Rule("STARTTLS", _parse_bare, needs_greeting=True, synchronises=True, is_junk=True),
        Rule("AUTH", _parse_auth, needs_greeting=True, synchronises=True, is_junk=True),
        Rule("BDAT", _parse_bdat),
        Rule("ETRN", _parse_free),
        Rule("TURN", _parse_free),
    )
}
# What web browsers say: a page can make them talk to any port, so nothing after it is a command.
FOREIGN_VERBS = frozenset({"GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS", "DELETE", "PATCH"})


def parse_command(line: bytes) -> tuple[Rule, Command]:
    """The command on a line without its CRLF; raises :class:`CommandRefused`."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CommandRefused(replies.BAD_OCTETS) from error
    # isprintable is far cheaper than the search, and stricter.
    if not text.isprintable() and FORBIDDEN.search(text):
        raise CommandRefused(replies.BAD_OCTETS)
    verb, _, argument = text.rstrip(" ").partition(" ")
    rule = COMMANDS.get(verb) or COMMANDS.get(verb.upper())
    if rule is None:
        reply = replies.NOT_SMTP if verb.upper() in FOREIGN_VERBS else replies.UNKNOWN_COMMAND
        raise CommandRefused(reply)
    try:
        return rule, rule.parse(rule.verb, argument)
    except CommandRefused as refusal:
        refusal.rule = rule
        raise
