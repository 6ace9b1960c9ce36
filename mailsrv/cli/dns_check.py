"""What is published, beside what should be: one finding a record.

A record is *ok*, *missing*, *differs* (it is there and says something else), *extra* (nobody needs
it), or could not be *asked* for. Texts are compared by what they mean: another DMARC policy than the
one suggested is as good, an SPF record has to name this server.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults

from mailsrv.cli.dns_records import DomainRecords, Need, Purpose, RecordType, WantedRecord
from mailsrv.interfaces.resolver import DnsFailure, IResolver


class Outcome(enum.Enum):
    """Of one comparison."""

    OK = "ok"
    MISSING = "missing"
    DIFFERS = "differs"
    EXTRA = "extra"
    UNKNOWN = "unknown"
    """The DNS did not answer."""


@frozen
class Finding:
    """A record that should be there, or is."""

    outcome: Outcome
    record: WantedRecord
    published: tuple[str, ...] = ()
    remark: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether something needed is wrong. What is optional may be missing, but may not be wrong."""
        if self.outcome in {Outcome.OK, Outcome.EXTRA}:
            return False
        if self.outcome is Outcome.DIFFERS and self.record.purpose in {Purpose.DANE, Purpose.DKIM}:
            return True
        return self.record.need is Need.REQUIRED


_Check = Callable[[WantedRecord], Coroutine[Deferred[Any], Any, Sequence[Finding]]]


