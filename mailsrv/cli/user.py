"""``mailsrvctl user``: add, list and delete users, and set passwords, in the first passwd-file of the configuration.

Works on the file alone, whether the server runs or not; a running one sees the change within a
second. Every failure is one sentence on standard error and exit status 1; wrong use is 2.
"""

from __future__ import annotations

import sys
from typing import NoReturn, Protocol

import click

from mailsrv.address import Address
from mailsrv.auth.app_passwords.database import AppPasswordDatabase, database_path
from mailsrv.auth.settings import AuthSettings
from mailsrv.cli.domains import is_own_domain, where_domains_are
from mailsrv.cli.output import json_option, say, to_json
from mailsrv.directory.names import parse_account_name
from mailsrv.directory.passwd_edit import EditError, PasswdEditor, scram_fields
from mailsrv.directory.passwd_line import parse_size
from mailsrv.directory.passwords.hashing import make_hash, make_verifiers
from mailsrv.directory.settings import DirectorySettings, DirectoryType, DomainSettings, PasswordSettings
from mailsrv.errors import MailError

_PASSWORD_LINE_OCTETS = 8192


class UserSettings(Protocol):
    """What these commands need of the settings."""

    @property
    def state_dir(self) -> str: ...
    @property
    def directory(self) -> tuple[DirectorySettings, ...]: ...
    @property
    def domain(self) -> tuple[DomainSettings, ...]: ...
    @property
    def auth(self) -> AuthSettings: ...
    @property
    def passwords(self) -> PasswordSettings: ...


class UserContext(Protocol):
    """What the main command puts into ``ctx.obj``."""

    @property
    def settings(self) -> UserSettings: ...


def _fail(sentence: str) -> NoReturn:
    click.echo(f"mailsrvctl: {sentence}", err=True)
    raise SystemExit(1)


def _editor(context: UserContext) -> PasswdEditor:
    for directory in context.settings.directory:
        if directory.type is DirectoryType.PASSWD_FILE:
            return PasswdEditor(directory.path, default_domain=context.settings.auth.default_domain)
    _fail("the configuration has no [[directory]] of type passwd-file")


def _address(context: UserContext, text: str) -> Address:
    try:
        return parse_account_name(text, context.settings.auth.default_domain)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="ADDRESS") from error


def _read_password(*, from_stdin: bool) -> str:
    """From the first line of standard input, or asked for twice at the terminal."""
    if not from_stdin:
        if not sys.stdin.isatty():
            raise click.UsageError("there is no terminal to ask for the password; use --password-stdin")
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        return password
    line = sys.stdin.buffer.readline(_PASSWORD_LINE_OCTETS)
    try:
        return line.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError:
        _fail("the password is not UTF-8")


def _hash(context: UserContext, password: str) -> tuple[str, tuple[str, ...]]:
    """The hash, and what SCRAM needs beside it."""
    try:
        secret = make_hash(password, context.settings.passwords)
        return secret, make_verifiers(password, context.settings.passwords)
    except ValueError as error:
        _fail(str(error))


@click.group("user")
def user_group() -> None:
    """Users in the passwd-file."""


@user_group.command("add")
@click.argument("address")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
@click.option("--name", default="", help="The user's name, for humans.")
@click.option("--quota", default="", help="Limit of the user's mail, such as 2G.")
@click.pass_obj
def add(context: UserContext, address: str, password_stdin: bool, name: str, quota: str) -> None:
    """Add a user."""
    editor = _editor(context)
    user = _address(context, address)
    if not is_own_domain(context.settings, user.domain):
        _fail(f"{user.domain} is none of the domains {where_domains_are(context.settings)}")
    extra = ""
    if quota:
        try:
            extra = f"userdb_quota_rule=*:bytes={parse_size(quota)}"
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--quota") from error
    secret, verifiers = _hash(context, _read_password(from_stdin=password_stdin))
    try:
        extra = " ".join(part for part in (extra, scram_fields(verifiers)) if part)
        editor.add(user, secret, display_name=name, extra=extra)
    except EditError as error:
        _fail(str(error))
    click.echo(f"{user} added")


@user_group.command("passwd")
@click.argument("address")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
@click.pass_obj
def passwd(context: UserContext, address: str, password_stdin: bool) -> None:
    """Set a user's password."""
    editor = _editor(context)
    user = _address(context, address)
    try:
        if all(known.address != user for known in editor.users()):
            _fail(f"{user} does not exist")
        editor.set_secret(user, *_hash(context, _read_password(from_stdin=password_stdin)))
    except EditError as error:
        _fail(str(error))
    click.echo(f"password of {user} changed")


@user_group.command("list")
@json_option()
@click.pass_obj
def list_users(context: UserContext, as_json: bool) -> None:
    """List the users."""
    try:
        users = _editor(context).users()
    except EditError as error:
        _fail(str(error))
    if as_json:
        rows = [
            {
                "address": str(user.address),
                "name": user.display_name,
                "quota_octets": user.quota_octets,
                "may_log_in": user.may_log_in,
            }
            for user in users
        ]
        click.echo(to_json(rows, indent=2))
        return
    for user in users:
        remark = "" if user.may_log_in else "  (may not log in)"
        say(f"{user.address}{remark}")


@user_group.command("delete")
@click.argument("address")
@click.pass_obj
def delete(context: UserContext, address: str) -> None:
    """Delete a user and their app passwords. Stored mail stays where it is."""
    editor = _editor(context)
    user = _address(context, address)
    try:
        editor.delete(user)
    except EditError as error:
        _fail(str(error))
    click.echo(f"{user} deleted; stored mail was left in place")
    # Who gets the name next must not be opened by them.
    database = AppPasswordDatabase(database_path(context.settings.state_dir))
    try:
        database.revoke(str(user))
    except MailError as error:
        _fail(f"the app passwords of {user} could not be revoked: {error.cause}")
    finally:
        database.close()
