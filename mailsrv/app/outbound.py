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

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred

from mailsrv.address import Address, AddressError, parse_domain, parse_mailbox
from mailsrv.app.storage import Storage
from mailsrv.config.schema import Settings
from mailsrv.coroutines import run_coroutine
from mailsrv.delivery.queued import QueuedRecipients
from mailsrv.delivery.signing import MessageSigner
from mailsrv.delivery.transaction_id import TransactionIds
from mailsrv.directory.supplied_domains import SuppliedDomains
from mailsrv.dns.resolver import Resolver
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.journal import JournaledMessage, JournalRecord
from mailsrv.interfaces.queue import (
    LOCAL,
    Destination,
    ITransportAgent,
    OnwardDelivery,
    OnwardRecipient,
    QueueEntry,
    Transport,
)
from mailsrv.message import format_return_path
from mailsrv.queue.bounce import Notices
from mailsrv.queue.homeward import HomewardAgent
from mailsrv.queue.local_agent import LocalAgent, Resolved
from mailsrv.queue.renewal import LeaseRenewal
from mailsrv.queue.runner import QueueRunner
from mailsrv.queue.shared_downs import SharedDowns
from mailsrv.relay.agent import make_relay_parts
from mailsrv.relay.lmtp_agent import LmtpAgent
from mailsrv.relay.mx_agent import MxAgent
from mailsrv.relay.smarthost_agent import SmarthostAgent
from mailsrv.routing.rules import Smarthost, TransportRules
from mailsrv.tls.client import ClientTls
from mailsrv.tls.https import HttpsClient
from mailsrv.tls.mta_sts_policies import StsPolicies
from mailsrv.tls.policy import TlsPolicies
from mailsrv.tls.report_sender import TlsReports


class OutboundPolicy(Protocol):
    """What a reload replaces."""

    @property
    def queued_recipients(self) -> QueuedRecipients:
        """Who is behind the address of queued mail."""

    @property
    def signer(self) -> MessageSigner:
        """Signs what this server itself writes."""

    @property
    def routes(self) -> TransportRules:
        """The transport rules."""

    @property
    def supplied_domains(self) -> SuppliedDomains:
        """The domains that directories list."""


@frozen
class Outbound:
    """Made by :func:`make_outbound`; its parts live as long as the process."""

    runner: QueueRunner
    renewal: LeaseRenewal
    resolver: Resolver
    agents: tuple[ITransportAgent, ...]
    tls_policies: TlsPolicies
    reports: TlsReports | None
    downs: SharedDowns | None = None

    def start(self) -> None:
        """After the storage. May wait for the disk, a moment."""
        if self.downs is not None:
            self.downs.open()
        if self.reports is not None:
            self.reports.start()
        self.runner.startService()
        self.renewal.start()

    async def stop(self) -> None:
        """Before the storage: results of attempts under way are still written down."""
        await maybeDeferred(self.runner.stopService)
        self.renewal.stop()
        await DeferredList([agent.stop() for agent in self.agents], consumeErrors=True)
        if self.reports is not None:
            await self.reports.stop()


def make_outbound(settings: Settings, reactor: Any, storage: Storage, policy: Callable[[], OutboundPolicy]) -> Outbound:
    """Reads the trusted certificates: waits for the disk. Raises TlsError. Nothing is sent before ``start``."""
    resolver = Resolver(settings.dns, reactor)
    ids = TransactionIds(reactor.seconds)
    own_mail = OwnMail(settings, storage, policy, ids, reactor.seconds)
    policies, reports = _make_tls_policies(settings, reactor, resolver, own_mail)

    async def sign(octets: bytes) -> bytes:
        # Asked for each time: a reload may bring other keys.
        return await policy().signer.sign(octets)

    parts = make_relay_parts(
        settings.relay,
        settings.hostname,
        resolver=resolver,
        tls_policies=policies,
        client_tls=ClientTls(settings.tls_client),
        open_content=storage.queue.open_content,
        reactor=reactor,
        wall_clock=time.time,
        sign=sign,
    )
    notices = Notices(
        settings.queue.notices,
        storage.queue,
        hostname=settings.hostname,
        postmaster=postmaster_of(settings),
        new_transaction_id=ids.new,
        seconds=reactor.seconds,
        sign=sign,
    )

    async def resolve(address: Address, entry: QueueEntry) -> Resolved:
        return await policy().queued_recipients.resolve(address, entry)

    local = LocalAgent(
        storage.queue,
        storage.journal,
        storage.journal.spool,
        notices,
        resolve,
        seconds=reactor.seconds,
    )
    agents: dict[Transport, ITransportAgent] = {
        Transport.MX: _make_mx_agent(MxAgent(parts), local, policy),
        Transport.SMTP: SmarthostAgent(parts, _CurrentSmarthosts(policy)),
        Transport.LMTP: LmtpAgent(parts),
        Transport.LOCAL: local,
    }
    runner = QueueRunner(
        settings.queue, storage.queue, storage.journal, agents, notices, clock=reactor, downs=storage.downs
    )
    renewal = LeaseRenewal(storage.queue, reactor, runner.in_hand, lease_seconds=settings.queue.storage.lease_seconds)
    return Outbound(runner, renewal, resolver, tuple(agents.values()), policies, reports, storage.downs)


