"""``mailsrvctl dns``: the records a domain should have, and whether the DNS has them.

``check`` asks the resolvers of the configuration. Exit status 1 says that something needed is
missing or wrong.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import click
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailsrv.cli.dkim import fail, key_store, own_domain
from mailsrv.cli.dns_check import DomainCheck, Finding, Outcome
from mailsrv.cli.dns_records import DomainRecords, Need, RecordType, WantedRecord, wanted_records
from mailsrv.cli.output import json_option, say, to_json
from mailsrv.cli.root import CommandContext
from mailsrv.cli.zone import quote_text, zone_line
from mailsrv.config.schema import Settings
from mailsrv.coroutines import run_coroutine
from mailsrv.interfaces.resolver import IResolver
from mailsrv.mailauth.key_store import KeyStoreError
from mailsrv.tls.certificates import ServerCertificate, TlsError, load_certificate

_Result = TypeVar("_Result")


def open_resolver(settings: Settings) -> IResolver:
    """The resolver that ``check`` asks."""
    from twisted.internet import reactor

    from mailsrv.dns.resolver import Resolver

    return Resolver(settings.dns, reactor)


@click.group("dns")
def dns_group() -> None:
    """DNS records of our domains."""


_ADDRESSES = click.option(
    "--address", "addresses", multiple=True, help="A public address of this server; may be given more than once."
)


@dns_group.command("show")
@click.argument("domain")
@_ADDRESSES
@json_option()
@click.option("--zone", "as_zone", is_flag=True, help="As lines of a zone file, without explanations.")
@click.pass_obj
def show(context: CommandContext, domain: str, *, addresses: tuple[str, ...], as_json: bool, as_zone: bool) -> None:
    """Print every record a domain should have."""
    wanted = _wanted(context, domain, addresses)
    if as_json:
        click.echo(to_json(_as_table(wanted), indent=2))
        return
    for record in wanted.records:
        if record.need is Need.UNWANTED:
            continue
        if not as_zone:
            click.echo(f"; {record.need.value}: {record.why}")
        for line in _lines(record):
            click.echo(line)
    if as_zone:
        return
    for remark in wanted.remarks:
        click.echo(f"; {remark}")
    click.echo("; the policy's text, with CRLF line ends:")
    for line in wanted.mta_sts_policy.splitlines():
        click.echo(f";   {line}")


@dns_group.command("check")
@click.argument("domain")
@_ADDRESSES
@json_option()
@click.pass_obj
def check(context: CommandContext, domain: str, *, addresses: tuple[str, ...], as_json: bool) -> None:
    """Compare what a domain should have with what is published."""
    wanted = _wanted(context, domain, addresses)
    findings = _wait(DomainCheck(open_resolver(context.settings), wanted).run())
    has_failed = any(finding.is_failure for finding in findings)
    if as_json:
        rows = [_finding_row(finding) for finding in findings]
        click.echo(json.dumps({"domain": wanted.domain, "ok": not has_failed, "records": rows}, indent=2))
    else:
        for finding in findings:
            for line in _finding_lines(finding):
                say(line)
    if has_failed:
        raise SystemExit(1)


def _wanted(context: CommandContext, text: str, addresses: tuple[str, ...]) -> DomainRecords:
    domain = own_domain(context, text)
    settings = context.settings
    for address in addresses:
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise click.BadParameter(f"{address} is not an IP address", param_hint="--address") from error
    try:
        keys = key_store(context).keys(domain)
    except KeyStoreError as error:
        fail(str(error))
    return wanted_records(settings, domain, keys, _certificate(settings), addresses)


def _certificate(settings: Settings) -> ServerCertificate | None:
    if not settings.tls.certificate:
        return None
    try:
        return load_certificate(settings.tls.certificate, settings.tls.key or settings.tls.certificate)
    except TlsError as error:
        click.echo(f"mailsrvctl: no TLSA record: {error}", err=True)
        return None


def _lines(record: WantedRecord) -> Iterator[str]:
    """As zone lines; what is not known as a comment that says what to put there."""
    if record.type is RecordType.ADDRESS:
        if not record.values:
            yield f"; {record.name}. needs A and AAAA records with this server's public addresses"
        for value in record.values:
            yield zone_line(record.name, "AAAA" if ":" in value else "A", value)
        return
    name = record.name
    if record.type is RecordType.PTR:
        name = ipaddress.ip_address(record.name).reverse_pointer
    for value in record.values:
        if record.type is RecordType.TXT:
            yield zone_line(name, "TXT", quote_text(value))
        elif record.type is RecordType.TLSA:
            yield zone_line(name, "TLSA", value)
        else:
            yield zone_line(name, record.type.value, value if value.endswith(".") else value + ".")


def _as_table(wanted: DomainRecords) -> dict[str, object]:
    return {
        "domain": wanted.domain,
        "hostname": wanted.hostname,
        "records": [_record_row(record) for record in wanted.records],
        "mta_sts_policy": wanted.mta_sts_policy,
        "remarks": list(wanted.remarks),
    }


def _record_row(record: WantedRecord) -> dict[str, object]:
    return {
        "purpose": record.purpose.value,
        "type": record.type.value,
        "name": record.name,
        "values": list(record.values),
        "need": record.need.value,
        "why": record.why,
    }


def _finding_row(finding: Finding) -> dict[str, object]:
    row = _record_row(finding.record)
    row.update(
        outcome=finding.outcome.value,
        published=list(finding.published),
        remark=finding.remark,
        is_failure=finding.is_failure,
    )
    return row


def _finding_lines(finding: Finding) -> Iterator[str]:
    record = finding.record
    need = f" ({record.need.value})" if finding.outcome in {Outcome.MISSING, Outcome.UNKNOWN} else ""
    remark = f": {finding.remark}" if finding.remark else ""
    yield f"{finding.outcome.value:8}{record.type.value:7} {record.name}{need}{remark}"
    if finding.outcome in {Outcome.MISSING, Outcome.DIFFERS}:
        yield from (f"        wanted    {value}" for value in record.values)
    if finding.outcome in {Outcome.DIFFERS, Outcome.EXTRA}:
        yield from (f"        published {value}" for value in finding.published)


def _wait(coroutine: Coroutine[Deferred[Any], Any, _Result]) -> _Result:
    """What it returns, after the reactor has run for as long as it takes."""
    outcomes: list[_Result | Failure] = []
    done = run_coroutine(coroutine)
    done.addBoth(outcomes.append)
    if not outcomes:
        from twisted.internet import reactor

        done.addCallback(lambda _: reactor.stop())
        reactor.run()
    [outcome] = outcomes
    if isinstance(outcome, Failure):
        outcome.raiseException()
    return outcome
