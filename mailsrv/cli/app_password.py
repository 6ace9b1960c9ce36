"""``mailsrvctl app-password``: passwords of our own making for users' programs, beside that of the directory.

Works on the file that the server asks at each log-in, whether it runs or not: what is added or revoked holds at once,
in all workers. Exit status 0: done; 1: it could not be done, or nothing was found; 2: wrong use.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Any, NoReturn

import click
from twisted.python.failure import Failure

from mailsrv.address import Address
from mailsrv.auth.app_passwords.database import AppPasswordDatabase, AppPasswordRefused, database_path
from mailsrv.auth.app_passwords.record import AppPassword, Scope
from mailsrv.auth.rules import find_login
from mailsrv.cli.directory import make_directory_in_place
from mailsrv.cli.output import json_option, moment_or_null, say, to_json
from mailsrv.cli.root import CommandContext
from mailsrv.directory.names import parse_account_name
from mailsrv.errors import MailError
from mailsrv.interfaces.directory import DirectoryUser

_UNITS = {"h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}


def _fail(sentence: str) -> NoReturn:
    click.echo(f"mailsrvctl: {sentence}", err=True)
    raise SystemExit(1)


class Expiry(click.ParamType[float]):
    """``90d``, ``1y``, or the last day, ``2027-01-31`` (UTC)."""

    name = "expiry"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        span = re.fullmatch(r"(\d{1,5})([hdwy])", str(value))
        if span is not None:
            return time.time() + int(span[1]) * _UNITS[span[2]]
        try:
            after = date.fromisoformat(str(value)) + timedelta(days=1)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time; write 12h, 90d, 1y, or the last day as 2027-01-31", param, ctx)
        expires = datetime.combine(after, time_of_day(), UTC).timestamp()
        if expires <= time.time():
            self.fail(f"{value} has passed", param, ctx)
        return expires


@click.group("app-password")
def app_password_group() -> None:
    """Passwords for single programs of a user, beside the directory's."""


@app_password_group.command("add")
@click.argument("address")
@click.option("--name", required=True, help="What it is for, such as the device.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="What it is good for; may be given several times.  [default: all]",
)
@click.option("--expires", type=Expiry(), metavar="WHEN", help="12h, 90d, 1y, or the last day: 2027-01-31 (UTC).")
@click.option("--unchecked", is_flag=True, help="Do not ask the directories whether there is such an account.")
@json_option()
@click.pass_obj
def add(
    context: CommandContext,
    address: str,
    *,
    name: str,
    scopes: tuple[str, ...],
    expires: float | None,
    unchecked: bool,
    as_json: bool,
) -> None:
    """Make one for a user. It is shown now and never again."""
    account = _address(context, address) if unchecked else _existing(context, address)
    wanted = frozenset(Scope(scope) for scope in scopes) or frozenset(Scope)
    database = _database(context)
    limit = context.settings.auth.app_passwords_per_user
    try:
        fresh = database.add(str(account), name, wanted, now=time.time(), expires_at=expires, limit=limit)
    except AppPasswordRefused as error:
        _fail(str(error))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--name") from error
    except MailError as error:
        _fail(error.cause)
    finally:
        database.close()
    if as_json:
        click.echo(to_json({**_row(fresh.password), "secret": fresh.secret}, indent=2))
        return
    click.echo(fresh.secret)
    say(f"This is the app password {fresh.password.name!r} of {account}; it is not shown again.", err=True)


@app_password_group.command("list")
@click.argument("address", required=False)
@json_option()
@click.pass_obj
def list_passwords(context: CommandContext, address: str | None, as_json: bool) -> None:
    """List those of a user, or of everybody."""
    found = _known(context, address)
    if as_json:
        click.echo(to_json([_row(one) for one in found], indent=2))
        return
    for one in found:
        say(_line(one))


@app_password_group.command("revoke")
@click.argument("address")
@click.argument("names", nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="All of the user's.")
@json_option()
@click.pass_obj
def revoke(context: CommandContext, address: str, names: tuple[str, ...], is_all: bool, as_json: bool) -> None:
    """Take app passwords back, by NAMES (or numbers). From now on nobody logs in by them."""
    if is_all == bool(names):
        raise click.UsageError("name the app passwords, or say --all")
    known = _known(context, address)
    account = known[0].account if known else str(_address(context, address))
    revoked: list[AppPassword] = []
    missing: list[str] = []
    database = _database(context)
    try:
        for name in names or [None]:
            found = database.revoke(account, name)
            revoked += found
            if not found and name is not None:
                missing.append(name)
    except MailError as error:
        _fail(error.cause)
    finally:
        database.close()
    if as_json:
        click.echo(to_json([_row(one) for one in revoked], indent=2))
    else:
        for one in revoked:
            say(f"{one.account}  {one.name}  revoked")
    for name in missing:
        say(f"mailsrvctl: {account} has no app password {name!r}", err=True)
    if missing or not revoked:
        if not missing:
            say(f"mailsrvctl: {account} has no app passwords", err=True)
        raise SystemExit(1)


def _database(context: CommandContext) -> AppPasswordDatabase:
    return AppPasswordDatabase(database_path(context.settings.state_dir))


def _address(context: CommandContext, text: str) -> Address:
    try:
        return parse_account_name(text, context.settings.auth.default_domain)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="ADDRESS") from error


def _known(context: CommandContext, text: str | None) -> Sequence[AppPassword]:
    """Those of an account by any of its names, as far as the directories can be asked; of everybody."""
    database = _database(context)
    try:
        if text is None:
            return database.list()
        found = database.list(str(_address(context, text)))
        if not found:
            user = _find(context, text)
            found = database.list(str(user.address)) if isinstance(user, DirectoryUser) else ()
        return found
    except MailError as error:
        _fail(error.cause)
    finally:
        database.close()


def _existing(context: CommandContext, text: str) -> Address:
    """The canonical address: app passwords are kept under it."""
    user = _find(context, text)
    if isinstance(user, Failure):
        cause = user.value.cause if isinstance(user.value, MailError) else user.getErrorMessage()
        _fail(f"the directories cannot tell whether {text} exists ({cause}); --unchecked does without")
    if user is None:
        _fail(f"nobody logs in as {text}")
    return user.address


def _find(context: CommandContext, text: str) -> DirectoryUser | Failure | None:
    """Who logs in by this name."""
    directory = make_directory_in_place(context.settings)
    answers: list[DirectoryUser | Failure | None] = []
    find_login(directory, _address(context, text)).addBoth(answers.append)
    return answers[0] if answers else Failure(RuntimeError("no answer"))


def _row(one: AppPassword) -> dict[str, object]:
    return {
        "id": one.id,
        "account": one.account,
        "name": one.name,
        "scopes": sorted(scope.value for scope in one.scopes),
        "created": moment_or_null(one.created_at),
        "expires": moment_or_null(one.expires_at),
        "last_used": moment_or_null(one.used_at),
        "last_service": one.used_service or None,
        "last_network": one.used_network or None,
    }


def _line(one: AppPassword) -> str:
    row = _row(one)
    parts = [one.account, one.name, ",".join(sorted(scope.value for scope in one.scopes)), f"made {row['created']}"]
    if one.expires_at is not None:
        parts.append(f"{'expired' if one.expires_at <= time.time() else 'expires'} {row['expires']}")
    if one.used_at is None:
        parts.append("never used")
    else:
        parts.append(f"used {row['last_used']} ({one.used_service} from {one.used_network})")
    return "  ".join(parts)