class DomainCheck:
    """Asks for every record of one domain."""

    def __init__(self, resolver: IResolver, wanted: DomainRecords) -> None:
        self._resolver = resolver
        self._wanted = wanted
        self._addresses: tuple[str, ...] = ()
        self._checks: dict[Purpose, _Check] = {
            Purpose.MX: self._check_mx,
            Purpose.HOST: self._check_host,
            Purpose.REVERSE: self._check_reverse,
            Purpose.SPF: self._check_spf,
            Purpose.DKIM: self._check_dkim,
            Purpose.DMARC: self._check_dmarc,
            Purpose.TLS_RPT: self._check_tls_rpt,
            Purpose.DANE: self._check_tlsa,
        }
        self._checks_by_type: dict[RecordType, _Check] = {
            RecordType.SRV: self._check_srv,
            RecordType.CNAME: self._check_alias,
            RecordType.TXT: self._check_mta_sts,
        }

    async def run(self) -> list[Finding]:
        """Findings in the order of the records. Never fails: what cannot be asked is a finding."""
        # SPF is judged by our addresses, so these come first; the rest waits for the network together.
        first = {record: await self._check(record) for record in self._wanted.records if record.purpose is Purpose.HOST}
        others = [record for record in self._wanted.records if record not in first]
        found = await gatherResults([Deferred.fromCoroutine(self._check(record)) for record in others])
        by_record = {**first, **dict(zip(others, found, strict=True))}
        return [finding for record in self._wanted.records for finding in by_record[record]]

    async def _check(self, record: WantedRecord) -> Sequence[Finding]:
        check = self._checks.get(record.purpose) or self._checks_by_type[record.type]
        try:
            return await check(record)
        except DnsFailure as failure:
            return [Finding(Outcome.UNKNOWN, record, remark=failure.text)]

    async def _check_mx(self, record: WantedRecord) -> Sequence[Finding]:
        answer = await self._resolver.mail_exchanges(record.name)
        published = tuple(f"{exchange.preference} {exchange.host or '.'}" for exchange in answer.records)
        ours = [exchange for exchange in answer.records if exchange.host == self._wanted.hostname]
        if not published:
            return [Finding(Outcome.MISSING, record)]
        if not ours:
            return [Finding(Outcome.DIFFERS, record, published)]
        own = f"{ours[0].preference} {ours[0].host}"
        found = [Finding(Outcome.OK, record, (own,))]
        found += [
            Finding(Outcome.EXTRA, record, (value,), "another server takes mail of this domain")
            for value in published
            if value != own
        ]
        return found

    async def _check_host(self, record: WantedRecord) -> Sequence[Finding]:
        answer = await self._resolver.addresses(record.name)
        self._addresses = answer.records
        if not answer.records:
            return [Finding(Outcome.MISSING, record)]
        if answer.canonical_name not in {"", record.name}:
            # RFC 2181 10.3, RFC 5321 5.1
            remark = f"a name in an MX record must have addresses itself, not a CNAME to {answer.canonical_name}"
            return [Finding(Outcome.DIFFERS, record, answer.records, remark)]
        if record.values and _address_set(record.values) != _address_set(answer.records):
            return [Finding(Outcome.DIFFERS, record, answer.records)]
        found = [Finding(Outcome.OK, record, answer.records)]
        if not record.values:
            for address in answer.records:
                found += await self._check_pointer(address)
        return found

    async def _check_pointer(self, address: str) -> Sequence[Finding]:
        """For addresses the DNS itself told."""
        hostname = self._wanted.hostname
        record = WantedRecord(
            Purpose.REVERSE, RecordType.PTR, address, (hostname,), Need.RECOMMENDED, "the way back to the name"
        )
        try:
            return await self._check_reverse(record)
        except DnsFailure as failure:
            return [Finding(Outcome.UNKNOWN, record, remark=failure.text)]

    async def _check_reverse(self, record: WantedRecord) -> Sequence[Finding]:
        answer = await self._resolver.pointers(record.name)
        return [_compare(record, answer.records)]

    async def _check_spf(self, record: WantedRecord) -> Sequence[Finding]:
        published = await self._texts(record.name, "v=spf1")
        if not published:
            return [Finding(Outcome.MISSING, record)]
        if len(published) > 1:
            # RFC 7208 4.5
            return [Finding(Outcome.DIFFERS, record, published, "there must be one SPF record")]
        if self._spf_allows_us(published[0]):
            return [Finding(Outcome.OK, record, published)]
        return [Finding(Outcome.DIFFERS, record, published, f"it does not name {self._wanted.hostname} by mx, a or ip")]

    def _spf_allows_us(self, text: str) -> bool:
        hostname = self._wanted.hostname
        ours = [ipaddress.ip_address(address) for address in self._addresses]
        for term in text.lower().split()[1:]:
            mechanism, _, argument = term.removeprefix("+").partition(":")
            if term.startswith(("-", "~", "?")):
                continue
            if mechanism.split("/")[0] == "mx" and argument in {"", self._wanted.domain}:
                return True
            if mechanism == "a" and argument == hostname:
                return True
            if mechanism in {"ip4", "ip6"}:
                try:
                    network = ipaddress.ip_network(argument, strict=False)
                except ValueError:
                    continue
                if any(address in network for address in ours):
                    return True
        return False

    async def _check_dkim(self, record: WantedRecord) -> Sequence[Finding]:
        published = await self._texts(record.name, "")
        if record.need is Need.UNWANTED:
            return [Finding(Outcome.EXTRA, record, published)] if published else []
        if not published:
            return [Finding(Outcome.MISSING, record)]
        wanted = _tags(record.values[0])
        found = _tags(published[0])
        is_same = len(published) == 1 and "".join(found.get("p", "").split()) == wanted["p"]
        is_same = is_same and found.get("k", "rsa") == wanted["k"]
        return [Finding(Outcome.OK if is_same else Outcome.DIFFERS, record, published)]

    async def _check_dmarc(self, record: WantedRecord) -> Sequence[Finding]:
        published = await self._texts(record.name, "v=DMARC1")
        is_valid = len(published) == 1 and _tags(published[0]).get("p") in {"none", "quarantine", "reject"}
        return [_judge(record, published, is_valid)]

    async def _check_tls_rpt(self, record: WantedRecord) -> Sequence[Finding]:
        published = await self._texts(record.name, "v=TLSRPTv1")
        is_valid = len(published) == 1 and _tags(published[0]).get("rua", "").startswith(("mailto:", "https:"))
        return [_judge(record, published, is_valid)]

    async def _check_mta_sts(self, record: WantedRecord) -> Sequence[Finding]:
        # The id is whoever serves the policy's to choose; it only has to be there (RFC 8461 3.1).
        published = await self._texts(record.name, "v=STSv1")
        return [_judge(record, published, len(published) == 1 and _tags(published[0]).get("id", "").isalnum())]

    async def _check_tlsa(self, record: WantedRecord) -> Sequence[Finding]:
        answer = await self._resolver.tlsa(record.name)
        published = tuple(
            f"{tlsa.usage} {tlsa.selector} {tlsa.matching_type} {tlsa.data.hex()}" for tlsa in answer.records
        )
        remark = "" if answer.is_secure or not published else "not validated by DNSSEC, so it does not count"
        if record.values[0] in published:
            return [Finding(Outcome.OK, record, published, remark)]
        if not published:
            return [Finding(Outcome.MISSING, record)]
        return [Finding(Outcome.DIFFERS, record, published, remark)]

    async def _check_srv(self, record: WantedRecord) -> Sequence[Finding]:
        answer = await self._resolver.services(record.name)
        published = tuple(f"{srv.priority} {srv.weight} {srv.port} {srv.host or '.'}" for srv in answer.records)
        # Priority and weight are taste; port and host are not.
        wanted = record.values[0].split()[2:]
        return [_judge(record, published, any(value.split()[2:] == wanted for value in published))]

    async def _check_alias(self, record: WantedRecord) -> Sequence[Finding]:
        """A CNAME to the host, or addresses of its own: a web server may be elsewhere."""
        answer = await self._resolver.addresses(record.name)
        if not answer.records:
            return [Finding(Outcome.MISSING, record)]
        name = answer.canonical_name
        return [Finding(Outcome.OK, record, (name,) if name not in {"", record.name} else answer.records)]

    async def _texts(self, name: str, beginning: str) -> tuple[str, ...]:
        """The TXT records that begin so: with the word alone or before a space or semicolon."""
        answer = await self._resolver.texts(name)
        texts = [octets.decode("utf-8", "replace") for octets in answer.records]
        end = len(beginning)
        return tuple(
            text
            for text in texts
            if not beginning or (text[:end].lower() == beginning.lower() and text[end : end + 1] in {"", " ", ";"})
        )


def _judge(record: WantedRecord, published: tuple[str, ...], is_valid: bool) -> Finding:
    if not published:
        return Finding(Outcome.MISSING, record)
    return Finding(Outcome.OK if is_valid else Outcome.DIFFERS, record, published)


def _compare(record: WantedRecord, published: tuple[str, ...]) -> Finding:
    return _judge(record, published, set(record.values) <= set(published))


def _address_set(values: Sequence[str]) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    return {ipaddress.ip_address(value) for value in values}


def _tags(text: str) -> Mapping[str, str]:
    """A tag list (RFC 6376 3.2), forgivingly."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}
