"""The part of the object graph that SIGHUP replaces as a whole: what decides about log-ins and recipients.

Domains, directories, log-in, transport rules, signing keys, filters. Everything else lives as long as the process and
is handed in as :class:`PolicyParts`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from attrs import field, frozen
from twisted.cred.checkers import ICredentialsChecker

from mailsrv.app.local_domains import make_local_domains, make_supplied_domains
from mailsrv.app.mechanisms import make_deciders, offered_under_tls
from mailsrv.app.oauth import Issuers
from mailsrv.app.policy_files import PolicyFiles
from mailsrv.app.storage import Storage
from mailsrv.auth.access import AccessRules
from mailsrv.auth.app_passwords.judge import AppPasswordJudge
from mailsrv.auth.checker import PasswordChecker
from mailsrv.auth.gssapi_threads import TicketThreads
from mailsrv.auth.login_cache import LoginCache
from mailsrv.auth.offer import MechanismOffer
from mailsrv.auth.realm import MailRealm
from mailsrv.auth.sasl_checker import SaslChecker
from mailsrv.auth.sessions import SessionRegistry
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.config.schema import Settings
from mailsrv.coroutines import next_turn
from mailsrv.delivery.local_submission import Admission, LocalPeers
from mailsrv.delivery.queued import QueuedRecipients
from mailsrv.delivery.receiver import MessageReceiver
from mailsrv.delivery.signing import MessageSigner
from mailsrv.delivery.submission_rates import SubmissionRates
from mailsrv.directory.address_rights import AddressRights
from mailsrv.directory.build import make_directory
from mailsrv.directory.mailbox_rights import MailboxRights
from mailsrv.directory.passwords.hashing import HashingPool
from mailsrv.directory.posting import PostingPolicy
from mailsrv.directory.resolve import AddressResolver
from mailsrv.directory.send_as import SendAsPolicy
from mailsrv.directory.supplied_domains import SuppliedDomains
from mailsrv.filters.pipeline import FilterPipeline
from mailsrv.interfaces.delivery import IMessageReceiver
from mailsrv.interfaces.directory import IDirectory
from mailsrv.interfaces.resolver import IResolver
from mailsrv.routing.rules import TransportRules
from mailsrv.routing.srs import SenderRewriting
from mailsrv.sasl import ServerMechanisms
from mailsrv.sharing.rights_watch import RightsWatch
from mailsrv.smtp.settings import Service as SmtpService
from mailsrv.wire.networks import NetworkSet


@frozen(eq=False)
class PolicyParts:
    """What lives longer than a policy."""

    storage: Storage
    hashing: HashingPool
    submission_rates: SubmissionRates
    clock: Any
    run_in_thread: Any
    issuers: Issuers
    """Who tells which tokens are good."""
    resolver: Callable[[], IResolver]
    """Whom to ask the DNS; there is one only when all is built."""
    sessions: SessionRegistry
    """Who is logged in."""
    app_passwords: AppPasswordJudge
    ticket_threads: TicketThreads
    rights_watch: RightsWatch
    """Who may open which mailboxes of others."""


@frozen(eq=False)
class Policy:
    """Made from one reading of the configuration by :func:`make_policy`."""

    realm: MailRealm
    checkers: Sequence[ICredentialsChecker]
    mechanisms: ServerMechanisms
    routes: TransportRules
    signer: MessageSigner
    queued_recipients: QueuedRecipients
    """Who is behind the address of mail in the queue: what we have accepted already may go anywhere."""
    directory: IDirectory
    mailbox_rights: MailboxRights
    supplied_domains: SuppliedDomains
    """Keeps the domains that directories list; loaded and started by who uses the policy."""
    local_peers: LocalPeers
    """Who programs on this machine are when they submit mail."""
    admission: Admission
    receivers: dict[str, IMessageReceiver] = field(repr=False)
    """By the service of a listener."""


def make_policy(
    settings: Settings,
    files: PolicyFiles,
    parts: PolicyParts,
    throttle: LoginThrottle,
    rewriting: SenderRewriting | None,
    *,
    decoy_secret: bytes,
) -> Policy:
    """Does not wait. ``rewriting`` None: forwarded mail keeps its sender."""
    clock = parts.clock
    directory = make_directory(
        settings.directory,
        hashing=parts.hashing,
        clock=clock,
        run_in_thread=parts.run_in_thread,
        default_domain=settings.auth.default_domain,
        tells_groups=asks_for_groups(settings),
        resolver=parts.resolver,
    )
    domains = make_local_domains(settings, directory)
    take_turns = functools.partial(next_turn, clock)
    resolver = AddressResolver(domains, directory, target_limit=settings.delivery.alias_targets, take_turns=take_turns)
    rights = AddressRights(domains, directory, settings.list)
    senders = SendAsPolicy(resolver, rights)
    posting = PostingPolicy(resolver, rights, believes_senders=settings.delivery.believe_list_senders)
    routes = TransportRules(settings.route, domains.all_names)
    supplied = make_supplied_domains(
        settings, domains, directory, routes, clock=clock, run_in_thread=parts.run_in_thread
    )
    auth = settings.auth
    access = AccessRules(settings.access)
    checker = PasswordChecker(
        directory,
        auth,
        clock=clock,
        throttle=throttle,
        access=access,
        cache=LoginCache(clock=clock, seconds=auth.cache_seconds, entries=auth.cache_entries),
        app_passwords=parts.app_passwords,
    )
    offer = MechanismOffer(
        auth,
        directory,
        takes_tokens=bool(settings.oauth),
        app_passwords=parts.app_passwords,
        under_tls=offered_under_tls(settings),
    )
    sasl_checker = SaslChecker(
        directory,
        auth,
        clock=clock,
        throttle=throttle,
        access=access,
        offer=offer,
        decoy_secret=decoy_secret,
        further=make_deciders(
            settings,
            directory,
            clock=clock,
            throttle=throttle,
            access=access,
            tokens=parts.issuers.judge(settings.oauth),
            ticket_threads=parts.ticket_threads,
        ),
    )
    signer = MessageSigner(settings.dkim, files.signing_keys, seconds=clock.seconds, run_in_thread=parts.run_in_thread)
    peers = LocalPeers(settings.sendmail, domain=default_domain(settings), may_send_as=senders.may_send_as)
    pipeline = FilterPipeline(files.filters, clock)
    storage = parts.storage
    receivers = {
        service: MessageReceiver(
            settings.delivery,
            service=service.value,
            hostname=settings.hostname,
            resolver=resolver,
            filters=pipeline,
            spool=storage.journal.spool,
            journal=storage.journal,
            store=storage.store,
            clock=clock,
            router=routes,
            queue=storage.queue,
            rewriting=rewriting,
            signer=signer,
            submission_rates=parts.submission_rates,
            posting=posting,
            run_in_thread=parts.run_in_thread,
        )
        for service in SmtpService
    }
    return Policy(
        realm=MailRealm(
            storage.store,
            senders.may_send_as,
            parts.sessions,
            may_send_on_behalf=senders.may_send_on_behalf,
            open_with_shared=parts.rights_watch.open,
        ),
        checkers=(checker, sasl_checker),
        mechanisms=offer,
        routes=routes,
        signer=signer,
        queued_recipients=QueuedRecipients(receivers[SmtpService.SUBMISSION].policy),
        directory=directory,
        mailbox_rights=MailboxRights(domains, directory, settings.shared, limit=settings.sharing.mailboxes),
        supplied_domains=supplied,
        local_peers=peers,
        admission=Admission(peers, NetworkSet(settings.delivery.relay_networks)),
        receivers={service.value: receiver for service, receiver in receivers.items()},
    )


def asks_for_groups(settings: Settings) -> bool:
    """Whether any rule on log-ins is about groups of users."""
    by_access = any(rule.groups for rule in settings.access)
    return by_access or bool(settings.auth.second_factor_groups)


def default_domain(settings: Settings) -> str:
    """The domain of names without one: ``auth.default_domain``, the first domain, or the host's name."""
    return settings.auth.default_domain or next((domain.name for domain in settings.domain), settings.hostname)
