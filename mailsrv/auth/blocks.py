"""Who is delayed or refused for failed log-ins now, and letting them go on (``mailsrvctl auth``).

Works on the table the workers count in (:mod:`mailsrv.auth.failure_table`); what is forgotten there is forgotten by all
of them at once. A network that is trusted, because somebody logged in from it lately (R-NAT-1), and one that is exempt
are not listed: nothing comes of their failures.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterator

from attrs import frozen

from mailsrv.auth.failure_table import FailureRecord, FailureTable
from mailsrv.auth.shared_failures import ALMOST, SharedFailures, used
from mailsrv.wire.networks import NetworkSet, network_key
from mailsrv.wire.rates import Rate


class BlockEffect(enum.Enum):
    """What happens to log-ins."""

    BLOCKED = "blocked"
    """They fail without a look at the password, unless it was right there lately."""
    DELAYED = "delayed"
    """Answers to failures take longer; a right password is answered at once."""


@frozen
class Block:
    """One account, one network, or one account as seen from one network."""

    effect: BlockEffect
    account: str
    """"" where it is about a network as a whole."""
    network: str
    """"" where it is about an account from anywhere, and for Unix sockets."""
    since: float
    """The first failure of those that count still, in seconds since the epoch."""
    until: float
    """When it ends by itself, if nothing more happens: for a block, when one more attempt is looked at."""
    failures: int
    delay_seconds: float
    """How long the answer to the next failure takes."""

    @property
    def is_whole_network(self) -> bool:
        """Whether everybody from the network is concerned."""
        return not self.account


def list_blocks(failures: SharedFailures, exempt: NetworkSet, now: float) -> list[Block]:
    """All of them: blocks before delays, the longest first."""
    found = [*_accounts(failures, now), *_networks(failures, exempt, now), *_pairs(failures, exempt, now)]
    return sorted(found, key=lambda block: (block.effect is not BlockEffect.BLOCKED, -block.until, block.account))


def count_blocks(failures: SharedFailures, exempt: NetworkSet, now: float) -> tuple[int, int]:
    """How many are blocked and how many delayed."""
    effects = [block.effect for block in list_blocks(failures, exempt, now)]
    blocked = effects.count(BlockEffect.BLOCKED)
    return blocked, len(effects) - blocked


def unblock_account(table: FailureTable, account: str) -> int:
    """Forget its failures from wherever; how many records there were."""

    def is_theirs(record: FailureRecord) -> bool:
        _, _, theirs = record.name.partition(" ")
        return theirs == account or (record.is_cut and account.startswith(theirs))

    forgotten = [slot for slot, record in table.pairs if is_theirs(record)]
    for slot in forgotten:
        table.pairs.forget(slot)
    own = [slot for slot, record in table.accounts if _is(record, account)]
    for slot in own:
        table.accounts.forget(slot)
    return len(forgotten) + len(own)


def unblock_network(table: FailureTable, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> int:
    """Forget all failures from addresses in it; how many records there were."""
    forgotten = 0
    for records in (table.networks, table.pairs):
        for slot, record in records:
            if _is_in(record.name.partition(" ")[0], network):
                records.forget(slot)
                forgotten += 1
    return forgotten


def parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """An address or a network; an IPv6 address stands for its /64, as in the table. None for anything else."""
    try:
        return ipaddress.ip_network(network_key(text), strict=False)
    except ValueError:
        return None


def _is(record: FailureRecord, name: str) -> bool:
    return record.name == name or (record.is_cut and name.startswith(record.name))


def _is_in(key: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    own = parse_network(key)
    if isinstance(own, ipaddress.IPv4Network):
        return isinstance(network, ipaddress.IPv4Network) and own.subnet_of(network)
    if isinstance(own, ipaddress.IPv6Network):
        return isinstance(network, ipaddress.IPv6Network) and own.subnet_of(network)
    return False


def _accounts(failures: SharedFailures, now: float) -> Iterator[Block]:
    for _, record in failures.table.accounts:
        if failures.level(record, now) > 0:
            yield _delayed(failures, record, now, account=record.name)


def _networks(failures: SharedFailures, exempt: NetworkSet, now: float) -> Iterator[Block]:
    for _, record in failures.table.networks:
        if failures.trusts(record, now) or record.name.partition("/")[0] in exempt:
            continue
        if _is_past(record, failures.per_network, now):
            yield _blocked(failures, record, failures.per_network, now, network=record.name)
        elif failures.level(record, now) > 0:
            yield _delayed(failures, record, now, network=record.name)


def _pairs(failures: SharedFailures, exempt: NetworkSet, now: float) -> Iterator[Block]:
    for _, record in failures.table.pairs:
        network, _, account = record.name.partition(" ")
        if _is_past(record, failures.per_pair, now) and network.partition("/")[0] not in exempt:
            yield _blocked(failures, record, failures.per_pair, now, account=account, network=network)


def _is_past(record: FailureRecord, rate: Rate, now: float) -> bool:
    return used(record, rate, now) > rate.burst - ALMOST


def _blocked(
    failures: SharedFailures, record: FailureRecord, rate: Rate, now: float, *, account: str = "", network: str = ""
) -> Block:
    until = now + (used(record, rate, now) - rate.burst + ALMOST) * rate.interval
    delay = failures.delay_of(failures.level(record, now) + 1)
    return Block(BlockEffect.BLOCKED, account, network, record.since, until, record.failures, delay)


def _delayed(
    failures: SharedFailures, record: FailureRecord, now: float, *, account: str = "", network: str = ""
) -> Block:
    until = failures.level_ends(record, now)
    delay = failures.delay_of(failures.level(record, now) + 1)
    return Block(BlockEffect.DELAYED, account, network, record.since, until, record.failures, delay)
