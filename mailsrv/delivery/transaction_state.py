"""What the parts of a mail transaction share: its state, what all transactions of a listener work with, its views."""

from __future__ import annotations

import enum
from collections.abc import Collection

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsrv.address import Address
from mailsrv.coroutines import next_turn
from mailsrv.delivery.added_fields import RunInThread
from mailsrv.delivery.header_section import HeaderHold
from mailsrv.delivery.history import TransactionHistory
from mailsrv.delivery.onward import (
    SenderPolicy,
)
from mailsrv.delivery.quota import TARGETS_IN_ONE_GO
from mailsrv.delivery.recipients import Found, OnwardTarget, Recipient, RecipientPolicy, Service
from mailsrv.delivery.settings import DeliverySettings
from mailsrv.delivery.signing import MessageSigner, SigningStream
from mailsrv.delivery.submission_rates import SubmissionRates
from mailsrv.directory.posting import PostingPolicy
from mailsrv.directory.resolution import LocalRecipient
from mailsrv.errors import MailError, Unavailable
from mailsrv.filters.pipeline import Decision, FilterPipeline
from mailsrv.interfaces.account import IAccount
from mailsrv.interfaces.content import ISpool, ISpoolWriter
from mailsrv.interfaces.delivery import MailParameters
from mailsrv.interfaces.filter import AddHeader, MessageView, Phase, SessionView, TransactionView
from mailsrv.interfaces.journal import IJournal
from mailsrv.interfaces.mailbox import IMailStore
from mailsrv.interfaces.queue import IQueueStore

Targets = dict[Address, tuple[LocalRecipient, Address]]
"""By account."""


@frozen
class DeliveryParts:
    """What all transactions of a listener work with."""

    settings: DeliverySettings
    service: Service
    hostname: str
    policy: RecipientPolicy
    filters: FilterPipeline
    spool: ISpool
    journal: IJournal
    store: IMailStore
    clock: IReactorTime
    run_in_thread: RunInThread
    senders: SenderPolicy
    queue: IQueueStore | None = None
    """Without it nothing leaves here."""
    signer: MessageSigner | None = None
    submission_rates: SubmissionRates | None = None
    posting: PostingPolicy | None = None
    """Who may send to lists; None: everybody."""

    def count_submission(self, account: IAccount | None, recipients: int) -> None:
        """Count a message of a user, or recipients; raises the refusal of who sends too many."""
        if self.submission_rates is not None and account is not None:
            error = self.submission_rates.check(account.address, recipients)
            if error is not None:
                raise error

    # What the filters want, asked once: several questions a message otherwise.
    asks_rcpt: bool = field(init=False)
    asks_headers: bool = field(init=False)
    asks_message: bool = field(init=False)

    @asks_rcpt.default
    def _asks_rcpt(self) -> bool:
        return self.filters.wants(Phase.RCPT)

    @asks_headers.default
    def _asks_headers(self) -> bool:
        return self.filters.wants(Phase.HEADERS)

    @asks_message.default
    def _asks_message(self) -> bool:
        return self.filters.wants(Phase.MESSAGE)

    @property
    def keeps_header(self) -> bool:
        """A redirection may make a forward of it, which must not loop."""
        return self.asks_headers or self.asks_message


class Abandoned(MailError):
    """The session gave the transaction up while it waited; nobody hears this."""

    def __init__(self) -> None:
        super().__init__(Unavailable().status, "Transaction abandoned")


class State(enum.Enum):
    """Of a transaction."""

    OPEN = enum.auto()
    FINISHING = enum.auto()
    OVER = enum.auto()
    """Aborted, or handed to the journal."""


class TransactionState:
    """The base of :class:`~mailsrv.delivery.transaction.MailTransaction`. Asks filters; writes nothing."""

    _log = Logger()

    def __init__(
        self,
        parts: DeliveryParts,
        history: TransactionHistory,
        parameters: MailParameters,
        account: IAccount | None,
        *,
        may_relay: bool = False,
    ) -> None:
        self.transaction_id = history.transaction_id
        self._parts = parts
        self._history = history
        self._session: SessionView = history.session
        self._reverse_path = history.reverse_path
        self._parameters = parameters
        self._account = account
        self._may_relay = may_relay
        until = parameters.envelope.hold_until
        self._is_held = until is not None and parts.queue is not None and until > parts.clock.seconds()
        """It waits in the queue, also for recipients here (RFC 4865). Settled once: the time goes on."""
        self._state = State.OPEN
        self._recipients: list[Recipient] = []
        self._known: dict[Address, Recipient] = {}
        self._accounts: set[Address] = set()
        """Those and the addresses elsewhere it goes to so far: as many as a record may have."""
        self._forwarders: set[Address] = set()
        self._has_onward = False
        self._wants_notice = False
        self._redirected: Found | None = None
        self._added: tuple[AddHeader, ...] = ()
        self._is_discarded = False
        self._adds_sender = False
        """It is From somebody the user writes for, and does not say who wrote it."""
        self._refusal: MailError | None = None
        self._hold: HeaderHold | None = HeaderHold(parts.settings.header_limit_octets)
        self._deciding: Deferred[None] | None = None
        self._pending: list[bytes] = []
        """Came while the header section is decided upon."""
        self._writer: ISpoolWriter | None = None
        self._header = b""
        """With the fields added, kept for phase MESSAGE."""
        self._return_path = b""
        self._marked: Address | None = None
        """Whose Delivered-To stands in the message."""
        self._given_header = b""
        """As it came, kept where a notice will bring it back, or a redirection might forward it."""
        self._signing: SigningStream | None = None

    def _view(self, recipient: Address | None = None) -> TransactionView:
        parameters = self._parameters
        return TransactionView(
            transaction_id=self.transaction_id,
            reverse_path=self._reverse_path,
            recipients=self._forward_paths(),
            recipient=recipient,
            is_smtputf8=parameters.is_smtputf8,
            is_8bit=parameters.is_8bit,
            size_declared=parameters.size,
        )

    def _forward_paths(self) -> tuple[Address, ...]:
        return tuple(recipient.forward_path for recipient in self._recipients)

    async def _ask(
        self, phase: Phase, recipient: Address | None = None, message: MessageView | None = None
    ) -> Decision:
        """What the filters say; raises their refusal."""
        decision = await self._parts.filters.ask(phase, self._session, self._view(recipient), message)
        self._history.filters_said(decision.notes)
        if decision.refusal is not None:
            raise decision.refusal
        return decision

    async def _targets(self, without: Collection[Address] = ()) -> Targets:
        """Every account once, with the forward-path it came by first; ``without`` these forward-paths.

        Others have their turn between the parts of a long list. Raises Abandoned.
        """
        targets: Targets = {}
        for recipient in self._recipients:
            if without and recipient.forward_path in without:
                continue
            for number, target in enumerate(self._targets_of(recipient), 1):
                if number % TARGETS_IN_ONE_GO == 0:
                    await next_turn(self._parts.clock)
                    self._check_abandoned()
                targets.setdefault(target.account, (target, recipient.forward_path))
        return targets

    def _targets_of(self, recipient: Recipient) -> tuple[LocalRecipient, ...]:
        return recipient.targets if self._redirected is None else self._redirected.accounts

    def _onward_of(self, recipient: Recipient) -> tuple[OnwardTarget, ...]:
        return recipient.onward if self._redirected is None else self._redirected.onward

    def _check_abandoned(self) -> None:
        if self._state is State.OVER:
            raise Abandoned

    def _abort_writer(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.abort()
