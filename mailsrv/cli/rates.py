"""``mailsrvctl rates``: what users have sent of what they may, who is held up by it, and letting them go on.

Works on the file the server counts in, whether it runs or not: what is lifted holds at once, in all
workers.
"""

from __future__ import annotations

import time

import click

from mailsrv.cli.output import json_option, moment_or_null, say, to_json
from mailsrv.cli.root import CommandContext
from mailsrv.delivery.submission_rates import UserRates, all_rates, limits_of, rates_of, rates_path
from mailsrv.delivery.submission_table import SubmissionTable, UserRecord
from mailsrv.directory.names import parse_account_name


@click.group("rates")
def rates_group() -> None:
    """What users may send in an hour and a day, and what they have used of it."""


@rates_group.command("list")
@json_option()
@click.pass_obj
def list_rates(context: CommandContext, as_json: bool) -> None:
    """List everybody who has used any of the limits."""
    _show(context, _all(context), as_json=as_json)


@rates_group.command("blocked")
@json_option()
@click.pass_obj
def blocked(context: CommandContext, as_json: bool) -> None:
    """List users who are over a limit now."""
    _show(context, [rates for rates in _all(context) if rates.blocked_by], as_json=as_json)


@rates_group.command("show")
@click.argument("user")
@json_option()
@click.pass_obj
def show(context: CommandContext, user: str, as_json: bool) -> None:
    """Show what one user has used."""
    name = _user(context, user)
    table = _table(context)
    record = UserRecord(name) if table is None else table.get(name)
    _show(context, [rates_of(record, context.settings.submission, time.time())], as_json=as_json)


@rates_group.command("lift")
@click.argument("user")
@click.pass_obj
def lift(context: CommandContext, user: str) -> None:
    """Let a user begin anew, as if nothing had been sent. Change a stolen password first."""
    name = _user(context, user)
    table = _table(context)
    if table is None or not table.forget(name):
        click.echo(f"{name} has used nothing")
        return
    click.echo(f"{name} may send again")


def _user(context: CommandContext, text: str) -> str:
    try:
        return str(parse_account_name(text, context.settings.auth.default_domain))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="USER") from error


def _table(context: CommandContext) -> SubmissionTable | None:
    path = rates_path(context.settings.state_dir)
    try:
        return SubmissionTable.open_existing(path)
    except OSError as error:
        click.echo(f"mailsrvctl: {path}: {error.strerror}", err=True)
    except ValueError as error:
        click.echo(f"mailsrvctl: {error}", err=True)
    raise SystemExit(1)


def _all(context: CommandContext) -> list[UserRates]:
    table = _table(context)
    if table is None:
        return []
    return sorted(all_rates(table, context.settings.submission, time.time()), key=lambda rates: rates.user)


def _show(context: CommandContext, found: list[UserRates], *, as_json: bool) -> None:
    if as_json:
        click.echo(to_json([_row(context, rates) for rates in found], indent=2))
        return
    for rates in found:
        row = _row(context, rates)
        say(f"{rates.user}  {_used_text(row)}{_blocked_text(rates)}")


def _row(context: CommandContext, rates: UserRates) -> dict[str, object]:
    limits = [limit for limit in limits_of(context.settings.submission) if limit is not None]
    return {
        "user": rates.user,
        "limits": {limit.name: {"used": rates.used[limit.name], "limit": limit.count} for limit in limits},
        "blocked_by": rates.blocked_by or None,
        "wait_seconds": round(rates.wait_seconds),
        "refusals": rates.refusals,
        "last_refused": moment_or_null(rates.refused_at or None),
    }


def _used_text(row: dict[str, object]) -> str:
    limits = row["limits"]
    if not isinstance(limits, dict) or not limits:
        return "no limits"
    return "  ".join(f"{name} {numbers['used']}/{numbers['limit']}" for name, numbers in limits.items())


def _blocked_text(rates: UserRates) -> str:
    if not rates.blocked_by:
        return ""
    return f"  blocked by {rates.blocked_by} for {round(rates.wait_seconds)} s, refused {rates.refusals} times"
