"""From settings to the object graph: the only place that knows every part.

::

    listeners ─ factories ─┬─ portal ─ directory          who is it
                           ├─ receivers ─ resolver,       is it for us, is it wanted
                           │              filters
                           └─ spool ─ journal ─ applier ─ store ─ change bus

:class:`~mailsrv.app.policy.Policy` is the part that SIGHUP replaces as a whole; the rest lives as long as the process.
"""

from __future__ import annotations

import functools
import os
import secrets
import time
from collections.abc import Sequence
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.threadpool import ThreadPool

from mailsrv.address import Address
from mailsrv.app.app_passwords import AppPasswords
from mailsrv.app.control import Start
from mailsrv.app.oauth import Issuers
from mailsrv.app.outbound import make_outbound, postmaster_of
from mailsrv.app.policy import Policy, PolicyParts, make_policy
from mailsrv.app.policy_files import UNUSABLE_FILE, load_policy_files, uses_tls
from mailsrv.app.proxy_listener import ProxyTrust, behind_proxy
from mailsrv.app.server import CannotStart, Drainable, ReloadRefused
from mailsrv.app.sessions import Sessions
from mailsrv.app.settings import ListenSettings, Service
from mailsrv.app.sharing import make_rights_watch
from mailsrv.app.status import StatusParts, WorkerIdentity, WorkerStatus
from mailsrv.app.storage import Storage, open_storage, retry_stuck
from mailsrv.auth.decoy_secret import SECRET_OCTETS, open_decoy_secret
from mailsrv.auth.failure_table import FailureFile, failures_path
from mailsrv.auth.gssapi_threads import TicketThreads
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.config.schema import Settings
from mailsrv.delivery.local_submission import Admission
from mailsrv.delivery.pickup import Pickup, lock_path, spool_path
from mailsrv.delivery.srs_secret import open_rewriting
from mailsrv.delivery.submission_rates import SubmissionRates, rates_path
from mailsrv.directory.passwords.hashing import HashingPool
from mailsrv.errors import MailError
from mailsrv.imap.factory import ImapServerFactory
from mailsrv.pop3.factory import Pop3ServerFactory
from mailsrv.routing.srs import SenderRewriting
from mailsrv.smtp.factory import SmtpServerFactory
from mailsrv.smtp.settings import Service as SmtpService
from mailsrv.tls.contexts import TlsContexts
from mailsrv.wire.connection_limits import ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.shared_table import NoColumn, SharedTable
from mailsrv.wire.tls_mode import TlsMode

_log = Logger()
_NOBODY = Address("nobody", "invalid")

_RELOADED = (
    *("domains", "directories", "log-in", "sessions", "routes", "TLS policies"),
    *("signing keys", "filters", "limits", "protocol settings"),
)
"""What a reload replaces whole, in the words of the log."""

ProtocolFactory = SmtpServerFactory | ImapServerFactory | Pop3ServerFactory


