"""The command line of ``mailsrv-sendmail``: the options that programs give to sendmail.

Options may be put together and have their value attached (``-oi``, ``-fuser``), as programs write them. What has no
meaning here but does no harm is passed over; what would change the meaning and is not there is wrong use.
"""

from __future__ import annotations

import getopt
from collections.abc import Sequence

from attrs import evolve, frozen

from mailsrv.interfaces.envelope import NOTIFY_UNSAID, Notify, ReturnContent

# A letter with a colon takes a value.
_LETTERS = "A:B:C:F:GL:N:O:R:UV:X:b:e:f:h:imno:p:r:tvx"
_SILENT = frozenset(["A", "B", "G", "L", "O", "U", "X", "e", "h", "m", "n", "o", "p", "v", "x"])


class UsageError(Exception):
    """Wrong use; the text says how."""


@frozen
class SendmailOptions:
    """What was asked for."""

    recipients: tuple[str, ...] = ()
    takes_recipients_from_header: bool = False
    ends_at_dot: bool = True
    """A line with nothing but a dot ends the message."""
    sender: str | None = None
    full_name: str = ""
    notify: Notify = NOTIFY_UNSAID
    return_content: ReturnContent | None = None
    envelope_id: str = ""
    config_path: str = ""
    shows_queue: bool = False
    flushes_queue: bool = False
    does_nothing: bool = False
    """-bi: aliases need no rebuilding."""


def parse_options(arguments: Sequence[str]) -> SendmailOptions:
    """Raises UsageError."""
    rest = list(arguments)
    result = SendmailOptions()
    # -q has a value only when it is attached, which getopt does not know.
    queue_runs = [each for each in _before_operands(rest) if each.startswith("-q")]
    if queue_runs:
        result = evolve(result, flushes_queue=True)
        rest = [each for each in rest if each not in queue_runs]
    try:
        options, operands = getopt.getopt(rest, _LETTERS)
    except getopt.GetoptError as error:
        raise UsageError(str(error)) from error
    for option, value in options:
        result = _apply(result, option[1:], value)
    return evolve(result, recipients=tuple(operands))


def _before_operands(arguments: Sequence[str]) -> Sequence[str]:
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    return arguments[:end]


def _apply(result: SendmailOptions, letter: str, value: str) -> SendmailOptions:
    if letter == "t":
        return evolve(result, takes_recipients_from_header=True)
    if letter == "i" or (letter == "o" and value.startswith("i")):
        return evolve(result, ends_at_dot=False)
    if letter == "O" and value.lower().replace(" ", "") in ("ignoredots", "ignoredots=true"):
        return evolve(result, ends_at_dot=False)
    if letter in ("f", "r"):
        return evolve(result, sender=value)
    if letter == "F":
        return evolve(result, full_name=value)
    if letter == "C":
        return evolve(result, config_path=value)
    if letter == "N":
        return evolve(result, notify=_parse_notify(value))
    if letter == "R":
        return evolve(result, return_content=_parse_return(value))
    if letter == "V":
        if not 0 < len(value) <= 100 or not all("!" <= each <= "~" for each in value):
            raise UsageError("-V needs an envelope id of at most 100 printable ASCII characters")
        return evolve(result, envelope_id=value)
    if letter == "b":
        return _apply_mode(result, value)
    if letter in _SILENT:
        return result
    raise UsageError(f"-{letter} is not known here")


def _apply_mode(result: SendmailOptions, mode: str) -> SendmailOptions:
    if mode == "m":
        return result
    if mode == "p":
        return evolve(result, shows_queue=True)
    if mode == "i":
        return evolve(result, does_nothing=True)
    raise UsageError(
        f"-b{mode} is not known here: the server is started by twistd mailsrv, SMTP spoken at its listeners"
    )


def _parse_notify(value: str) -> Notify:
    words = [word.strip().upper() for word in value.split(",")]
    notify = NOTIFY_UNSAID
    for word in words:
        if word not in Notify.__members__:
            raise UsageError("-N needs never, or success, failure and delay with commas")
        notify |= Notify[word]
    if notify & Notify.NEVER and notify != Notify.NEVER:
        raise UsageError("-N never stands alone")
    return notify


def _parse_return(value: str) -> ReturnContent:
    try:
        return ReturnContent(value.upper())
    except ValueError:
        raise UsageError("-R needs full or hdrs") from None
