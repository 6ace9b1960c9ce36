"""``mailsrvctl ldap``: presets, a look at a server, a test of the configuration, and what becomes of a name.

Asks the servers by the server's own code, from here: whether mailsrv runs or not. Exit status 0: all is well; 1: not.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn, TypeVar

import click
from attrs import asdict, frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailsrv.address import Address
from mailsrv.auth.names import parse_user_name
from mailsrv.cli.root import CommandContext
from mailsrv.config.schema import Settings
from mailsrv.directory.domains import LocalDomains
from mailsrv.directory.ldap.build import LdapParts, make_ldap_directory
from mailsrv.directory.ldap.connection import LdapConnection, LdapEntry
from mailsrv.directory.ldap.discover import discover
from mailsrv.directory.ldap.filters import Filter, present
from mailsrv.directory.ldap.mapping import preset_names, preset_text
from mailsrv.directory.ldap.trouble import LdapTrouble
from mailsrv.directory.ldap.workers import Lane
from mailsrv.directory.settings import DirectorySettings, DirectoryType
from mailsrv.errors import MailError

T = TypeVar("T")


@frozen
class Check:
    """One thing that was tried."""

    what: str
    is_good: bool
    result: str
    milliseconds: float | None = None


def _fail(sentence: str) -> NoReturn:
    click.echo(f"mailsrvctl: {sentence}", err=True)
    raise SystemExit(1)


def _ldap_settings(settings: Settings) -> list[DirectorySettings]:
    found = [each for each in settings.directory if each.type is DirectoryType.LDAP]
    if not found:
        _fail('the configuration has no [[directory]] of type = "ldap"')
    return found


def _parts(settings: Settings, directory: DirectorySettings) -> LdapParts:
    return make_ldap_directory(directory, clock=Clock(), default_domain=settings.auth.default_domain)


def _result(answer: Deferred[T]) -> T:
    """Everything happens in place: the answer is there. Raises what it failed with."""
    ended: list[Any] = []
    answer.addBoth(ended.append)
    found = ended[0] if ended else Failure(RuntimeError("no answer"))
    if isinstance(found, Failure):
        found.raiseException()
    result: T = found
    return result


def _tell(checks: Iterator[Check], *, as_json: bool) -> NoReturn:
    told = []
    for check in checks:
        told.append(check)
        if not as_json:
            duration = "" if check.milliseconds is None else f"  ({check.milliseconds:.1f} ms)"
            click.echo(f"{'ok  ' if check.is_good else 'FAIL'}  {check.what}: {check.result}{duration}")
    if as_json:
        click.echo(json.dumps([asdict(check) for check in told], indent=2, ensure_ascii=False))
    raise SystemExit(0 if all(check.is_good for check in told) else 1)


def _timed(what: str, do: Callable[[], str]) -> Check:
    began = time.perf_counter()
    try:
        result, is_good = do(), True
    except MailError as error:
        result, is_good = error.cause or str(error), False
    except LdapTrouble as error:
        result, is_good = str(error), False
    return Check(what, is_good, result, (time.perf_counter() - began) * 1000)


@click.group("ldap")
def ldap_group() -> None:
    """Directories over LDAP."""


@ldap_group.command("preset")
@click.argument("name", required=False, default="")
def preset_command(name: str) -> None:
    """Show a preset: which attribute means what. Without NAME: which there are."""
    if not name:
        click.echo("\n".join(preset_names()))
        return
    try:
        click.echo(preset_text(name), nl=False)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="NAME") from error


@ldap_group.command("discover")
@click.argument("uri")
@click.option("--ca-file", default="", metavar="FILE", help="PEM file of the authority of the server's certificate.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def discover_command(uri: str, ca_file: str, as_json: bool) -> None:
    """Ask the server at URI what it is, and write a table for the configuration."""
    try:
        found = discover(uri, ca_file=ca_file)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="URI") from error
    except LdapTrouble as error:
        _fail(f"{uri}: {error}")
    if as_json:
        click.echo(json.dumps({**asdict(found), "table": found.table()}, indent=2, ensure_ascii=False))
        return
    click.echo(f"# {uri}: {found.why}")
    click.echo(f"# TLS: {found.tls}")
    click.echo(f"# trees: {', '.join(found.bases) or 'none shown'}")
    if not found.has_paged_results:
        click.echo("# it does not announce paged results (RFC 2696): users cannot be listed")
    click.echo(found.table())


@ldap_group.command("test")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def test_command(context: CommandContext, as_json: bool) -> None:
    """Try everything the configuration says about LDAP, server by server."""
    settings = context.settings
    _tell((check for each in _ldap_settings(settings) for check in _test(settings, each)), as_json=as_json)


def _test(settings: Settings, directory: DirectorySettings) -> Iterator[Check]:
    parts = _parts(settings, directory)
    servers = parts.servers.all
    for server in servers:
        lane = Lane()

        def connect(server: Any = server, lane: Lane = lane) -> str:
            end = time.monotonic() + directory.attempt_seconds
            lane.connection = parts.attempts.open(server, end, as_service=True)
            who = directory.bind_dn or ("the client certificate" if directory.bind_external else "nobody (anonymous)")
            return f"connected as {who}, TLS: {lane.connection.tls_version or 'none'}"

        yield _timed(server.uri, connect)
        connection = lane.connection
        if connection is None:
            continue
        if not connection.tls_version and not server.socket_path and not server.host.startswith(("127.", "localhost")):
            yield Check(server.uri, False, "passwords travel readable: set starttls = true or use ldaps://")
        yield _timed(f"{server.uri}, base", partial(_test_base, connection, directory))
        yield _timed(f"{server.uri}, users", partial(_test_users, connection, directory, parts))
        groups = parts.reader.groups()
        if groups is not None:
            yield _timed(
                f"{server.uri}, groups",
                partial(_test_groups, connection, directory, groups),
            )
        lane.close()


def _deadline(directory: DirectorySettings) -> float:
    return time.monotonic() + directory.deadline_seconds


def _test_base(connection: LdapConnection, directory: DirectorySettings) -> str:
    found = connection.search(
        directory.base, present("objectClass"), ("objectClass",), _deadline(directory), limit=1, whole_tree=False
    )
    if not found:
        raise LdapTrouble(f"{directory.base} cannot be read with these rights")
    return f"{found[0].dn} can be read"


def _test_users(connection: LdapConnection, directory: DirectorySettings, parts: LdapParts) -> str:
    users = connection.search(
        directory.base, parts.reader.users(), parts.mapping.wanted(), _deadline(directory), limit=100
    )
    with_address = [entry for entry in users if parts.reader.addresses(entry)]
    if not users:
        raise LdapTrouble(f"none is found by {parts.reader.users()}")
    if not with_address:
        raise LdapTrouble(f"none of {len(users)} has an address in {', '.join(parts.mapping.address)}")
    more = " or more" if len(users) == 100 else ""
    return (
        f"{len(users)}{more}, {len(with_address)} with an address, such as {parts.reader.addresses(with_address[0])[0]}"
    )


def _test_groups(connection: LdapConnection, directory: DirectorySettings, groups: Filter) -> str:
    found = connection.search(directory.base, groups, ("objectClass",), _deadline(directory), limit=100)
    return f"{len(found)}{' or more' if len(found) == 100 else ''}"


@ldap_group.command("check")
@click.argument("name", metavar="ADDRESS")
@click.option("--password-stdin", is_flag=True, help="Try the password in the first line of standard input, too.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def check_command(context: CommandContext, name: str, password_stdin: bool, as_json: bool) -> None:
    """What the directory says about ADDRESS (or a name to log in with), query by query."""
    settings = context.settings
    address = parse_user_name(name, settings.auth.default_domain)
    if address is None:
        raise click.BadParameter(f"{name!r} can be nobody's name", param_hint="ADDRESS")
    password = None
    if password_stdin:
        try:
            password = sys.stdin.buffer.readline(8192).rstrip(b"\r\n").decode("utf-8")
        except UnicodeDecodeError:
            _fail("the password is not UTF-8")
    _tell(_check(settings, address, password), as_json=as_json)


def _check(settings: Settings, address: Address, password: str | None) -> Iterator[Check]:
    found = LocalDomains(settings.domain).find(address.domain)
    if found is None:
        yield Check("domain", True, f"{address.domain} is none of this server's: good for log-ins, not for mail")
    else:
        yield Check("domain", True, f"{address.domain} is delivered here")
        address = Address(address.local_part, found[0])
    is_known = False
    for directory in _ldap_settings(settings):
        parts = _parts(settings, directory)
        for check in _check_in(parts, directory, address, password):
            is_known = is_known or (check.what == "log-in" and check.is_good) or check.what in ("user", "list")
            yield check
    if not is_known:
        yield Check("outcome", False, f"{address} is nobody: mail for it is refused (550), log-ins fail")


def _check_in(
    parts: LdapParts, directory: DirectorySettings, address: Address, password: str | None
) -> Iterator[Check]:
    reader = parts.reader
    for what, query in (
        ("by address", reader.by_address(address)),
        ("by name to log in with", reader.by_login(address)),
    ):
        yield _timed(f"{what}: {query} below {directory.base}", partial(_dns, parts, directory, query))
    try:
        targets = _result(parts.directory.find_alias(address))
        user = _result(parts.directory.find_user(address))
        login = _result(parts.directory.find_login(address))
    except MailError as error:
        yield Check("outcome", False, f"mail for it waits (451), log-ins fail for now: {error.cause}")
        return
    if targets is not None:
        shown = ", ".join(map(str, targets[:10])) + (f" and {len(targets) - 10} more" if len(targets) > 10 else "")
        yield Check("list", True, f"mail for it goes to {shown or 'nobody'}")
    if user is not None:
        quota = "none of its own" if user.quota_octets is None else f"{user.quota_octets} octets"
        yield Check("user", True, f"{user.address} ({user.display_name}), quota: {quota}")
    if login is None:
        yield Check("log-in", password is None and (targets is not None), "nobody logs in by this name")
        return
    known = parts.directory.known_entry(login.address)
    objection = "" if login.may_log_in else " may not log in"
    yield Check("log-in", login.may_log_in, f"{login.address}{objection}, entry {known}")
    if password is not None:
        yield _timed("password", lambda: _password(parts, login, password))


def _dns(parts: LdapParts, directory: DirectorySettings, query: Filter) -> str:
    entries: tuple[LdapEntry, ...] = _result(
        Deferred.fromCoroutine(
            parts.client.search(
                directory.base, query, parts.mapping.wanted(), seconds=directory.deadline_seconds, limit=5
            )
        )
    )
    return "; ".join(entry.dn for entry in entries) or "no entry"


def _password(parts: LdapParts, user: Any, password: str) -> str:
    if not _result(parts.directory.check_password(user, password)):
        raise LdapTrouble("wrong, or the account is shut")
    return "right"
