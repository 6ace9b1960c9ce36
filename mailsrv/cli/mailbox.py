"""``mailsrvctl mailbox``: whether an account's index and its files agree.

Works on the files, whether the server runs or not, and changes nothing. Exit status 0 means sound;
what another program brought or took is told, and is no fault: the next look at the mailbox puts it right.
"""

from __future__ import annotations

from typing import NoReturn

import apsw
import click

from mailsrv.cli.output import json_option, say, to_json
from mailsrv.cli.root import CommandContext
from mailsrv.directory.names import parse_account_name
from mailsrv.disk import RealDisk
from mailsrv.errors import MailError
from mailsrv.store.check import check_account
from mailsrv.store.maildir.names import account_path
from mailsrv.store.settings import RepositoryType


def _fail(sentence: str) -> NoReturn:
    click.echo(f"mailsrvctl: {sentence}", err=True)
    raise SystemExit(1)


@click.group("mailbox")
def mailbox_group() -> None:
    """Look at the mailboxes of an account."""


@mailbox_group.command("check")
@click.argument("address")
@json_option()
@click.pass_obj
def check(context: CommandContext, address: str, as_json: bool) -> None:
    """Compare the index of an account with its files."""
    settings = context.settings
    if settings.store.type is not RepositoryType.MAILDIR:
        _fail("the store of this configuration keeps nothing on disk")
    try:
        account = parse_account_name(address, settings.auth.default_domain)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="ADDRESS") from error
    try:
        report = check_account(RealDisk(), account_path(settings.store.path, account), settings.store.busy_seconds)
    except apsw.CantOpenError:
        _fail(f"{account} has no mailboxes here")
    except (apsw.Error, MailError, OSError) as error:
        _fail(f"the index of {account} cannot be read: {error}")
    if as_json:
        found = {
            "account": str(account),
            "is_sound": report.is_sound,
            "mailboxes": report.mailboxes,
            "messages": report.messages,
            "broken": report.broken,
            "differs": report.differs,
        }
        click.echo(to_json(found, indent=2))
    else:
        for line in report.broken:
            say(f"broken: {line}")
        for line in report.differs:
            say(f"changed by another program: {line}")
        state = "sound" if report.is_sound else "not sound"
        click.echo(f"{account}: {report.mailboxes} mailboxes, {report.messages} messages, {state}")
    if not report.is_sound:
        raise SystemExit(1)
