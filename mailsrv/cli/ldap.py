"""``mailsrvctl ldap``: presets, a look at a server, a test of the configuration, and what becomes of a name.

Asks the servers by the server's own code, from here: whether mailsrv runs or not. Exit status 0: all is well; 1: not.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NoReturn

import click
from attrs import asdict
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from mailsrv.auth.names import parse_user_name
from mailsrv.cli.checks import Check, result, tell, timed
from mailsrv.cli.ldap_check import check_name
from mailsrv.cli.output import json_option
from mailsrv.cli.root import CommandContext
from mailsrv.config.schema import Settings
from mailsrv.directory.ldap.build import LdapParts, make_ldap_directory
from mailsrv.directory.ldap.connection import LdapConnection
from mailsrv.directory.ldap.discover import discover
from mailsrv.directory.ldap.domains import LdapDomains
from mailsrv.directory.ldap.filters import Filter
from mailsrv.directory.ldap.lookups import MANY_SECONDS
from mailsrv.directory.ldap.mapping import preset_names, preset_text
from mailsrv.directory.ldap.search import Search, entry_at
from mailsrv.directory.ldap.service_records import SCHEME
from mailsrv.directory.ldap.trouble import LdapTrouble
from mailsrv.directory.ldap.workers import Lane
from mailsrv.directory.passwords.hashing import HashingPool
from mailsrv.directory.settings import DirectorySettings, DirectoryType
from mailsrv.dns.blocking import make_blocking_resolver

_SHOWN = 10


def _fail(sentence: str) -> NoReturn:
    click.echo(f"mailsrvctl: {sentence}", err=True)
    raise SystemExit(1)


def _ldap_settings(settings: Settings) -> list[DirectorySettings]:
    found = [each for each in settings.directory if each.type is DirectoryType.LDAP]
    if not found:
        _fail('the configuration has no [[directory]] of type = "ldap"')
    return found


def _parts(settings: Settings, directory: DirectorySettings) -> LdapParts:
    clock: Any = Clock()
    return make_ldap_directory(
        directory,
        clock=clock,
        default_domain=settings.auth.default_domain,
        resolver=make_blocking_resolver(settings.dns),
        hashing=HashingPool(settings.passwords, reactor=clock, run_in_thread=execute),
    )


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
@json_option()
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
@json_option()
@click.pass_obj
def test_command(context: CommandContext, as_json: bool) -> None:
    """Try everything the configuration says about LDAP, server by server."""
    settings = context.settings
    tell((check for each in _ldap_settings(settings) for check in _test(settings, each)), as_json=as_json)


def _find_servers(parts: LdapParts, directory: DirectorySettings) -> str:
    result(Deferred.fromCoroutine(parts.client.find_servers(directory.deadline_seconds)))
    return ", ".join(
        server.uri + (f" (certificate for {server.tls_name})" if server.tls_name else "")
        for server in parts.servers.all
    )


def _test(settings: Settings, directory: DirectorySettings) -> Iterator[Check]:
    parts = _parts(settings, directory)
    if any(uri.startswith(SCHEME) for uri in directory.uri):
        yield timed("servers", partial(_find_servers, parts, directory))
    servers = parts.servers.all
    for server in servers:
        lane = Lane()

        def connect(server: Any = server, lane: Lane = lane) -> str:
            end = time.monotonic() + directory.attempt_seconds
            lane.connection = parts.attempts.open(server, end, as_service=True)
            who = directory.bind_dn or ("the client certificate" if directory.bind_external else "nobody (anonymous)")
            return f"connected as {who}, TLS: {lane.connection.tls_version or 'none'}"

        yield timed(server.uri, connect)
        connection = lane.connection
        if connection is None:
            continue
        if not connection.tls_version and not server.socket_path and not server.host.startswith(("127.", "localhost")):
            yield Check(server.uri, False, "passwords travel readable: set starttls = true or use ldaps://")
        yield timed(f"{server.uri}, base", partial(_test_base, connection, directory))
        yield timed(f"{server.uri}, users", partial(_test_users, connection, directory, parts))
        groups = parts.reader.groups()
        if groups is not None:
            yield timed(
                f"{server.uri}, groups",
                partial(_test_groups, connection, directory, groups),
            )
        if parts.domains is not None:
            yield timed(f"{server.uri}, domains", partial(_test_domains, connection, parts.domains))
        lane.close()


def _deadline(directory: DirectorySettings) -> float:
    return time.monotonic() + directory.deadline_seconds


def _test_base(connection: LdapConnection, directory: DirectorySettings) -> str:
    found = connection.search(entry_at(directory.base, ("objectClass",)), _deadline(directory))
    if not found:
        raise LdapTrouble(f"{directory.base} cannot be read with these rights")
    return f"{found[0].dn} can be read"


def _test_users(connection: LdapConnection, directory: DirectorySettings, parts: LdapParts) -> str:
    users = connection.search(
        Search(directory.base, parts.reader.users(), parts.mapping.wanted(), limit=100), _deadline(directory)
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
    found = connection.search(Search(directory.base, groups, ("objectClass",), limit=100), _deadline(directory))
    return f"{len(found)}{' or more' if len(found) == 100 else ''}"


def _test_domains(connection: LdapConnection, domains: LdapDomains) -> str:
    found = domains.reader.read(connection, time.monotonic() + MANY_SECONDS)
    if not found.domains:
        raise LdapTrouble(f"none is found by {domains.reader.what}")
    shown = ", ".join(each.name for each in found.domains[:_SHOWN])
    more = f" and {len(found.domains) - _SHOWN} more" if len(found.domains) > _SHOWN else ""
    useless = f"; {len(found.complaints)} of no use, such as: {found.complaints[0]}" if found.complaints else ""
    return f"{len(found.domains)}: {shown}{more}{useless}"


@ldap_group.command("check")
@click.argument("name", metavar="ADDRESS")
@click.option("--password", "asks_password", is_flag=True, help="Ask for the password and try it, too.")
@click.option("--password-stdin", is_flag=True, help="Take the password from the first line of standard input.")
@json_option()
@click.pass_obj
def check_command(context: CommandContext, name: str, asks_password: bool, password_stdin: bool, as_json: bool) -> None:
    """What the directory says about ADDRESS (or a name to log in with), query by query, and what follows from it."""
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
    elif asks_password:
        password = click.prompt("Password", hide_input=True, err=True)
    directories = [_parts(settings, each) for each in _ldap_settings(settings)]
    tell(check_name(settings, directories, address, password), as_json=as_json)
