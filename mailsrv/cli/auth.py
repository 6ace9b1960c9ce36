"""``mailsrvctl auth``: who is delayed or refused for failed log-ins, letting them go on, and what becomes of a log-in.

Works on the file that all workers count in, whether they run or not: what is forgiven holds at once, everywhere.
"""

from __future__ import annotations

import ipaddress
import sys
import time
from typing import NoReturn

import click
from attrs import asdict
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailsrv.app.mechanisms import offered_under_tls
from mailsrv.auth.access import AccessRules
from mailsrv.auth.access_settings import LoginService
from mailsrv.auth.app_passwords.database import AppPasswordDatabase, database_path
from mailsrv.auth.app_passwords.judge import AppPasswordJudge
from mailsrv.auth.blocks import Block, BlockEffect, list_blocks, parse_network, unblock_account, unblock_network
from mailsrv.auth.explain import Explanation, LoginParts, Step
from mailsrv.auth.failure_table import ExistingFailures, failures_path
from mailsrv.auth.names import parse_user_name
from mailsrv.auth.offer import MechanismOffer
from mailsrv.auth.rules import LoginRules
from mailsrv.auth.shared_failures import SharedFailures
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.cli.directory import make_directory_in_place
from mailsrv.cli.output import json_option, moment, moment_or_null, say, to_json
from mailsrv.cli.root import CommandContext
from mailsrv.config.schema import Settings
from mailsrv.interfaces.account import PasswordCredentials
from mailsrv.wire.client_certificate import CertificateUse
from mailsrv.wire.networks import NetworkSet

_PASSWORD_LINE_OCTETS = 8192


@click.group("auth")
def auth_group() -> None:
    """Log-ins: who is delayed or blocked, and what becomes of one."""


@auth_group.command("blocks")
@json_option()
@click.pass_obj
def blocks_command(context: CommandContext, as_json: bool) -> None:
    """List accounts and networks that are blocked or delayed now."""
    settings = context.settings
    file = _file(settings)
    found: list[Block] = []
    if file is not None:
        failures = SharedFailures(file, settings.auth)
        found = list_blocks(failures, NetworkSet(settings.limits.exempt_networks), time.time())
    if as_json:
        click.echo(to_json([_row(block) for block in found], indent=2))
        return
    if not found:
        click.echo("nobody is blocked or delayed")
    for block in found:
        say(_line(block))


@auth_group.command("unblock")
@click.argument("name", metavar="[ACCOUNT|NETWORK]", required=False)
@click.option("--all", "is_all", is_flag=True, help="Forget all failures, of everybody.")
@click.pass_obj
def unblock_command(context: CommandContext, name: str | None, is_all: bool) -> None:
    """Forget failed log-ins of an account, or of a network; it holds at once, in all workers."""
    if is_all == (name is not None):
        raise click.UsageError("name an account or a network, or give --all")
    file = _file(context.settings)
    if file is None:
        click.echo("nothing is remembered")
        return
    table = file.table
    if name is None:
        table.forget_all()
        click.echo("all failed log-ins are forgotten")
        return
    network = parse_network(name)
    if network is not None:
        count, shown = unblock_network(table, network), str(network)
    else:
        address = parse_user_name(name, context.settings.auth.default_domain)
        shown = name if address is None else str(address)
        count = unblock_account(table, shown)
    say(f"{shown}: failed log-ins are forgotten" if count else f"{shown}: there were no failed log-ins")


@auth_group.command("test")
@click.argument("name", metavar="ADDRESS")
@click.option("--password", "asks_password", is_flag=True, help="Ask for a password at the terminal and try it.")
@click.option("--password-file", metavar="FILE", help="Try the password in the first line of FILE; - for the input.")
@click.option("--service", type=click.Choice([each.value for each in LoginService]), default="imap", show_default=True)
@click.option("--from", "client_address", default="127.0.0.1", metavar="IP", help="Where the client is.")
@click.option("--authzid", default="", metavar="ADDRESS", help="Whom to act for, as clients say by SASL.")
@json_option()
@click.pass_obj
def test_command(
    context: CommandContext,
    *,
    name: str,
    asks_password: bool,
    password_file: str | None,
    service: str,
    client_address: str,
    authzid: str,
    as_json: bool,
) -> None:
    """Tell what becomes of a log-in as ADDRESS, step by step. Nothing is counted.

    Exit status 0: it would be let in (or nothing speaks against it); 1: not.
    """
    settings = context.settings
    if asks_password and password_file is not None:
        raise click.UsageError("either --password or --password-file")
    client = _client(client_address)
    password = _password(asks_password, password_file)
    credentials = PasswordCredentials(name, password, client, service, authzid=authzid, connection_id="mailsrvctl")
    steps = _explain(settings, credentials)
    if as_json:
        click.echo(to_json([asdict(step) for step in steps], indent=2))
    else:
        marks = {True: "ok  ", False: "FAIL", None: "    "}
        for step in steps:
            say(f"{marks[step.is_good]}  {step.what}: {step.result}")
    raise SystemExit(0 if steps and steps[-1].is_good else 1)


