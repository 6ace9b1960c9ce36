"""The other side of one listener's SMTP or LMTP sessions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.coroutines import next_turn, run_coroutine
from mailsrv.delivery.added_fields import RunInThread
from mailsrv.delivery.history import TransactionHistory
from mailsrv.delivery.onward import SenderPolicy
from mailsrv.delivery.recipients import RecipientPolicy, Service
from mailsrv.delivery.settings import DeliverySettings
from mailsrv.delivery.signing import MessageSigner
from mailsrv.delivery.submission import check_reverse_path
from mailsrv.delivery.submission_rates import SubmissionRates
from mailsrv.delivery.transaction import MailTransaction
from mailsrv.delivery.transaction_id import TransactionIds
from mailsrv.delivery.transaction_state import DeliveryParts
from mailsrv.directory.posting import PostingPolicy
from mailsrv.directory.resolve import AddressResolver
from mailsrv.errors import MailError
from mailsrv.filters.pipeline import FilterPipeline
from mailsrv.interfaces.account import IAccount
from mailsrv.interfaces.content import ISpool
from mailsrv.interfaces.delivery import IMailTransaction, IMessageReceiver, MailParameters
from mailsrv.interfaces.filter import Phase, SessionView
from mailsrv.interfaces.journal import IJournal
from mailsrv.interfaces.mailbox import IMailStore
from mailsrv.interfaces.queue import IQueueStore
from mailsrv.routing.rules import TransportRules
from mailsrv.routing.srs import SenderRewriting
from mailsrv.status import AUTHENTICATION_REQUIRED, BAD_ARGUMENTS
from mailsrv.wire.networks import NetworkSet


@implementer(IMessageReceiver)
class MessageReceiver:
    """Keeps no state of a session. ``service`` is ``mx``, ``submission`` or ``lmtp`` (else ValueError).

    Mail leaves here only with both ``router`` and ``queue``: else recipients elsewhere are refused.
    """

    _log = Logger()

    def __init__(
        self,
        settings: DeliverySettings,
        *,
        service: str,
        hostname: str,
        resolver: AddressResolver,
        filters: FilterPipeline,
        spool: ISpool,
        journal: IJournal,
        store: IMailStore,
        clock: IReactorTime,
        router: TransportRules | None = None,
        queue: IQueueStore | None = None,
        rewriting: SenderRewriting | None = None,
        signer: MessageSigner | None = None,
        submission_rates: SubmissionRates | None = None,
        posting: PostingPolicy | None = None,
        run_in_thread: RunInThread = deferToThread,
    ) -> None:
        """``rewriting`` of :func:`~mailsrv.delivery.srs_secret.open_rewriting`; None: forwards keep their sender.

        ``run_in_thread`` reads large messages again that get a field in front.
        """
        kind = Service(service)
        way_out = router if queue is not None else None
        self._relay_networks = NetworkSet(settings.relay_networks if kind is not Service.LMTP else ())
        self._ids = TransactionIds(clock.seconds)
        self._parts = DeliveryParts(
            settings=settings,
            service=kind,
            hostname=hostname,
            policy=RecipientPolicy(
                kind,
                resolver,
                way_out,
                rewriting=rewriting,
                seconds=clock.seconds,
                take_turns=partial(next_turn, clock),
            ),
            filters=filters,
            spool=spool,
            journal=journal,
            store=store,
            clock=clock,
            run_in_thread=run_in_thread,
            senders=SenderPolicy(resolver.domains, rewriting if settings.srs else None, settings.srs_domain),
            queue=queue,
            signer=signer,
            submission_rates=submission_rates,
            posting=posting,
        )

    @property
    def policy(self) -> RecipientPolicy:
        """Who is a recipient here; for :class:`~mailsrv.delivery.queued.QueuedRecipients` too."""
        return self._parts.policy

    def connected(self, session: SessionView) -> Deferred[None]:
        return self._ask(Phase.CONNECT, session)

    def greeted(self, session: SessionView) -> Deferred[None]:
        return self._ask(Phase.HELO, session)

    def _ask(self, phase: Phase, session: SessionView) -> Deferred[None]:
        if not self._parts.filters.wants(phase):
            return succeed(None)
        return run_coroutine(self._ask_filters(phase, session))

    async def _ask_filters(self, phase: Phase, session: SessionView) -> None:
        decision = await self._parts.filters.ask(phase, session)
        if decision.refusal is not None:
            self._log.info(
                "{service} {connection_id} refused at {phase}: client {helo} [{client_address}], "
                "reason {reason}, filters {verdicts}",
                service=session.service,
                connection_id=session.connection_id,
                phase=phase.value,
                helo=session.helo,
                client_address=session.client_address,
                reason=str(decision.refusal),
                verdicts=[str(note) for note in decision.notes],
            )
            raise decision.refusal

    def begin(
        self,
        session: SessionView,
        reverse_path: Address | None,
        parameters: MailParameters,
        account: IAccount | None,
    ) -> Deferred[IMailTransaction]:
        history = TransactionHistory(self._ids.new(), session, reverse_path)
        parts = self._parts
        may_relay = bool(self._relay_networks) and session.client_address in self._relay_networks
        if parts.service is not Service.SUBMISSION:
            account = None
        elif account is not None:
            may_relay = True
        elif not may_relay:
            error = MailError(AUTHENTICATION_REQUIRED, "Authentication required")
            history.log_refusal(error, ())
            return fail(error)
        if parameters.envelope.hold_until is not None and parts.queue is None:
            error = MailError(BAD_ARGUMENTS, "Mail is not held back here")
            history.log_refusal(error, ())
            return fail(error)
        transaction = MailTransaction(parts, history, parameters, account, may_relay=may_relay)
        if account is None and not parts.filters.wants(Phase.MAIL):
            return succeed(transaction)
        return run_coroutine(self._begin(transaction, history, account))

    async def _begin(
        self, transaction: MailTransaction, history: TransactionHistory, account: IAccount | None
    ) -> IMailTransaction:
        try:
            if account is not None:
                await check_reverse_path(account, history.reverse_path)
                self._parts.count_submission(account, 0)
            if self._parts.filters.wants(Phase.MAIL):
                await transaction.ask_mail()
        except MailError as error:
            history.log_refusal(error, ())
            raise
        return transaction

    def verify(self, session: SessionView, address: Address, account: IAccount | None) -> Deferred[Sequence[Address]]:
        return run_coroutine(self._parts.policy.stands_for(address))