def _make_mx_agent(
    onward: ITransportAgent, local: ITransportAgent, policy: Callable[[], OutboundPolicy]
) -> ITransportAgent:
    """To the hosts of a domain, unless it is ours by the rules and domains as they are now."""

    def is_ours(domain: str) -> bool:
        return policy().routes.is_local(domain)

    def stays_here(sender: Address | None, recipient: Address) -> bool:
        return not policy().routes.find(sender, recipient).is_onward

    def may_be_ours(since: float) -> bool:
        return policy().supplied_domains.may_have_changed_since(since)

    return HomewardAgent(onward, local, is_ours=is_ours, stays_here=stays_here, may_be_ours=may_be_ours)


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


def _make_tls_policies(
    settings: Settings, reactor: Any, resolver: Resolver, own_mail: OwnMail
) -> tuple[TlsPolicies, TlsReports | None]:
    https = sts = reports = None
    if settings.mta_sts.enabled or settings.tls_reports.enabled:
        https = HttpsClient(reactor, resolver, settings.tls_client.ca_file)
    if https is not None and settings.mta_sts.enabled:
        folder = os.path.join(settings.state_dir, "mta-sts")
        sts = StsPolicies(settings.mta_sts, resolver, https, folder, reactor)
    if https is not None and settings.tls_reports.enabled:
        reports = TlsReports(
            settings.tls_reports,
            os.path.join(settings.state_dir, "tls-reports"),
            resolver,
            https,
            reactor,
            send_mail=own_mail.send_report,
            policy_strings=sts.lines_for if sts is not None else (lambda domain: ()),
        )
    return TlsPolicies(settings.tls_policy, resolver, sts, None if reports is None else reports.count), reports


class OwnMail:
    """Mail that this server writes itself and that is no notice: signed, journaled, queued."""

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        policy: Callable[[], OutboundPolicy],
        ids: TransactionIds,
        seconds: Callable[[], float],
    ) -> None:
        self._contact = settings.tls_reports.contact
        self._journal = storage.journal
        self._policy = policy
        self._ids = ids
        self._seconds = seconds

    def send_report(self, recipient: Address, content: bytes) -> Deferred[None]:
        """Queue a TLS report; fires when it is durable."""
        return run_coroutine(self._send(parse_mailbox(self._contact), recipient, content))

    async def _send(self, sender: Address, recipient: Address, content: bytes) -> None:
        signed = await self._policy().signer.sign(content)
        octets = format_return_path(sender) + signed
        delivery = OnwardDelivery(sender, (OnwardRecipient(recipient, LOCAL),))
        message = JournaledMessage(InlineContent(octets), (delivery,), int(self._seconds()))
        await self._journal.commit(JournalRecord((message,), self._ids.new(), str(sender)))


def postmaster_of(settings: Settings) -> Address:
    """Who notices are from: postmaster of the first domain, else of the default one, or of the host."""
    for name in (*(domain.name for domain in settings.domain), settings.auth.default_domain, settings.hostname):
        try:
            return Address("postmaster", parse_domain(name))
        except AddressError:
            continue
    return Address("postmaster", "")
