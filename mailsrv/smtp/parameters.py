"""The parameters of MAIL and RCPT: their values, and how they are read.

Reading knows the grammar alone. Whether the extension is offered, and whether a value is possible here
and now, is for the engine to say (``transactions.py``).
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping

from attrs import define, frozen

from mailsrv.interfaces.envelope import NOTIFY_UNSAID, BodyType, Notify, RecipientParameters, ReturnContent
from mailsrv.smtp.grammar import DATE_TIME, DELIVER_BY, INTERVAL, PARAMETER, PRIORITY, SIZE_VALUE, XTEXT
from mailsrv.smtp.xtext import decode_envelope_id, decode_original_recipient


class BadParameter(ValueError):
    """A parameter that breaks its grammar, or stands twice. ``keyword`` is "" where not even that could be read."""

    def __init__(self, keyword: str = "") -> None:
        super().__init__(keyword)
        self.keyword = keyword


class UnknownParameter(ValueError):
    """A parameter of no extension we know."""


@frozen
class By:
    """BY (RFC 2852): seconds from now."""

    seconds: int
    must_return: bool
    is_traced: bool


@define
class MailArguments:
    """What stood behind the reverse-path. Not changed after it was read."""

    keywords: frozenset[str] = frozenset()
    """Those that were given."""
    size: int | None = None
    body: BodyType = BodyType.SEVEN_BIT
    is_smtputf8: bool = False
    return_content: ReturnContent | None = None
    envelope_id: str = ""
    requires_tls: bool = False
    priority: int | None = None
    hold_seconds: int | None = None
    hold_until: int | None = None
    by: By | None = None


NO_ARGUMENTS = MailArguments()
NO_RECIPIENT_PARAMETERS = RecipientParameters()


def parse_mail_parameters(text: str) -> MailArguments:
    """Raises :class:`BadParameter` and :class:`UnknownParameter`."""
    words = _split_parameters(text)
    arguments = MailArguments(frozenset(words))
    for keyword, value in words.items():
        take = _MAIL.get(keyword)
        if take is None:
            raise UnknownParameter
        try:
            take(arguments, value)
        except ValueError as error:
            raise BadParameter(keyword) from error
    # RFC 4865 4: one of the two.
    if arguments.hold_seconds is not None and arguments.hold_until is not None:
        raise BadParameter("HOLDUNTIL")
    return arguments


def parse_rcpt_parameters(text: str) -> RecipientParameters:
    """Those of DSN (RFC 3461 4.1, 4.2). Raises :class:`BadParameter` and :class:`UnknownParameter`."""
    notify, original_recipient = NOTIFY_UNSAID, ""
    for keyword, value in _split_parameters(text).items():
        try:
            if keyword == "NOTIFY":
                notify = _parse_notify(_required(value))
            elif keyword == "ORCPT":
                original_recipient = decode_original_recipient(_required(value))
            else:
                raise UnknownParameter
        except UnknownParameter:
            raise
        except ValueError as error:
            raise BadParameter(keyword) from error
    return RecipientParameters(notify, original_recipient)


def _split_parameters(text: str) -> Mapping[str, str | None]:
    if not text.startswith(" "):
        raise BadParameter
    found: dict[str, str | None] = {}
    for word in text.split():
        match = PARAMETER.fullmatch(word)
        if match is None:
            raise BadParameter
        keyword = match[1].upper()
        if keyword in found:
            raise BadParameter(keyword)
        found[keyword] = match[2]
    return found


def _required(value: str | None) -> str:
    if value is None:
        raise ValueError("a value is needed")
    return value


def _take_size(arguments: MailArguments, value: str | None) -> None:
    """RFC 1870 6.1."""
    if not SIZE_VALUE.fullmatch(_required(value)):
        raise ValueError("no size")
    arguments.size = int(_required(value))


def _take_body(arguments: MailArguments, value: str | None) -> None:
    """RFC 6152 3, RFC 3030 3."""
    arguments.body = BodyType(_required(value).upper())


def _take_smtputf8(arguments: MailArguments, value: str | None) -> None:
    """RFC 6531 3.4."""
    _refuse_value(value)
    arguments.is_smtputf8 = True


def _take_auth(arguments: MailArguments, value: str | None) -> None:
    """RFC 4954 5: as we trust no client's word on that, it is as if it were ``<>``."""
    if value != "<>" and not XTEXT.fullmatch(_required(value)):
        raise ValueError("no mailbox")


def _take_ret(arguments: MailArguments, value: str | None) -> None:
    """RFC 3461 4.3."""
    arguments.return_content = ReturnContent(_required(value).upper())


def _take_envid(arguments: MailArguments, value: str | None) -> None:
    """RFC 3461 4.4."""
    arguments.envelope_id = decode_envelope_id(_required(value))


def _take_requiretls(arguments: MailArguments, value: str | None) -> None:
    """RFC 8689 2."""
    _refuse_value(value)
    arguments.requires_tls = True


def _take_priority(arguments: MailArguments, value: str | None) -> None:
    """RFC 6710 3."""
    if not PRIORITY.fullmatch(_required(value)):
        raise ValueError("no priority")
    arguments.priority = int(_required(value))


def _take_holdfor(arguments: MailArguments, value: str | None) -> None:
    """RFC 4865 4."""
    if not INTERVAL.fullmatch(_required(value)):
        raise ValueError("no interval")
    arguments.hold_seconds = int(_required(value))


def _take_holduntil(arguments: MailArguments, value: str | None) -> None:
    """RFC 4865 4: a date-time of RFC 3339, which may have any offset."""
    arguments.hold_until = parse_date_time(_required(value))


def _take_by(arguments: MailArguments, value: str | None) -> None:
    """RFC 2852 4. In mode R only a time to come makes sense."""
    match = DELIVER_BY.fullmatch(_required(value))
    if match is None:
        raise ValueError("no time and mode")
    by = By(int(match[1]), match[2].upper() == "R", bool(match[3]))
    if by.must_return and by.seconds <= 0:
        raise ValueError("over before it began")
    arguments.by = by


def _refuse_value(value: str | None) -> None:
    if value is not None:
        raise ValueError("no value is expected")


def _parse_notify(value: str) -> Notify:
    """RFC 3461 4.1: ``NEVER``, or a list of the others."""
    notify = NOTIFY_UNSAID
    for word in value.upper().split(","):
        flag = Notify.__members__.get(word)
        if flag is None or flag & notify:
            raise ValueError("no list of notices")
        notify |= flag
    if Notify.NEVER & notify and notify is not Notify.NEVER:
        raise ValueError("NEVER stands alone")
    return notify


def parse_date_time(text: str) -> int:
    """The second since the epoch that a date-time of RFC 3339 5.6 lies in; raises ValueError."""
    if not DATE_TIME.fullmatch(text):
        raise ValueError("no date-time")
    text = text.upper()
    # 5.7: second 60 exists, at the end of some days; datetime does not know it.
    is_leap = text[17:19] == "60"
    moment = datetime.datetime.fromisoformat(text[:17] + "59" + text[19:] if is_leap else text)
    return math.floor(moment.timestamp()) + is_leap


_MAIL: Mapping[str, Callable[[MailArguments, str | None], None]] = {
    "SIZE": _take_size,
    "BODY": _take_body,
    "SMTPUTF8": _take_smtputf8,
    "AUTH": _take_auth,
    "RET": _take_ret,
    "ENVID": _take_envid,
    "REQUIRETLS": _take_requiretls,
    "MT-PRIORITY": _take_priority,
    "HOLDFOR": _take_holdfor,
    "HOLDUNTIL": _take_holduntil,
    "BY": _take_by,
}
