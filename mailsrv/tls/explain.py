"""Why a domain's hosts get the TLS they get, step by step, as a table for people and programs.

The answer is the one the relay gets: the same :class:`~mailsrv.tls.policy.TlsPolicies` is asked.
What led to it is asked for beside it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mailsrv.interfaces.resolver import DnsAnswer, DnsFailure, IResolver, MailExchange
from mailsrv.interfaces.tls_policy import DomainTlsPolicy, HostTlsPolicy
from mailsrv.tls import dane
from mailsrv.tls.mta_sts import format_policy
from mailsrv.tls.mta_sts_files import StoredPolicy
from mailsrv.tls.mta_sts_policies import StsPolicies
from mailsrv.tls.policy import TlsPolicies
from mailsrv.tls.reports import strings_of

Table = dict[str, Any]

_MAX_HOSTS = 20


async def explain(
    domain: str, port: int, resolver: IResolver, policies: TlsPolicies, sts: StsPolicies | None
) -> tuple[Table, list[HostTlsPolicy]]:
    """The table and the policies of the hosts that could be looked at. DNS failures stand in the table."""
    policy = await policies.for_domain(domain)
    exchanges, mx_table = await _exchanges(domain, resolver)
    hosts: list[Table] = []
    found: list[HostTlsPolicy] = []
    for exchange in exchanges.records[:_MAX_HOSTS]:
        if not exchange.host:
            continue
        table, host_policy = await _host(policy, exchange, exchanges, port=port, resolver=resolver, policies=policies)
        hosts.append(table)
        if host_policy is not None:
            found.append(host_policy)
    return {
        "domain": domain,
        "policy": {"level": policy.level.value, "source": policy.source},
        "mx": mx_table,
        "mta_sts": await _mta_sts(domain, resolver, sts),
        "hosts": hosts,
    }, found


async def _exchanges(domain: str, resolver: IResolver) -> tuple[DnsAnswer[MailExchange], Table]:
    try:
        answer = await resolver.mail_exchanges(domain)
    except DnsFailure as failure:
        return DnsAnswer(()), {"error": failure.cause or failure.text}
    table: Table = {
        "secure": answer.is_secure,
        "name_exists": answer.name_exists,
        "canonical_name": answer.canonical_name,
        "hosts": [{"preference": one.preference, "host": one.host} for one in answer.records],
    }
    if not answer.records and answer.name_exists:
        # RFC 5321 5.1: without MX records the domain itself is its host.
        implicit = DnsAnswer(
            (MailExchange(0, domain),), is_secure=answer.is_secure, canonical_name=answer.canonical_name
        )
        return implicit, {**table, "implicit": True}
    return answer, table


async def _host(
    policy: DomainTlsPolicy,
    exchange: MailExchange,
    exchanges: DnsAnswer[MailExchange],
    *,
    port: int,
    resolver: IResolver,
    policies: TlsPolicies,
) -> tuple[Table, HostTlsPolicy | None]:
    table: Table = {"host": exchange.host, "preference": exchange.preference}
    try:
        addresses = await resolver.addresses(exchange.host)
        table["addresses"] = {
            "records": list(addresses.records),
            "secure": addresses.is_secure,
            "canonical_name": addresses.canonical_name,
        }
    except DnsFailure as failure:
        table["addresses"] = {"error": failure.cause or failure.text}
    table["tlsa"] = await _tlsa(f"_{port}._tcp.{exchange.host}", resolver)
    try:
        found = await policies.for_host(policy, exchange, exchanges, port)
    except DnsFailure as failure:
        table["error"] = f"not used now: {failure}"
        return table, None
    table |= {
        "level": found.level.value,
        "source": found.source,
        "names": list(found.names),
        "allowed": found.is_allowed,
        "testing": found.is_testing,
        "why": found.why,
    }
    if found.tlsa:
        table["matched_against"] = list(strings_of(found))
    return table, found


async def _tlsa(name: str, resolver: IResolver) -> Table:
    try:
        answer = await resolver.tlsa(name)
    except DnsFailure as failure:
        return {"name": name, "error": failure.cause or failure.text}
    records = [f"{one.usage} {one.selector} {one.matching_type} {one.data.hex()}" for one in answer.records]
    return {
        "name": name,
        "secure": answer.is_secure,
        "records": records,
        "usable": len(dane.usable(answer.records)),
    }


async def _mta_sts(domain: str, resolver: IResolver, sts: StsPolicies | None) -> Table:
    if sts is None:
        return {"enabled": False}
    table: Table = {"enabled": True, "kept": _stored(await sts.kept(domain))}
    try:
        table["txt"] = [
            text.decode("ascii", "replace") for text in (await resolver.texts(f"_mta-sts.{domain}")).records
        ]
    except DnsFailure as failure:
        table["txt_error"] = failure.cause or failure.text
    found = await sts.find(domain)
    table |= {"id": found.txt_id, "policy": _stored(found.stored), "fault": found.fault, "detail": found.detail}
    return table


def _stored(stored: StoredPolicy | None) -> Table | None:
    if stored is None:
        return None
    return {
        "id": stored.policy_id,
        "lines": list(format_policy(stored.policy)),
        "fetched": _moment(stored.fetched),
        "expires": _moment(stored.fetched + stored.policy.max_age),
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
