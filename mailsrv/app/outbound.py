"""The parts that carry mail onwards: resolver, TLS policies, agents, notices, the runner of the queue.

::

    queue store ─ runner ─┬─ relay agents ─┬─ resolver ─ DNS
                          │                ├─ TLS policies: configured, DANE, MTA-STS
                          │                └─ connections
                          ├─ local agent ──── who is behind an address here
                          └─ notices ──────── journal

What depends on the configuration that a reload replaces (routes, aliases, keys) is asked through ``policy`` each time.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import DeferredList, maybeDeferred

from mailsrv.address import Address, AddressError, parse_domain
from mailsrv.app.storage import Storage
from mailsrv.config.schema import Settings
from mailsrv.delivery.recipients import RecipientPolicy
from mailsrv.delivery.transaction_id import TransactionIds
from mailsrv.dns.resolver import Resolver
from mailsrv.interfaces.journal import LocalDelivery
from mailsrv.interfaces.queue import Destination, ITransportAgent, OnwardRecipient, QueueEntry, Transport
from mailsrv.queue.bounce import Notices
from mailsrv.queue.local_agent import LocalAgent, Resolved
from mailsrv.queue.runner import QueueRunner
from mailsrv.relay.agent import RelayParts, make_relay_parts
from mailsrv.relay.lmtp_agent import LmtpAgent
from mailsrv.relay.mx_agent import MxAgent
from mailsrv.relay.smarthost_agent import SmarthostAgent
from mailsrv.routing.rules import Smarthost, TransportRules
from mailsrv.tls.client import ClientTls
from mailsrv.tls.https import HttpsClient
from mailsrv.tls.mta_sts_policies import StsPolicies
from mailsrv.tls.policy import TlsPolicies


class OutboundPolicy(Protocol):
    """What a reload replaces."""

    @property
    def queued_recipients(self) -> RecipientPolicy:
        """Who is behind the address of queued mail."""

    @property
    def routes(self) -> TransportRules:
        """The transport rules."""


@frozen
class Outbound:
    """Made by :func:`make_outbound`; its parts live as long as the process."""

    runner: QueueRunner
    resolver: Resolver
    agents: tuple[ITransportAgent, ...]

    def start(self) -> None:
        """After the storage."""
        self.runner.startService()

    async def stop(self) -> None:
        """Before the storage: results of attempts under way are still written down."""
        await maybeDeferred(self.runner.stopService)
        await DeferredList([agent.stop() for agent in self.agents], consumeErrors=True)


def make_outbound(settings: Settings, reactor: Any, storage: Storage, policy: Callable[[], OutboundPolicy]) -> Outbound:
    """Reads the trusted certificates: waits for the disk. Raises TlsError. Nothing is sent before ``start``."""
    resolver = Resolver(settings.dns, reactor)
    parts = _make_relay_parts(settings, reactor, storage, resolver)
    ids = TransactionIds(reactor.seconds)
    notices = Notices(
        settings.queue.notices,
        storage.queue,
        hostname=settings.hostname,
        postmaster=_postmaster(settings),
        new_transaction_id=ids.new,
        seconds=reactor.seconds,
    )
    local = LocalAgent(
        storage.queue,
        storage.journal,
        storage.journal.spool,
        notices,
        functools.partial(_resolve, policy),
        seconds=reactor.seconds,
    )
    agents: dict[Transport, ITransportAgent] = {
        Transport.MX: MxAgent(parts),
        Transport.SMTP: SmarthostAgent(parts, _CurrentSmarthosts(policy)),
        Transport.LMTP: LmtpAgent(parts),
        Transport.LOCAL: local,
    }
    runner = QueueRunner(settings.queue, storage.queue, storage.journal, agents, notices, clock=reactor)
    return Outbound(runner, resolver, tuple(agents.values()))


class _CurrentSmarthosts(Mapping[Destination, Smarthost]):
    """Those of the rules as they are now."""

    def __init__(self, policy: Callable[[], OutboundPolicy]) -> None:
        self._policy = policy

    def __getitem__(self, destination: Destination) -> Smarthost:
        return self._policy().routes.smarthosts[destination]

    def __iter__(self) -> Iterator[Destination]:
        return iter(self._policy().routes.smarthosts)

    def __len__(self) -> int:
        return len(self._policy().routes.smarthosts)


def _make_relay_parts(settings: Settings, reactor: Any, storage: Storage, resolver: Resolver) -> RelayParts:
    sts = None
    if settings.mta_sts.enabled:
        https = HttpsClient(reactor, resolver, settings.tls_client.ca_file)
        folder = os.path.join(settings.state_dir, "mta-sts")
        sts = StsPolicies(settings.mta_sts, resolver, https, folder, reactor)
    return make_relay_parts(
        settings.relay,
        settings.hostname,
        resolver=resolver,
        tls_policies=TlsPolicies(settings.tls_policy, resolver, sts),
        client_tls=ClientTls(settings.tls_client),
        open_content=storage.queue.open_content,
        reactor=reactor,
        wall_clock=time.time,
    )


def _postmaster(settings: Settings) -> Address:
    """Who notices are from: postmaster of the first domain, or of the host where there is none."""
    for name in (*(domain.name for domain in settings.domain), settings.hostname):
        try:
            return Address("postmaster", parse_domain(name))
        except AddressError:
            continue
    return Address("postmaster", "")


async def _resolve(policy: Callable[[], OutboundPolicy], address: Address, entry: QueueEntry) -> Resolved:
    """What an address of queued mail stands for now; raises what RCPT would answer."""
    found = await policy().queued_recipients.find(address, entry.reverse_path, may_relay=True)
    return Resolved(
        tuple(LocalDelivery(target.account, recipient=str(address)) for target in found.accounts),
        tuple(OnwardRecipient(target.address, target.destination) for target in found.onward),
    )
