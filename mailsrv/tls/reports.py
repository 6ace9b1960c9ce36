"""TLS reports (RFC 8460): counts of a day, and what is made of them. No I/O.

Counts are kept by policy domain and policy; failures of one kind (result, host, address) are one
entry. Everything is bounded: past the bounds a failure is still in the sums, without its details.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import define, field, frozen

from mailsrv.interfaces.tls_policy import HostTlsPolicy, TlsLevel, TlsResult
from mailsrv.tls.client_settings import TlsReportSettings

_TEXT_LIMIT = 300
_MAX_POLICIES = 20
_MAX_HOSTS = 20

FailureKey = tuple[str, str, str, str]
"""Result type, host, its address, ours."""


@define
class PolicyCounts:
    """How sessions under one policy went."""

    policy_type: str
    policy_strings: tuple[str, ...]
    hosts: set[str] = field(factory=set)
    successes: int = 0
    failed: int = 0
    failures: dict[FailureKey, tuple[int, str]] = field(factory=dict)
    """How often, and a word about the first."""


@define
class DayCounts:
    """The sessions of one day (UTC) by domain."""

    day: str
    domains: dict[str, dict[tuple[str, tuple[str, ...]], PolicyCounts]] = field(factory=dict)

    def count(self, result: TlsResult, policy_strings: tuple[str, ...], settings: TlsReportSettings) -> None:
        """Count one session."""
        domain = self._domain(result.domain, settings.max_domains)
        if domain is None:
            return
        policy_type = type_of(result.policy)
        counts = _policy(domain, policy_type, policy_strings)
        if result.host and len(counts.hosts) < _MAX_HOSTS:
            counts.hosts.add(result.host)
        if not result.result_type:
            counts.successes += 1
            return
        counts.failed += 1
        _add_failure(
            counts,
            (result.result_type, result.host, result.address, result.local_address),
            1,
            result.detail[:_TEXT_LIMIT],
            settings.max_failures,
        )

    def merge(self, table: Mapping[str, Any], settings: TlsReportSettings) -> None:
        """Add what :meth:`as_table` of another worker gave. Raises ValueError, KeyError, TypeError on anything else."""
        for name, policies in table["domains"].items():
            domain = self._domain(str(name), settings.max_domains)
            if domain is None:
                continue
            for one in policies:
                counts = _policy(domain, str(one["type"]), tuple(str(line) for line in one["strings"]))
                counts.hosts.update([str(host) for host in one["hosts"]][: _MAX_HOSTS - len(counts.hosts)])
                counts.successes += int(one["successes"])
                counts.failed += int(one["failed"])
                for result_type, host, address, *local, times, detail in one["failures"]:
                    # Without our address: written by an earlier version.
                    key = (str(result_type), str(host), str(address), str(local[0]) if local else "")
                    _add_failure(counts, key, int(times), str(detail), settings.max_failures)

    def as_table(self) -> dict[str, Any]:
        """For the disk, as JSON can hold it."""
        return {
            "domains": {
                name: [
                    {
                        "type": one.policy_type,
                        "strings": list(one.policy_strings),
                        "hosts": sorted(one.hosts),
                        "successes": one.successes,
                        "failed": one.failed,
                        "failures": [[*key, times, detail] for key, (times, detail) in one.failures.items()],
                    }
                    for one in policies.values()
                ]
                for name, policies in self.domains.items()
            }
        }

    def _domain(self, name: str, limit: int) -> dict[tuple[str, tuple[str, ...]], PolicyCounts] | None:
        if name not in self.domains and len(self.domains) >= limit:
            return None
        return self.domains.setdefault(name, {})


def _policy(
    domain: dict[tuple[str, tuple[str, ...]], PolicyCounts], policy_type: str, strings: tuple[str, ...]
) -> PolicyCounts:
    key = (policy_type, strings)
    if key not in domain and len(domain) >= _MAX_POLICIES:
        return next(reversed(domain.values()))
    if key not in domain:
        domain[key] = PolicyCounts(policy_type, strings)
    return domain[key]


def _add_failure(counts: PolicyCounts, key: FailureKey, times: int, detail: str, limit: int) -> None:
    known = counts.failures.get(key)
    if known is not None:
        counts.failures[key] = (known[0] + times, known[1])
    elif len(counts.failures) < limit:
        counts.failures[key] = (times, detail)


def type_of(policy: HostTlsPolicy) -> str:
    """The ``policy-type`` of RFC 8460 4.4."""
    if policy.source == "dane":
        return "tlsa"
    return "sts" if policy.source.startswith("mta-sts") else "no-policy-found"


def strings_of(policy: HostTlsPolicy) -> tuple[str, ...]:
    """The ``policy-string`` of DANE (RFC 8460 4.4): the records as zone files have them."""
    if policy.level is not TlsLevel.DANE:
        return ()
    return tuple(f"{one.usage} {one.selector} {one.matching_type} {one.data.hex()[:256]}" for one in policy.tlsa[:20])


@frozen
class Report:
    """A report for one domain; ``begin`` and ``end`` in seconds since 1970."""

    domain: str
    report_id: str
    begin: int
    end: int
    content: bytes = field(repr=False)


def make_report(
    domain: str, day: str, policies: Iterable[PolicyCounts], settings: TlsReportSettings, report_id: str
) -> Report:
    """The JSON of RFC 8460 4.4, not yet compressed. ``day`` is YYYY-MM-DD; raises ValueError if it is not."""
    start = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    end = start + timedelta(days=1) - timedelta(seconds=1)
    table = {
        "organization-name": settings.organization,
        "date-range": {"start-datetime": _stamp(start), "end-datetime": _stamp(end)},
        "contact-info": settings.contact,
        "report-id": report_id,
        "policies": [_policy_table(domain, one) for one in policies],
    }
    content = json.dumps(table, ensure_ascii=True, indent=1).encode("ascii")
    return Report(domain, report_id, int(start.timestamp()), int(end.timestamp()), content)


def _policy_table(domain: str, counts: PolicyCounts) -> dict[str, Any]:
    policy: dict[str, Any] = {"policy-type": counts.policy_type, "policy-domain": domain}
    if counts.policy_strings:
        policy["policy-string"] = list(counts.policy_strings)
    if counts.policy_type == "sts":
        # RFC 8460 4.4: the patterns of the policy, not the hosts that were met.
        policy["mx-host"] = [line[4:] for line in counts.policy_strings if line.startswith("mx: ")]
    elif counts.hosts:
        policy["mx-host"] = sorted(counts.hosts)
    table: dict[str, Any] = {
        "policy": policy,
        "summary": {
            "total-successful-session-count": counts.successes,
            "total-failure-session-count": counts.failed,
        },
    }
    if counts.failures:
        table["failure-details"] = [_failure_table(key, *value) for key, value in counts.failures.items()]
    return table


def _failure_table(key: FailureKey, times: int, detail: str) -> dict[str, Any]:
    result_type, host, address, local = key
    table: dict[str, Any] = {"result-type": result_type, "failed-session-count": times}
    if host:
        table["receiving-mx-hostname"] = host
    if local:
        table["sending-mta-ip"] = local
    if address:
        table["receiving-ip"] = address
    if detail:
        table["failure-reason-code"] = detail
    return table


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_destinations(texts: Iterable[bytes]) -> tuple[str, ...]:
    """The ``rua`` URIs of the TXT record of ``_smtp._tls.DOMAIN`` (RFC 8460 3); none of several records."""
    records = [text for text in texts if text.startswith(b"v=TLSRPTv1;")]
    if len(records) != 1:
        return ()
    for part in records[0].split(b";")[1:]:
        name, equals, value = part.strip(b" \t").partition(b"=")
        if name.strip(b" \t") != b"rua" or not equals:
            continue
        try:
            uris = [uri.strip() for uri in value.decode("ascii").split(",")]
        except UnicodeDecodeError:
            return ()
        known = [uri for uri in uris if uri.lower().startswith(("mailto:", "https://")) and uri.isprintable()]
        return tuple(dict.fromkeys(uri for uri in known if " " not in uri))[:_MAX_DESTINATIONS]
    return ()


_MAX_DESTINATIONS = 5
