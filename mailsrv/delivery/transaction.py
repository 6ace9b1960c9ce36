"""One mail transaction, from MAIL to the journal.

The header section is held back until it is complete; then it is decided upon (hops, From, phase
HEADERS), the trace fields go in front, and everything after it streams to the spool with the
spool's back-pressure. A refusal on the way is kept and comes out of ``finish``. Until the journal's
commit begins an ``abort`` leaves nothing behind; after that it comes too late and changes nothing.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Collection, Sequence

from attrs import field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.coroutines import run_coroutine
from mailsrv.delivery.added_fields import RunInThread, copy_with_fields, format_added, with_fields
from mailsrv.delivery.header_section import HeaderHold, check_hops, message_id_of
from mailsrv.delivery.history import TransactionHistory
from mailsrv.delivery.onward import (
    OnwardPlan,
    SenderPolicy,
    check_loops,
    delivered_to_field,
    parameters_of,
    plan_onward,
)
from mailsrv.delivery.quota import Reservations, check_room
from mailsrv.delivery.recipients import Found, OnwardTarget, Recipient, RecipientPolicy, Service
from mailsrv.delivery.settings import DeliverySettings
from mailsrv.delivery.signing import MessageSigner, SigningStream
from mailsrv.delivery.submission import check_from_field
from mailsrv.delivery.submission_rates import SubmissionRates
from mailsrv.delivery.success_notice import format_notice, reported
from mailsrv.directory.resolve import POSTMASTER, LocalRecipient
from mailsrv.errors import MailError, Unavailable
from mailsrv.filters.pipeline import Decision, FilterPipeline
from mailsrv.interfaces.account import IAccount
from mailsrv.interfaces.content import Content, InlineContent, ISpool, ISpoolWriter
from mailsrv.interfaces.delivery import Accepted, IMailTransaction, MailParameters, Refused
from mailsrv.interfaces.envelope import Notify, RecipientParameters
from mailsrv.interfaces.filter import AddHeader, MessageView, Phase, SessionView, TransactionView
from mailsrv.interfaces.journal import Delivery, IJournal, JournaledMessage, JournalRecord, LocalDelivery
from mailsrv.interfaces.mailbox import IMailStore, OverQuota
from mailsrv.interfaces.queue import LOCAL, IQueueStore, OnwardRecipient
from mailsrv.message import Hop, format_received, format_return_path, missing_originator_fields, transmission_type
from mailsrv.status import MAILBOX_FULL, MESSAGE_TOO_LARGE, TOO_MANY_RECIPIENTS

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


@functools.lru_cache(maxsize=256)
def _return_path(reverse_path: Address | None) -> bytes:
    """Much mail of a moment has the same sender."""
    return format_return_path(reverse_path)


class Abandoned(MailError):
    """The session gave the transaction up while it waited; nobody hears this."""

    def __init__(self) -> None:
        super().__init__(Unavailable().status, "Transaction abandoned")


class _State(enum.Enum):
    OPEN = enum.auto()
    FINISHING = enum.auto()
    OVER = enum.auto()
    """Aborted, or handed to the journal."""


@implementer(IMailTransaction)
class MailTransaction:
    """Made by the receiver at MAIL."""

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
        self._state = _State.OPEN
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

    # What filters see and say

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

    async def ask_mail(self) -> None:
        """Phase MAIL; raises the refusal. Only where filters want it."""
        decision = await self._ask(Phase.MAIL)
        self._added += decision.headers
        self._is_discarded = decision.discard

    # RCPT

    def add_recipient(self, forward_path: Address, parameters: RecipientParameters | None = None) -> Deferred[None]:
        known = self._known.get(forward_path)
        if known is not None:
            # LMTP answers once for each RCPT, also where it named the same (RFC 2033 4.2).
            self._recipients.append(known)
            return succeed(None)
        parts = self._parts
        if self._account is None and not parts.asks_rcpt and self._state is _State.OPEN:
            found = parts.policy.find_at_hand(forward_path)
            if found is not None and self._is_plainly_taken(found):
                self._take_recipient(Recipient(forward_path, found.accounts, (), parameters_of(parameters)))
                return succeed(None)
        return run_coroutine(self._add_recipient(forward_path, parameters_of(parameters)))

    def _is_plainly_taken(self, found: Found) -> bool:
        """Whether one user's mail needs no further question: no limit is near, and no room to be looked for."""
        if len(self._accounts) >= self._parts.settings.accounts_per_message:
            return False
        return self._parts.service is Service.LMTP or found.accounts[0].user.quota_octets is None

    async def _add_recipient(self, forward_path: Address, parameters: RecipientParameters) -> None:
        try:
            recipient = await self._checked_recipient(forward_path, parameters)
            self._parts.count_submission(self._account, 1)
        except MailError as error:
            self._history.recipient_refused(forward_path, error)
            raise
        if self._state is not _State.OPEN:
            raise Abandoned
        self._take_recipient(recipient)

    def _take_recipient(self, recipient: Recipient) -> None:
        self._known[recipient.forward_path] = recipient
        self._recipients.append(recipient)
        for local in recipient.targets:
            self._accounts.add(local.user.address)
        if recipient.parameters.notify & Notify.SUCCESS:
            self._wants_notice = True
        if not recipient.onward:
            return
        self._has_onward = True
        for target in recipient.onward:
            self._accounts.add(target.address)
            if target.forwarder is not None:
                self._forwarders.add(target.forwarder)

    async def _checked_recipient(self, forward_path: Address, parameters: RecipientParameters) -> Recipient:
        """Check, then filter: filters are asked only about recipients we would take."""
        parts = self._parts
        found = await parts.policy.find(forward_path, self._reverse_path, may_relay=self._may_relay)
        self._check_number(found)
        targets = found.accounts
        if parts.service is not Service.LMTP and self._parameters.envelope.hold_until is None:
            # SMTP has one reply for all at the end: better to tell a full mailbox apart here.
            for target in targets:
                if target.user.quota_octets is not None:
                    await check_room(parts.store, target, max(1, self._parameters.size or 1))
        if not parts.asks_rcpt:
            return Recipient(forward_path, targets, found.onward, parameters)
        decision = await self._ask(Phase.RCPT, forward_path)
        if decision.discard:
            return Recipient(forward_path, (), (), parameters)
        if decision.redirect is not None:
            found = await parts.policy.find_all(decision.redirect, self._reverse_path, instead_of=forward_path)
        self._added += decision.headers
        is_redirected = decision.redirect is not None
        return Recipient(forward_path, found.accounts, found.onward, parameters, is_redirected)

    def _check_number(self, found: Found) -> None:
        """Raise 4.5.3 where one message would go to too many."""
        settings = self._parts.settings
        limit = settings.accounts_per_message
        if len(self._accounts) + len(found.accounts) + len(found.onward) > limit:
            named = {target.account for target in found.accounts}
            named.update(target.address for target in found.onward)
            if len(self._accounts | named) > limit:
                raise MailError(TOO_MANY_RECIPIENTS, "Too many recipients")
        if found.onward:
            forwarders = {target.forwarder for target in found.onward if target.forwarder is not None}
            if len(self._forwarders | forwarders) > settings.forwarders_per_message:
                raise MailError(TOO_MANY_RECIPIENTS, "Too many forwarding recipients")

    # Content

    def begin_content(self) -> Deferred[None]:
        if not self._is_discarded and any(recipient.is_wanted for recipient in self._recipients):
            error = self._check_acceptance(self._parameters.size or 0)
            if error is not None:
                self._history.log_refusal(error, self._forward_paths())
                return fail(error)
            self._writer = self._parts.spool.begin()
        return succeed(None)

    def _check_acceptance(self, octets: int) -> MailError | None:
        """Why there is no room, in the journal or in the queue."""
        parts = self._parts
        error = parts.journal.check_acceptance(octets)
        if error is None and parts.queue is not None and (self._has_onward or self._is_held):
            waiting = sum(len(recipient.onward) for recipient in self._recipients)
            if self._is_held:
                waiting += len(self._recipients)
            error = parts.queue.check_acceptance(octets, waiting)
        return error

    def _targets(self, without: Collection[Address] = ()) -> Targets:
        """Every account once, with the forward-path it came by first; ``without`` these forward-paths."""
        targets: Targets = {}
        for recipient in self._recipients:
            if without and recipient.forward_path in without:
                continue
            for target in self._targets_of(recipient):
                targets.setdefault(target.account, (target, recipient.forward_path))
        return targets

    def _targets_of(self, recipient: Recipient) -> tuple[LocalRecipient, ...]:
        return recipient.targets if self._redirected is None else self._redirected.accounts

    def _onward_of(self, recipient: Recipient) -> tuple[OnwardTarget, ...]:
        return recipient.onward if self._redirected is None else self._redirected.onward

    @property
    def _wants_content(self) -> bool:
        return self._refusal is None and not self._is_discarded and self._state is not _State.OVER

    def write(self, octets: bytes) -> Deferred[None] | None:
        if self._deciding is not None:
            self._pending.append(octets)
            return self._deciding
        hold = self._hold
        if hold is None:
            return self._spool(octets)
        if not self._wants_content:
            return None
        return self._header_came(hold) if hold.feed(octets) else None

    def _spool(self, octets: bytes) -> Deferred[None] | None:
        if self._writer is None or not self._wants_content:
            return None
        if self._signing is not None:
            self._signing.feed(octets)
        return self._writer.write(octets)

    def _header_came(self, hold: HeaderHold) -> Deferred[None] | None:
        """Decide at once where nobody has to be asked."""
        self._hold = None
        header = hold.header
        self._history.message_id = message_id_of(header)
        if self._wants_notice or self._parts.keeps_header:
            self._given_header = header
        try:
            check_hops(header, self._parts.settings.hop_limit)
            if self._forwarders:
                check_loops(header, self._forwarders)
        except MailError as error:
            self._refusal = error
            return None
        must_check_from = self._account is not None and self._parts.settings.check_from_field
        if must_check_from and hold.is_cut:
            # Behind the limit there could be another From.
            self._refusal = MailError(MESSAGE_TOO_LARGE, "The header section is too large")
            return None
        if not must_check_from and not self._parts.asks_headers:
            return self._start_spooling(header, hold.take())
        self._deciding = deciding = run_coroutine(self._decide(header, hold.take()))
        if deciding.called:
            self._deciding = None
            return None
        return deciding

    async def _decide(self, header: bytes, beginning: bytes) -> None:
        """Never raises: what is wrong comes out of ``finish``."""
        try:
            await self._check_header(header)
            pause = self._start_spooling(header, beginning)
            if pause is not None:
                await pause
            while self._pending:
                pending, self._pending = self._pending, []
                pause = self._spool(b"".join(pending))
                if pause is not None:
                    await pause
        except MailError as error:
            self._refusal = error
        except Exception:
            self._log.failure("Deciding on the header of {transaction_id}", transaction_id=self.transaction_id)
            self._refusal = Unavailable()
        finally:
            self._pending = []
            self._deciding = None

    async def _check_header(self, header: bytes) -> None:
        if self._account is not None and self._parts.settings.check_from_field:
            await check_from_field(self._account, header, self._reverse_path)
        if self._parts.asks_headers:
            await self._take(await self._ask(Phase.HEADERS, message=MessageView(header, len(header))))

    async def _take(self, decision: Decision) -> None:
        """Carry out what filters of a phase with content want, all of it or nothing (R-FILT-1)."""
        if decision.discard:
            self._is_discarded = True
        elif decision.redirect is not None:
            await self._redirect(decision.redirect)
        self._added += decision.headers

    async def _redirect(self, addresses: Sequence[Address]) -> None:
        first = self._recipients[0].forward_path if self._recipients else None
        found = await self._parts.policy.find_all(addresses, self._reverse_path, instead_of=first)
        forwarders = {target.forwarder for target in found.onward if target.forwarder is not None}
        check_loops(self._given_header, forwarders)
        if found.onward and self._parts.queue is not None:
            error = self._parts.queue.check_acceptance(self._parameters.size or 0, len(found.onward))
            if error is not None:
                raise error
        self._redirected = found
        self._has_onward = bool(found.onward)

    def _start_spooling(self, header: bytes, beginning: bytes) -> Deferred[None] | None:
        if not self._wants_content:
            return None
        parts = self._parts
        missing = b""
        if parts.service is Service.SUBMISSION:
            missing = missing_originator_fields(header, parts.hostname, int(parts.clock.seconds()))
            if not self._history.message_id:
                self._history.message_id = message_id_of(missing)
        fields = self._new_fields()
        if parts.asks_message:
            self._header = fields + missing + header
        if beginning[:1] in (b" ", b"\t"):
            # Else the first line of what came would be read as the rest of our last field.
            beginning = b"\r\n" + beginning
        if parts.signer is not None and self._account is not None:
            self._signing = parts.signer.begin_for(header)
            if self._signing is not None:
                self._signing.feed(missing + beginning)
                self._signing.prepend(fields[len(self._return_path) :])
        if self._writer is None:
            return None
        return self._writer.write(fields + missing + beginning)

    def _new_fields(self) -> bytes:
        """The fields in front of a message, from the top (RFC 5321 4.4).

        Return-Path first; then Delivered-To where it is forwarded; then what filters added, above our
        Received so that it can be told from
        what the message brought with it; then Received. What was received stands below as it
        came, older Return-Path fields too: readers take the first.
        """
        session, parts = self._session, self._parts
        seconds = int(parts.clock.seconds())
        tls = f"using {session.tls_version} with {session.tls_cipher or 'unknown cipher'}"
        hop = Hop(
            by=parts.hostname,
            transmission=transmission_type(
                is_lmtp=parts.service is Service.LMTP,
                is_extended=session.is_extended,
                is_encrypted=bool(session.tls_version),
                is_authenticated=self._account is not None,
                is_utf8=self._parameters.is_smtputf8,
            ),
            queue_id=self.transaction_id,
            seconds=seconds,
            helo=session.helo,
            peer_address=session.client_address,
            tls=tls if session.tls_version else "",
            recipient=self._recipients[0].forward_path if len(self._known) == 1 else None,
        )
        self._return_path = _return_path(self._reverse_path)
        mark = b""
        if len(self._known) == 1 and len(self._forwarders) == 1:
            (self._marked,) = self._forwarders
            mark = delivered_to_field(self._marked)
        return self._return_path + mark + format_added(self._added) + format_received(hop)

    # The end of data

    def finish(self) -> Deferred[Sequence[Accepted | Refused]]:
        if self._state is _State.OPEN:
            self._state = _State.FINISHING
        return Deferred.fromCoroutine(self._finish())  # waits for the journal

    async def _finish(self) -> Sequence[Accepted | Refused]:
        try:
            outcomes = await self._deliver()
        except Abandoned:
            self._history.log_abandoned(self._forward_paths())
            raise
        except MailError as error:
            self._abort_writer()
            self._history.log_refusal(error, self._forward_paths())
            raise
        except Exception as error:
            self._abort_writer()
            self._log.failure("Delivering {transaction_id}", transaction_id=self.transaction_id)
            general = Unavailable(cause=type(error).__name__)
            self._history.log_refusal(general, self._forward_paths())
            raise general from error
        finally:
            self._state = _State.OVER
        return outcomes

    async def _deliver(self) -> Sequence[Accepted | Refused]:
        if self._hold is not None and self._wants_content:
            self._hold.end()
            self._header_came(self._hold)
        if self._deciding is not None:
            await self._deciding
        self._check_abandoned()
        if self._refusal is not None:
            raise self._refusal
        writer = self._writer
        if self._is_discarded or writer is None:
            return self._discard()
        self._writer = None
        content = await writer.finish()
        self._history.size_octets = content.size
        if self._parts.asks_message:
            checked = await self._ask_about_message(content)
            if checked is None:
                return self._discard()
            content = checked
        if self._signing is not None:
            content = await self._signed(content, self._signing)
        return await self._reserve_and_commit(content)

    async def _signed(self, content: Content, signing: SigningStream) -> Content:
        """The content with signatures under the Return-Path. Takes ``content`` over."""
        parts = self._parts
        try:
            fields = await signing.finish()
        except BaseException:
            parts.spool.discard(content)
            raise
        content = await with_fields(content, fields, len(self._return_path), parts.spool, parts.run_in_thread)
        self._history.size_octets = content.size
        return content

    def _check_abandoned(self) -> None:
        if self._state is _State.OVER:
            raise Abandoned

    def _discard(self) -> Sequence[Accepted | Refused]:
        self._abort_writer()
        self._history.log("discarded", self._forward_paths())
        return self._accepted()

    def _accepted(self) -> list[Accepted | Refused]:
        return [Accepted(recipient.forward_path, self.transaction_id) for recipient in self._recipients]

    async def _ask_about_message(self, content: Content) -> Content | None:
        """The content with what filters add to it, or None where they discard it. Takes ``content`` over."""
        view = MessageView(
            header=self._header,
            size_octets=content.size,
            octets=content.octets if isinstance(content, InlineContent) else None,
            path="" if isinstance(content, InlineContent) else content.path,
        )
        try:
            decision = await self._ask(Phase.MESSAGE, message=view)
            self._check_abandoned()
            await self._take(decision)
            self._check_abandoned()
        except BaseException:
            self._parts.spool.discard(content)
            raise
        parts = self._parts
        if decision.discard:
            parts.spool.discard(content)
            return None
        if not decision.headers:
            return content
        fields = format_added(decision.headers)
        if self._signing is not None:
            self._signing.prepend(fields)
        content = await with_fields(content, fields, len(self._return_path), parts.spool, parts.run_in_thread)
        self._history.size_octets = content.size
        return content

    async def _reserve_and_commit(self, content: Content) -> Sequence[Accepted | Refused]:
        parts = self._parts
        targets = {} if self._is_held else self._targets()
        reservations = Reservations(parts.store)
        copies: list[Content] = []
        errors: dict[Address, MailError] = {}
        try:
            try:
                await reservations.reserve((target for target, _ in targets.values()), content.size)
                self._check_abandoned()
                if reservations.refused:
                    errors = self._quota_errors(reservations)
                    self._check_all_agree(errors)
                    targets = self._targets(errors)
                plan = self._plan_onward(errors)
                if plan is not None:
                    await self._copy(content, plan, copies)
                    self._check_abandoned()
                record = self._record(content, targets, plan, copies, errors)
            except BaseException:
                self._discard_contents(content, copies)
                raise
            if record is not None:
                self._state = _State.OVER
                await parts.journal.commit(record)
        finally:
            reservations.release()
        return self._outcomes(errors)

    def _discard_contents(self, content: Content, copies: Sequence[Content]) -> None:
        for each in (content, *copies):
            self._parts.spool.discard(each)

    def _plan_onward(self, errors: Collection[Address]) -> OnwardPlan | None:
        """What the queue gets; None for nothing, as nearly always at an MX."""
        is_held = self._is_held
        if not is_held and not self._has_onward:
            return None
        recipients = [recipient for recipient in self._known.values() if recipient.forward_path not in errors]
        onward = [(recipient, self._onward_of(recipient)) for recipient in recipients if self._onward_of(recipient)]
        parts = self._parts
        return plan_onward(
            onward,
            held=[(recipient, self._held_addresses(recipient)) for recipient in recipients] if is_held else (),
            sender=self._reverse_path,
            parameters=self._parameters.envelope,
            account=str(self._account.address) if self._account is not None else "",
            marked=self._marked,
            policy=parts.senders,
            now=parts.clock.seconds(),
        )

    def _held_addresses(self, recipient: Recipient) -> Sequence[Address]:
        """Under which addresses it waits for a recipient here: resolved at its time, but nothing is led out twice."""
        targets = self._targets_of(recipient)
        if targets and not recipient.is_redirected and self._redirected is None and not recipient.onward:
            return (recipient.forward_path,)
        return [target.account for target in targets]

    async def _copy(self, content: Content, plan: OnwardPlan, copies: list[Content]) -> None:
        """Make the copies of a plan, into ``copies`` one by one: where it fails the caller lets go of those made."""
        parts = self._parts
        for copy in plan.copies:
            mark = delivered_to_field(copy.forwarder)
            copies.append(
                await copy_with_fields(content, mark, len(self._return_path), parts.spool, parts.run_in_thread)
            )

    def _quota_errors(self, reservations: Reservations) -> dict[Address, MailError]:
        """By forward-path, those that cannot have the message."""
        errors = {}
        for recipient in self._recipients:
            error = reservations.error_for(self._targets_of(recipient))
            if error is not None:
                errors[recipient.forward_path] = error
        return errors

    def _check_all_agree(self, errors: dict[Address, MailError]) -> None:
        """Raise where one reply has to do for all recipients, and some cannot have the message."""
        if self._parts.service is Service.LMTP:
            return
        first = next(iter(errors.values()))
        if len(errors) == len(self._known):
            raise first
        # Taking it for some and saying 552 would bounce mail that was delivered; saying 250 would
        # lose it for the others. So the peer is to try again, and hears more at RCPT.
        is_full = any(isinstance(error, OverQuota) for error in errors.values())
        status = MAILBOX_FULL if is_full else first.status
        raise MailError(status.as_temporary(), "Some recipients cannot take the message now", cause=str(first))

    def _record(
        self,
        content: Content,
        targets: Targets,
        plan: OnwardPlan | None,
        copies: Sequence[Content],
        errors: Collection[Address],
    ) -> JournalRecord | None:
        """Everything that comes of the transaction; None, and the content is let go, where that is nothing."""
        now = int(self._parts.clock.seconds())
        deliveries: tuple[Delivery, ...] = tuple(
            LocalDelivery(target.account, recipient=str(path)) for target, path in targets.values()
        )
        messages: list[JournaledMessage] = []
        if plan is not None:
            deliveries += plan.direct
            messages = [
                JournaledMessage(copied, copy.deliveries, now) for copy, copied in zip(plan.copies, copies, strict=True)
            ]
        if deliveries:
            messages.insert(0, JournaledMessage(content, deliveries, now))
        else:
            self._parts.spool.discard(content)
        if not messages:
            return None
        if self._wants_notice:
            notice = self._notice(errors, now)
            if notice is not None:
                messages.append(notice)
        reverse_path = str(self._reverse_path) if self._reverse_path else ""
        return JournalRecord(tuple(messages), self.transaction_id, reverse_path)

    def _notice(self, errors: Collection[Address], now: int) -> JournaledMessage | None:
        """The notice of success that is due here, if any."""
        parts, sender = self._parts, self._reverse_path
        if sender is None or parts.queue is None or self._is_held:
            return None
        told = reported(recipient for recipient in self._known.values() if recipient.forward_path not in errors)
        if not told:
            return None
        names = parts.senders.domains.names
        return format_notice(
            told,
            # Resolved when its turn comes: the way of a notice may be ours, or elsewhere.
            to=OnwardRecipient(sender, LOCAL),
            author=Address(POSTMASTER, names[0] if names else parts.hostname),
            hostname=parts.hostname,
            transaction_id=self.transaction_id,
            header=self._given_header,
            parameters=self._parameters.envelope,
            now=now,
        )

    def _outcomes(self, errors: dict[Address, MailError]) -> Sequence[Accepted | Refused]:
        if not errors:
            self._history.log("accepted", self._known)
            return self._accepted()
        outcomes: list[Accepted | Refused] = []
        for recipient in self._recipients:
            error = errors.get(recipient.forward_path)
            if error is None:
                outcomes.append(Accepted(recipient.forward_path, self.transaction_id))
            else:
                self._history.recipient_refused(recipient.forward_path, error)
                outcomes.append(Refused(recipient.forward_path, error))
        accepted = [path for path in self._known if path not in errors]
        self._history.log("accepted" if accepted else "refused", accepted)
        return outcomes

    def _abort_writer(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.abort()

    def abort(self) -> None:
        was_finishing = self._state is _State.FINISHING
        if self._state is _State.OVER:
            return
        self._state = _State.OVER
        self._pending = []
        self._abort_writer()
        if not was_finishing:
            self._history.log_abandoned(self._forward_paths())
