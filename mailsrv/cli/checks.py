"""Checks that a command makes one after another, each told as soon as it is made."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar

import click
from attrs import asdict, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailsrv.cli.output import say
from mailsrv.directory.ldap.trouble import LdapTrouble
from mailsrv.errors import MailError

T = TypeVar("T")


@frozen
class Check:
    """One thing that was tried."""

    what: str
    is_good: bool
    result: str
    milliseconds: float | None = None


def result(answer: Deferred[T]) -> T:
    """Everything happens in place: the answer is there. Raises what it failed with."""
    ended: list[Any] = []
    answer.addBoth(ended.append)
    found = ended[0] if ended else Failure(RuntimeError("no answer"))
    if isinstance(found, Failure):
        found.raiseException()
    told: T = found
    return told


def timed(what: str, do: Callable[[], str]) -> Check:
    """Make a check: good unless it raises, with what ``do`` answers."""
    began = time.perf_counter()
    try:
        told, is_good = do(), True
    except MailError as error:
        told, is_good = error.cause or str(error), False
    except LdapTrouble as error:
        told, is_good = str(error), False
    return Check(what, is_good, told, (time.perf_counter() - began) * 1000)


def tell(checks: Iterable[Check], *, as_json: bool) -> NoReturn:
    """All of them; the exit status is 0 where all are good."""
    told = []
    for check in checks:
        told.append(check)
        if not as_json:
            duration = "" if check.milliseconds is None else f"  ({check.milliseconds:.1f} ms)"
            say(f"{'ok  ' if check.is_good else 'FAIL'}  {check.what}: {check.result}{duration}")
    if as_json:
        click.echo(json.dumps([asdict(check) for check in told], indent=2, ensure_ascii=False))
    raise SystemExit(0 if all(check.is_good for check in told) else 1)