class MailServer:
    """The object graph of one process (:class:`mailsrv.app.server.Server`)."""

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        storage: Storage,
        shared: SharedTable | None = None,
        identity: WorkerIdentity | None = None,
    ) -> None:
        """Reads keys, certificates and filters: waits for the disk. Raises :class:`CannotStart`.

        ``shared``: what workers count together.
        """
        self._settings = settings
        self._reactor = reactor
        self._storage = storage
        self._pool = ThreadPool(0, settings.server.threads, "mailsrv")
        self._run_in_thread: Any = functools.partial(deferToThreadPool, reactor, self._pool)
        self._hashing = HashingPool(settings.passwords, reactor=reactor)
        self._connections = ConnectionTable(settings.limits, reactor.seconds, shared)
        self._submission_rates = SubmissionRates(settings.submission, rates_path(settings.state_dir), reactor.seconds)
        self._failures = FailureFile(failures_path(settings.state_dir), settings.auth.throttle_entries)
        self._throttle = self._make_throttle(settings)
        self._app_passwords = AppPasswords(settings, reactor)
        self._ticket_threads = TicketThreads(reactor, settings.gssapi)
        self._sessions = Sessions(settings, clock=reactor, bus=storage.bus, directory=lambda: self._policy.directory)
        self._rights_watch = make_rights_watch(settings.sharing, storage, lambda: self._policy.mailbox_rights, reactor)
        issuers = Issuers(reactor, lambda: self._outbound.resolver, settings.tls_client.ca_file, self._run_in_thread)
        self._parts = PolicyParts(
            storage,
            self._hashing,
            self._submission_rates,
            reactor,
            self._run_in_thread,
            issuers,
            lambda: self._outbound.resolver,
            self._sessions.registry,
            self._app_passwords.judge,
            self._ticket_threads,
            self._rights_watch,
        )
        try:
            self._tls = TlsContexts(settings.tls) if uses_tls(settings) else None
            self._files = load_policy_files(settings)
            self._policy = policy = make_policy(
                settings,
                self._files,
                self._parts,
                self._throttle,
                None,
                decoy_secret=secrets.token_bytes(SECRET_OCTETS),
            )
            self._outbound = make_outbound(settings, reactor, storage, lambda: self._policy)
        except UNUSABLE_FILE as error:
            raise CannotStart(str(error)) from error
        self._portal = Portal(policy.realm, policy.checkers)
        self._pickup = Pickup(
            settings.sendmail,
            path=spool_path(settings.sendmail, settings.state_dir),
            lock=lock_path(settings.state_dir),
            receiver=policy.receivers[SmtpService.SUBMISSION.value],
            peers=policy.local_peers,
            hostname=settings.hostname,
            postmaster=postmaster_of(settings),
            clock=reactor,
            run_in_thread=self._run_in_thread,
        )
        self._listening = [
            (listen, self._make_factory(listen, index, policy)) for index, listen in enumerate(settings.listen)
        ]

        self._status = WorkerStatus(
            settings.state_dir,
            identity or WorkerIdentity(),
            StatusParts(
                listening=lambda: [(listen.service.value, factory) for listen, factory in self._listening],
                directory=lambda: self._policy.directory,
                domains=lambda: self._policy.supplied_domains,
                journal=storage.journal.status,
                certificate_ends=lambda: None if self._tls is None else self._tls.expires.timestamp(),
                refused_logins=lambda: self._throttle.refused,
                refused_certificates=lambda: 0 if self._tls is None else self._tls.refused_client_certificates,
                accounts=lambda: len(self._sessions.registry),
            ),
            clock=reactor,
            run_in_thread=self._run_in_thread,
            seconds=settings.server.status_seconds,
        )

    @property
    def drainables(self) -> Sequence[Drainable]:
        return [factory for _, factory in self._listening]

    @property
    def factories(self) -> Sequence[IProtocolFactory]:
        return [
            behind_proxy(
                self._wrapped(listen, factory),
                ProxyTrust(NetworkSet(listen.proxy_protocol_from), listen.proxy_protocol_seconds),
                self._reactor,
            )
            for listen, factory in self._listening
        ]

    def _wrapped(self, listen: ListenSettings, factory: ProtocolFactory) -> IProtocolFactory:
        if listen.tls is not TlsMode.IMPLICIT:
            return factory
        context: Any = factory.context_factory
        return TLSMemoryBIOFactory(context, False, factory)

    # Making

    def _make_throttle(self, settings: Settings) -> LoginThrottle:
        return LoginThrottle(
            settings.auth,
            clock=self._reactor,
            exempt_networks=settings.limits.exempt_networks,
            failures=self._failures,
        )

    def _make_factory(self, listen: ListenSettings, index: int, policy: Policy) -> ProtocolFactory:
        context = None
        if self._tls is not None and listen.tls is not TlsMode.NONE:
            # A name of its own: sessions of one listener cannot be resumed at another (R-TLS-3).
            context = self._tls.for_listener(f"{listen.service.value}-{index}", listen.client_certificates)
        common: dict[str, Any] = {
            "hostname": self._settings.hostname,
            "context_factory": context,
            "tls_mode": listen.tls,
            "plaintext_networks": plaintext_networks(self._settings, listen),
            "connections": self._connections,
            "clock": self._reactor,
            "mechanisms": policy.mechanisms,
        }
        if listen.service is Service.IMAP:
            spool = self._storage.journal.spool
            return ImapServerFactory(self._settings.imap, portal=self._portal, spool=spool, **common)
        if listen.service is Service.POP3:
            return Pop3ServerFactory(self._settings.pop3, portal=self._portal, **common)
        service = SmtpService(listen.service.value)
        return SmtpServerFactory(
            self._settings.smtp,
            policy.receivers[service.value],
            service=service,
            portal=self._portal if service is SmtpService.SUBMISSION else None,
            admission=_admission(policy, listen),
            **common,
        )

    # Life

    def start(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        self._pool.start()
        self._hashing.start()
        self._ticket_threads.start()
        self._app_passwords.start()
        self._submission_rates.start()
        self._failures.start()
        await self._storage.start()
        # Only now, as the user we run as: secrets of rewritten senders are made where there are none yet.
        rewriting = await self._run_in_thread(_open_rewriting, self._settings)
        decoy_secret = await self._run_in_thread(open_decoy_secret, self._settings.state_dir)
        policy = make_policy(
            self._settings, self._files, self._parts, self._throttle, rewriting, decoy_secret=decoy_secret
        )
        await policy.supplied_domains.load()
        self._use(policy, self._settings)
        self._sessions.start()
        self._pickup.start()
        self._status.start()

    def begin_sending(self) -> None:
        self._outbound.start()

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._sessions.stop()
        self._rights_watch.stop()
        self._policy.supplied_domains.stop()
        try:
            await self._pickup.stop()
            await self._outbound.stop()
            await self._storage.stop()
        finally:
            self._connections.close()
            self._hashing.stop()
            self._ticket_threads.stop()
            self._app_passwords.stop()
            await self._status.stop()
            if self._pool.started and not self._pool.joined:
                self._pool.stop()

    # Reload

    def reload(self, settings: Settings) -> Deferred[Sequence[str]]:
        return Deferred.fromCoroutine(self._reload(settings))

    async def _reload(self, settings: Settings) -> Sequence[str]:
        """Everything that may be refused comes first; after it nothing can fail."""
        throttle = self._throttle
        try:
            files = await self._run_in_thread(load_policy_files, settings)
            rewriting = await self._run_in_thread(_open_rewriting, settings)
            decoy_secret = await self._run_in_thread(open_decoy_secret, settings.state_dir)
            if self._tls is not None:
                await self._run_in_thread(self._tls.reload, settings.tls)
        except UNUSABLE_FILE as error:
            raise ReloadRefused(str(error)) from error
        if _throttling(settings) != _throttling(self._settings):
            throttle = self._make_throttle(settings)
        self._throttle = throttle
        self._ticket_threads.replace_settings(settings.gssapi)
        self._submission_rates.replace_settings(settings.submission)
        self._app_passwords.judge.replace_settings(settings.auth)
        self._sessions.watch.replace_settings(settings.sessions)
        policy = make_policy(settings, files, self._parts, throttle, rewriting, decoy_secret=decoy_secret)
        # Known before they are used: the old ones know domains, and nobody is to be put off for a reload.
        policy.supplied_domains.take_over(self._policy.supplied_domains)
        await policy.supplied_domains.load()
        await policy.supplied_domains.ask_all()
        self._use(policy, settings)
        self._rights_watch.replace_settings(settings.sharing)
        self._outbound.tls_policies.replace_rules(settings.tls_policy)
        if settings.limits != self._settings.limits:
            # Only then: the rates are counted anew.
            self._connections.replace_settings(settings.limits)
        self._settings = settings
        self._retry_stuck()
        return [*_RELOADED, *self._tls_effect()]

    def _use(self, policy: Policy, settings: Settings) -> None:
        """From now on this decides. Transactions that are under way keep what they have begun with."""
        self._policy.supplied_domains.stop()
        self._policy = policy
        policy.supplied_domains.start()
        # Not waited for: directories that are files are read at the first question, and tell then what can be offered.
        policy.directory.find_user(_NOBODY).addErrback(lambda failure: failure.trap(MailError))
        self._sessions.use(policy.directory, settings)
        # The portal stays, for every session has it; what it consists of is new.
        self._portal.realm = policy.realm
        for checker in policy.checkers:
            self._portal.registerChecker(checker)
        self._pickup.receiver = policy.receivers[SmtpService.SUBMISSION.value]
        self._pickup.peers = policy.local_peers
        for listen, factory in self._listening:
            factory.plaintext_networks = plaintext_networks(settings, listen)
            factory.mechanisms = policy.mechanisms
            if isinstance(factory, SmtpServerFactory):
                factory.receiver = policy.receivers[listen.service.value]
                factory.admission = _admission(policy, listen)
                factory.replace_settings(settings.smtp)
            elif isinstance(factory, ImapServerFactory):
                factory.replace_settings(settings.imap)
            else:
                factory.replace_settings(settings.pop3)

    def _retry_stuck(self) -> None:
        """Mail that was put aside is tried again: a reload is what an administrator does after mending a mailbox."""
        Deferred.fromCoroutine(retry_stuck(self._storage.journal)).addErrback(
            lambda failure: _log.failure("mail that was put aside could not be tried again", failure)
        )

    def _tls_effect(self) -> list[str]:
        return [] if self._tls is None else [f"certificates (the first ends on {self._tls.expires:%Y-%m-%d})"]


def _admission(policy: Policy, listen: ListenSettings) -> Admission | None:
    """Who needs no log-in at a listener."""
    if listen.service is not Service.SUBMISSION:
        return None
    return policy.admission.behind_proxy if listen.proxy_protocol_from else policy.admission


def _open_rewriting(settings: Settings) -> SenderRewriting | None:
    return open_rewriting(settings.delivery, settings.state_dir, time.time())


def _throttling(settings: Settings) -> object:
    """What a throttle is made of; a new one does not know of attempts under way."""
    return settings.auth, settings.limits.exempt_networks


def plaintext_networks(settings: Settings, listen: ListenSettings) -> NetworkSet:
    """Where log-ins without TLS may come from: the listener's own list, or that of ``[auth]``."""
    own = listen.plaintext_networks
    return NetworkSet(settings.auth.plaintext_networks if own is None else own)


def build_server(settings: Settings, reactor: Any) -> MailServer:
    """The server in one process."""
    return MailServer(settings, reactor, open_storage(settings, reactor, secrets.token_bytes(16)))


def build_worker(settings: Settings, reactor: Any, start: Start) -> MailServer:
    """The server in one of several workers."""
    storage = open_storage(settings, reactor, start.run_id, workers=start.workers, seat=start.seat)
    shared = open_shared_table(settings, start.run_id, start.workers) if start.workers > 1 else None
    return MailServer(settings, reactor, storage, shared, WorkerIdentity(start.worker, start.seat))


def open_shared_table(settings: Settings, run_id: bytes, workers: int) -> SharedTable | None:
    """What the workers of a run count together; None, and each counts alone, where the file cannot be had."""
    path = os.path.join(settings.state_dir, "rates", "connections")
    limits = settings.limits
    try:
        return SharedTable.open(
            path,
            run_id,
            buckets=limits.networks_remembered,
            connections=limits.connections_total,
            workers=workers,
        )
    except (OSError, NoColumn) as error:
        _log.error("{path} cannot be used ({error}): workers count connections each for itself", path=path, error=error)
        return None
