"""``mailsrvctl queue``: mail for other hosts that is still owed.

Works on the queue's database, whether the server runs or not; a running server notices within a second.
MESSAGE is an id, or the transaction id that the log and Received fields name. Exit status 0: done; 1: it
could not be done, or nothing was found; 2: wrong use.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import attrs
import click

from mailsrv.cli.output import json_option, moment, printable, say, to_json
from mailsrv.cli.root import CommandContext
from mailsrv.disk import RealDisk
from mailsrv.errors import MailError
from mailsrv.interfaces.queue import AT_ONCE
from mailsrv.queue.admin import Command, QueueAdministration
from mailsrv.queue.listing import ListedMessage, ListedRecipient
from mailsrv.queue.reading import read_header_section
from mailsrv.queue.selection import Selection, ShownState
from mailsrv.routing.via import parse_destination

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "": 1}
_NULL = "<>"


def _fail(sentence: str) -> NoReturn:
    click.echo(f"mailsrvctl: {sentence}", err=True)
    raise SystemExit(1)


class Age(click.ParamType[float]):
    """``90``, ``15m``, ``4h``, ``2d``."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d{1,9})([smhd]?)", str(value))
        if found is None:
            self.fail(f"{value!r} is no age; write 90s, 15m, 4h or 2d", param, ctx)
        return float(int(found[1]) * _UNITS[found[2]])


@contextmanager
def _opened(context: CommandContext) -> Iterator[QueueAdministration]:
    settings = context.settings
    directory = os.path.join(settings.state_dir, "queue")
    try:
        administration = QueueAdministration(directory, RealDisk(), busy_seconds=settings.queue.storage.busy_seconds)
    except MailError as error:
        _fail(str(error))
    try:
        yield administration
    except MailError as error:
        _fail(str(error))
    finally:
        administration.close()


def _filters(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.argument("messages", nargs=-1, metavar="[MESSAGE]..."),
            click.option("--sender", metavar="PATTERN", help="Reverse-path, with * and ?; <> for notices."),
            click.option("--recipient", metavar="PATTERN", help="Address of a recipient."),
            click.option("--destination", metavar="PATTERN", help="As mx:example.org, smtp:HOST:PORT, lmtp:…, local."),
            click.option("--state", type=click.Choice([state.value for state in ShownState])),
            click.option("--older", type=Age(), metavar="AGE", help="Accepted longer ago: 90s, 15m, 4h, 2d."),
            click.option("--younger", type=Age(), metavar="AGE", help="Accepted since."),
        ]
    ):
        function = option(function)
    return function


def _selection(administration: QueueAdministration, options: dict[str, Any]) -> Selection:
    ids: list[int] = []
    for name in options["messages"]:
        found = administration.find(name)
        if not found:
            _fail(f"there is no message {name} in the queue")
        ids += found
    sender = options["sender"]
    return Selection(
        tuple(ids),
        "" if sender == _NULL else sender,
        options["recipient"],
        options["destination"],
        None if options["state"] is None else ShownState(options["state"]),
        options["older"],
        options["younger"],
    )


@click.group("queue")
def queue_group() -> None:
    """Look at mail for other hosts, and change what becomes of it."""


@queue_group.command("list")
@_filters
@click.option("--limit", type=click.IntRange(1), help="At most so many messages.")
@json_option("As JSON, one message a line.")
@click.pass_obj
def list_(context: CommandContext, /, limit: int | None, as_json: bool, **options: Any) -> None:
    """List messages and those of their recipients that are meant."""
    with _opened(context) as administration:
        for message in administration.messages(_selection(administration, options), limit):
            if as_json:
                click.echo(to_json(_as_json(message)))
                continue
            _print(message)


@queue_group.command("show")
@click.argument("name", metavar="MESSAGE")
@json_option()
@click.pass_obj
def show(context: CommandContext, name: str, as_json: bool) -> None:
    """Show a message: its recipients, what happened so far, its header section."""
    with _opened(context) as administration:
        shown = [found for each in administration.find(name) if (found := administration.show(each)) is not None]
        if not shown:
            _fail(f"there is no message {name} in the queue")
        journal = os.path.join(context.settings.state_dir, "journal")
        described = []
        for message, events in shown:
            header = read_header_section(administration.db, administration.content, RealDisk(), journal, message.id)
            if as_json:
                history = [{"at": _time(each.at), "recipient": each.recipient, "text": each.text} for each in events]
                described.append({**_as_json(message), "history": history, "header": header})
                continue
            _print(message)
            for each in events:
                say(f"  {_time(each.at)}  {each.recipient}  {each.text}")
            if header:
                click.echo("\n" + "\n".join(printable(line.expandtabs()) for line in header.splitlines()))
        if as_json:
            click.echo(to_json(described, indent=2))


