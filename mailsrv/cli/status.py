"""``mailsrvctl status``: one page about the server, running or not. Exit status 0 healthy, 1 degraded, 2 not running.

Degraded is what somebody should look at, such as a directory that cannot be asked, a worker that hangs or is missing, a
certificate about to end, a full disk. The sentences under the first line say what.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import click
from attrs import asdict

from mailsrv.cli.output import json_option, moment, moment_or_null, say, to_json
from mailsrv.cli.root import CommandContext
from mailsrv.cli.status_report import Condition, StatusReport, age_of, connections_of, make_report, number

_EXIT = {Condition.HEALTHY: 0, Condition.DEGRADED: 1, Condition.NOT_RUNNING: 2}
_UNITS = ("octets", "KiB", "MiB", "GiB", "TiB")


@click.command("status")
@json_option()
@click.pass_obj
def status_command(context: CommandContext, as_json: bool) -> None:
    """Show how the server is: processes, connections, queue, directories, certificate, disk.

    Exit status 0: healthy; 1: degraded; 2: not running.
    """
    try:
        report = make_report(context.settings)
    except OSError as error:
        click.echo(f"mailsrvctl: {error.filename}: {error.strerror}", err=True)
        raise SystemExit(1) from error
    if as_json:
        click.echo(to_json(_table(report), indent=2))
    else:
        for line in _page(report):
            say(line)
    raise SystemExit(_EXIT[report.condition])


def _page(report: StatusReport) -> Iterator[str]:
    server = report.server or {}
    version, hostname = server.get("version", ""), server.get("hostname", "")
    yield f"mailsrv {version} {hostname}: {report.condition.value}".replace("  ", " ").replace(" :", ":")
    for concern in report.concerns:
        yield f"  ! {concern}"
    yield from _processes(report)
    if report.condition is not Condition.NOT_RUNNING:
        shown = ", ".join(f"{name} {count}" for name, count in report.connections.items()) or "none"
        yield f"connections  {shown}"
    queue = report.queue
    if queue is None:
        yield "queue        none"
    else:
        states = ", ".join(f"{queue[state]} {state}" for state in ("waiting", "active", "held") if state in queue)
        yield f"queue        {queue['messages']} messages, {_size(queue['octets'])}; recipients: {states}"
    if report.stuck_deliveries:
        yield f"put aside    {report.stuck_deliveries} deliveries"
    if report.damaged_files:
        yield f"damaged      {report.damaged_files} files of the queue"
    yield from _directories(report)
    for source in report.domains:
        age = source.get("age_seconds")
        told = "never told" if age is None else f"{source.get('domains')} listed, as of {_span(number(age))} ago"
        yield f"domains      {source.get('name')}: {told}"
    if report.blocked is not None:
        yield f"log-ins      {report.blocked} blocked, {report.delayed} delayed (mailsrvctl auth blocks)"
    if report.certificate_ends is not None:
        ends = report.certificate_ends
        left = f"in {math.floor((ends - report.now) / 86400)} days" if ends > report.now else "ended"
        yield f"certificate  ends {moment(ends)}, {left}"
    for space in report.space:
        yield f"disk         {_size(space.free_octets)} free at {space.path}; floor {_size(space.floor_octets)}"


def _processes(report: StatusReport) -> Iterator[str]:
    server = report.server
    if report.condition is Condition.NOT_RUNNING:
        if server is not None:
            last = max((each.modified_at for each in report.workers), default=0.0)
            seen = f", last seen {moment(last)}" if last else ""
            yield f"last run     started {moment(number(server.get('started_at')))}{seen}"
        return
    if server is None:
        return
    up = _span(report.now - number(server.get("started_at")))
    yield f"up           {up}, since {moment(number(server.get('started_at')))}, process {server.get('pid')}"
    yield f"workers      {len(report.workers)} of {report.workers_expected}"
    for worker in report.workers:
        content = worker.content
        up = _span(report.now - number(content.get("started_at")))
        total = sum(connections_of(worker).values())
        yield (
            f"  {content.get('worker')}  process {content.get('pid')}  up {up}  {total} connections  "
            f"{content.get('accounts', 0)} accounts  as of {_span(age_of(worker, report.now))} ago"
        )


def _directories(report: StatusReport) -> Iterator[str]:
    for directory in report.directories:
        yield f"directory    {directory['name']}: {_directory_state(directory)}"
        for server in directory.get("servers", ()):
            if server["is_up"]:
                yield f"  {server['uri']}  up"
            else:
                yield f"  {server['uri']}  down for {_span(server['down_seconds'])}: {server['cause']}"


def _directory_state(directory: Mapping[str, Any]) -> str:
    answers = directory.get("answers")
    remembered = "" if answers is None else f", {answers} answers remembered"
    if not directory.get("is_out"):
        return f"ok{remembered}"
    since = f" for {_span(directory['out_seconds'])}" if directory.get("out_seconds") else ""
    oldest = directory.get("oldest_answer_seconds")
    age = "" if oldest is None else f", the oldest {_span(oldest)} old"
    return f"OUT{since}: {directory.get('trouble') or 'no answer'}{remembered}{age}"


def _table(report: StatusReport) -> dict[str, Any]:
    return {
        "condition": report.condition.value,
        "concerns": list(report.concerns),
        "server": report.server,
        "uptime_seconds": None
        if report.condition is Condition.NOT_RUNNING or report.server is None
        else round(report.now - number(report.server.get("started_at")), 1),
        "workers_expected": report.workers_expected,
        "workers": [
            {**each.content, "is_alive": each.is_alive, "age_seconds": round(age_of(each, report.now), 1)}
            for each in report.workers
        ],
        "connections": dict(report.connections),
        "queue": report.queue,
        "stuck_deliveries": report.stuck_deliveries,
        "damaged_files": report.damaged_files,
        "directories": list(report.directories),
        "domains": list(report.domains),
        "auth": {"blocked": report.blocked, "delayed": report.delayed},
        "certificate_ends": moment_or_null(report.certificate_ends),
        "space": [{**asdict(each), "is_low": each.is_low} for each in report.space],
    }


def _span(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86400:.0f} days"


def _size(octets: float) -> str:
    unit = 0
    while octets >= 1024 and unit < len(_UNITS) - 1:
        octets /= 1024
        unit += 1
    return f"{octets:.0f} {_UNITS[unit]}" if unit == 0 else f"{octets:.1f} {_UNITS[unit]}"
