"""``mailsrvctl tls-policy``: what TLS is demanded of a domain's hosts, and why, step by step.

Asks the DNS and the web as the relay does, whether the server runs or not, and writes nothing.
Exit status 1: with ``--connect`` a host did not fulfil what is demanded, or nothing could be found out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from mailsrv.address import parse_domain
from mailsrv.address.errors import AddressError
from mailsrv.cli.output import json_option, printable
from mailsrv.dns.resolver import Resolver
from mailsrv.dns.settings import DnsSettings
from mailsrv.tls.certificates import TlsError
from mailsrv.tls.client import ClientTls
from mailsrv.tls.client_settings import MtaStsSettings, TlsClientSettings
from mailsrv.tls.explain import Table, explain
from mailsrv.tls.https import HttpsClient
from mailsrv.tls.mta_sts_policies import StsPolicies
from mailsrv.tls.policy import TlsPolicies
from mailsrv.tls.policy_settings import TlsPolicySettings
from mailsrv.tls.probe import ProbeResult, needs_tls, probe


class TlsPolicyOptions(Protocol):
    """What this command needs of the settings."""

    @property
    def hostname(self) -> str: ...
    @property
    def state_dir(self) -> str: ...
    @property
    def dns(self) -> DnsSettings: ...
    @property
    def tls_client(self) -> TlsClientSettings: ...
    @property
    def mta_sts(self) -> MtaStsSettings: ...
    @property
    def tls_policy(self) -> Sequence[TlsPolicySettings]: ...


class TlsPolicyContext(Protocol):
    """What the main command puts into ``ctx.obj``."""

    @property
    def settings(self) -> TlsPolicyOptions: ...


@click.command("tls-policy")
@click.argument("domain")
@click.option("--port", default=25, type=click.IntRange(1, 65535), show_default=True, help="Port of the hosts.")
@click.option("--connect", is_flag=True, help="Try it: STARTTLS with each host, without sending mail.")
@json_option()
@click.pass_obj
def tls_policy_command(context: TlsPolicyContext, domain: str, port: int, *, connect: bool, as_json: bool) -> None:
    """Explain what TLS mail to DOMAIN needs: configured rules, MX, DANE, MTA-STS, and each host."""
    try:
        name = parse_domain(domain)
    except AddressError as error:
        raise click.BadParameter("it is not a domain", param_hint="DOMAIN") from error
    if name.startswith("["):
        raise click.BadParameter("an address has no policy; give a domain", param_hint="DOMAIN")
    settings = context.settings
    status: list[int] = []

    async def run(reactor: Any) -> None:
        try:
            table, is_good = await find_out(settings, name, port, reactor, connects=connect)
        except TlsError as error:
            click.echo(f"mailsrvctl: {error}", err=True)
            status.append(1)
            return
        click.echo(json.dumps(table, indent=2) if as_json else "\n".join(map(printable, describe(table))))
        status.append(0 if is_good else 1)

    _react(lambda reactor: Deferred.fromCoroutine(run(reactor)), status)


def _react(main: Any, status: list[int]) -> NoReturn:
    try:
        react(main, ())
    except SystemExit as end:
        raise SystemExit(status[0] if status else end.code or 1) from None
    raise SystemExit(1)


async def find_out(
    settings: TlsPolicyOptions, domain: str, port: int, reactor: Any, *, connects: bool
) -> tuple[Table, bool]:
    """The table of :mod:`mailsrv.tls.explain`, and whether all went well. Raises TlsError."""
    resolver = Resolver(settings.dns, reactor)
    sts = None
    if settings.mta_sts.enabled:
        https = HttpsClient(reactor, resolver, settings.tls_client.ca_file)
        folder = os.path.join(settings.state_dir, "mta-sts")
        sts = StsPolicies(settings.mta_sts, resolver, https, folder, reactor, keeps=False)
    policies = TlsPolicies(settings.tls_policy, resolver, sts)
    table, found = await explain(domain, port, resolver, policies, sts)
    table["resolvers"] = resolver.validation_states()
    is_good = bool(found)
    if connects:
        tls = ClientTls(settings.tls_client)
        by_host = {one["host"]: one for one in table["hosts"]}
        for policy in found:
            addresses = by_host[policy.host]["addresses"].get("records", [])
            results = [
                await probe(reactor, tls, policy, address=address, port=port, hostname=settings.hostname)
                for address in (addresses if needs_tls(policy) else ())
            ]
            by_host[policy.host]["connect"] = [_result_table(one) for one in results]
            is_good = is_good and all(one.verdict is not None and one.verdict.is_ok for one in results)
    return table, is_good


def _result_table(result: ProbeResult) -> Table:
    verdict = result.verdict
    return {
        "address": result.address,
        "ok": verdict is not None and verdict.is_ok,
        "result_type": verdict.result_type if verdict is not None else "",
        "detail": verdict.detail if verdict is not None else result.trouble,
        "version": result.version,
        "cipher": result.cipher,
    }


def describe(table: Table) -> list[str]:
    """The table as lines for people."""
    lines = [f"{table['domain']}: {table['policy']['level']} ({table['policy']['source']})"]
    lines += [f"  resolver {server}: {state}" for server, state in table["resolvers"].items()]
    lines.append(f"  MX: {_describe_exchanges(table['mx'])}")
    lines += [f"  {line}" for line in _describe_sts(table["mta_sts"])]
    for host in table["hosts"]:
        lines.append(f"  {host['host']}:")
        lines += [f"    {line}" for line in _describe_host(host)]
    return lines


def _describe_exchanges(mx: Table) -> str:
    if "error" in mx:
        return f"no answer: {mx['error']}"
    secure = "secure" if mx["secure"] else "not secure: no DANE"
    if not mx["name_exists"]:
        return f"no such domain ({secure})"
    if mx.get("implicit"):
        return f"none, the domain itself is the host ({secure})"
    return ", ".join(f"{one['preference']} {one['host'] or '. (no mail)'}" for one in mx["hosts"]) + f" ({secure})"


def _describe_sts(sts: Table) -> list[str]:
    if not sts["enabled"]:
        return ["MTA-STS: off"]
    lines = [f"MTA-STS record: {sts['id'] or 'none'}" + (f" ({sts['txt_error']})" if "txt_error" in sts else "")]
    kept, policy = sts["kept"], sts["policy"]
    if kept is not None:
        lines.append(f"MTA-STS kept: id {kept['id']}, fetched {kept['fetched']}, expires {kept['expires']}")
    if sts["fault"]:
        lines.append(f"MTA-STS {sts['fault']}: {sts['detail']}")
    if policy is not None:
        lines += [f"MTA-STS policy: {line}" for line in policy["lines"]]
    return lines


def _describe_host(host: Table) -> list[str]:
    addresses, tlsa = host["addresses"], host["tlsa"]
    lines = []
    if "error" in addresses:
        lines.append(f"addresses: no answer: {addresses['error']}")
    else:
        secure = "secure" if addresses["secure"] else "not secure"
        lines.append(f"addresses: {', '.join(addresses['records']) or 'none'} ({secure})")
    if "error" in tlsa:
        lines.append(f"TLSA {tlsa['name']}: no answer: {tlsa['error']}")
    elif tlsa["records"]:
        secure = "secure" if tlsa["secure"] else "not secure"
        lines += [f"TLSA {tlsa['name']}: {record} ({secure})" for record in tlsa["records"]]
    else:
        lines.append(f"TLSA {tlsa['name']}: none")
    if "error" in host:
        return [*lines, host["error"]]
    names = f", certificate for {' or '.join(host['names'])}" if host["names"] else ""
    lines.append(f"demanded: {host['level']} ({host['source']}){names}" + (f": {host['why']}" if host["why"] else ""))
    if not host["allowed"]:
        lines.append("not used: the MTA-STS policy does not name it")
    for result in host.get("connect", ()):
        said = "fulfilled" if result["ok"] else "NOT fulfilled"
        session = f", {result['version']} {result['cipher']}" if result["version"] else ""
        why = ": ".join(text for text in (result["result_type"], result["detail"]) if text)
        lines.append(f"{result['address']}: {said}{session}" + (f" ({why})" if why else ""))
    return lines