@queue_group.command("stats")
@click.option("--destinations", "most", type=click.IntRange(0), default=20, show_default=True, help="So many at most.")
@json_option()
@click.pass_obj
def stats(context: CommandContext, most: int, as_json: bool) -> None:
    """The queue in numbers."""
    with _opened(context) as administration:
        statistics = administration.statistics(most)
    if as_json:
        click.echo(to_json(attrs.asdict(statistics), indent=2))
        return
    states = ", ".join(f"{count} {state}" for state, count in statistics.recipients.items())
    click.echo(f"{_count(statistics.messages, 'message')}, {statistics.octets} octets; recipients: {states}")
    remembered = (
        "1 message that left is" if statistics.remembered == 1 else f"{statistics.remembered} messages that left are"
    )
    click.echo(f"{remembered} remembered")
    for each in statistics.destinations:
        due = "" if each.next_due is None else f"  {_due(each.next_due)}"
        say(f"  {each.waiting:8}  {each.destination}{due}")


def _changing(command: Command, text: str, *extra: Callable[..., Any]) -> None:
    def run(
        context: CommandContext, /, is_all: bool, as_json: bool, yes: bool = False, to: str = "", **options: Any
    ) -> None:
        destination = None
        if command is Command.REROUTE:
            try:
                destination = parse_destination(to)
            except ValueError as error:
                raise click.BadParameter(f"{to!r} is no destination: {error}", param_hint="--to") from error
        with _opened(context) as administration:
            selection = _selection(administration, options)
            if selection.is_everything is not is_all:
                raise click.UsageError("name messages or give a filter, or --all for everything (not both)")
            if command is Command.DROP and is_all and not yes:
                click.confirm("Drop all mail in the queue?", abort=True, err=True)
            count = administration.change(command, selection, destination=destination, progress=_progress())
        if as_json:
            click.echo(json.dumps({"command": command.value, "recipients": count}))
        else:
            click.echo(f"{command.value}: {_count(count, 'recipient')}")
        if not count:
            raise SystemExit(1)

    decorated: Callable[..., Any] = click.pass_obj(run)
    for option in (
        *extra,
        json_option(),
        click.option("--all", "is_all", is_flag=True, help="Everything in the queue."),
    ):
        decorated = option(decorated)
    queue_group.command(command.value, help=text)(_filters(decorated))


def _progress() -> Callable[[int, int], None] | None:
    if not sys.stderr.isatty():
        return None

    def tell(done: int, total: int) -> None:
        click.echo(f"\r{done} of {total}", nl=done == total, err=True)

    return tell


_changing(Command.HOLD, "Keep mail back until it is released.")
_changing(Command.RELEASE, "Let held mail go on.")
_changing(Command.FLUSH, "Try now what waits, whatever its time.")
_changing(
    Command.DROP,
    "Remove mail, without a word to anybody.",
    click.option("--yes", is_flag=True, help="Do not ask before dropping everything."),
)
_changing(Command.REQUEUE, "Start anew: no attempts made, accepted now, due now, no longer held.")
_changing(
    Command.REROUTE,
    "Send mail another way from now on.",
    click.option("--to", required=True, metavar="DESTINATION", help="mx:DOMAIN, smtp:HOST:PORT, lmtp:ENDPOINT, local."),
)


# -- output ---------------------------------------------------------------------------


def _time(seconds: float) -> str:
    return "now" if seconds <= AT_ONCE else moment(seconds)


def _due(seconds: float) -> str:
    """What is due and still here waits for its destination: for a turn, or for a host that is down to be back."""
    return f"next {_time(seconds)}" if seconds > time.time() else "due"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _as_json(message: ListedMessage) -> dict[str, Any]:
    described = attrs.asdict(message, recurse=False)
    described["accepted_at"] = _time(message.accepted_at)
    described["recipients"] = [_recipient_as_json(each) for each in message.recipients]
    return described


def _recipient_as_json(recipient: ListedRecipient) -> dict[str, Any]:
    return {**attrs.asdict(recipient), "due": _time(recipient.due)}


def _print(message: ListedMessage) -> None:
    damaged = "  DAMAGED" if message.is_damaged else ""
    say(
        f"{message.id}  {message.transaction_id}  {_time(message.accepted_at)}  {message.size} octets  "
        f"from <{message.sender}>{damaged}"
    )
    for each in message.recipients:
        when = f"{each.ending} {_time(each.due)}" if each.ending else f"{each.state}, {_due(each.due)}"
        reply = f"  ({each.last_reply})" if each.last_reply else ""
        say(f"    <{each.address}> {each.destination}: {when}, {_count(each.attempts, 'attempt')}{reply}")