def _explain(settings: Settings, credentials: PasswordCredentials) -> list[Step]:
    """Everything happens in place: directories are asked here and now."""
    now = time.time()
    clock = Clock()
    clock.advance(now)
    auth = settings.auth
    directory = make_directory_in_place(settings, tells_groups=True, clock=clock)
    judge = AppPasswordJudge(
        AppPasswordDatabase(database_path(settings.state_dir)), auth, run_in_thread=execute, seconds=time.time
    )
    parts = LoginParts(
        directory=directory,
        rules=LoginRules(auth, clock, AccessRules(settings.access)),
        throttle=LoginThrottle(
            auth,
            clock=clock,
            exempt_networks=settings.limits.exempt_networks,
            failures=_file(settings),
        ),
        offer=MechanismOffer(
            auth,
            directory,
            takes_tokens=bool(settings.oauth),
            under_tls=offered_under_tls(settings),
            app_passwords=judge,
        ),
        app_passwords=judge,
        plaintext_networks=NetworkSet(auth.plaintext_networks),
        tickets_are_enough=settings.gssapi.counts_as_second_factor,
        takes_certificates=any(each.client_certificates is not CertificateUse.OFF for each in settings.listen),
    )

    async def collect() -> list[Step]:
        return [step async for step in Explanation(parts, credentials).steps()]

    ended: list[list[Step] | Failure] = []
    Deferred.fromCoroutine(collect()).addBoth(ended.append)
    if not ended:
        _fail("the directory gave no answer")
    if isinstance(ended[0], Failure):
        ended[0].raiseException()
    return ended[0]


def _client(text: str) -> str:
    if text in ("", "local"):
        return ""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise click.BadParameter("expected an IP address, or local for a Unix socket", param_hint="--from") from None


def _password(asks: bool, path: str | None) -> str:
    if asks:
        if not sys.stdin.isatty():
            raise click.UsageError("there is no terminal to ask for the password; use --password-file")
        password: str = click.prompt("Password", hide_input=True)
        return password
    if path is None:
        return ""
    try:
        if path == "-":
            line = sys.stdin.buffer.readline(_PASSWORD_LINE_OCTETS)
        else:
            with open(path, "rb") as file:
                line = file.readline(_PASSWORD_LINE_OCTETS)
        found = line.rstrip(b"\r\n").decode("utf-8")
    except OSError as error:
        _fail(f"{path}: {error.strerror}")
    except UnicodeDecodeError:
        _fail("the password is not UTF-8")
    if not found:
        _fail("the password is empty: nobody logs in without one")
    return found


def _file(settings: Settings) -> ExistingFailures | None:
    path = failures_path(settings.state_dir)
    try:
        return ExistingFailures.open(path)
    except OSError as error:
        _fail(f"{path}: {error.strerror}")
    except ValueError as error:
        _fail(str(error))


def _row(block: Block) -> dict[str, object]:
    return {
        "effect": block.effect.value,
        "account": block.account or None,
        "network": block.network or None,
        "since": moment_or_null(block.since),
        "until": moment_or_null(block.until),
        "failures": block.failures,
        "delay_seconds": round(block.delay_seconds, 1),
    }


def _line(block: Block) -> str:
    whose = block.account or "everybody"
    where = f" from {block.network}" if block.network else ""
    if not block.network and block.effect is BlockEffect.BLOCKED:
        where = " by Unix sockets"
    what = "blocked" if block.effect is BlockEffect.BLOCKED else f"delayed by {block.delay_seconds:.0f} s"
    return (
        f"{whose}{where}  {what}  since {moment(block.since)}  until {moment(block.until)}  {block.failures} failures"
    )


def _fail(sentence: str) -> NoReturn:
    say(f"mailsrvctl: {sentence}", err=True)
    raise SystemExit(1)
