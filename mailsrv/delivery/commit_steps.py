"""The end of a transaction: room in the accounts, one journal record with everything that comes of it, the answers.

Local deliveries, what the queue gets, copies for forwards and a notice of success are one record: all or nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mailsrv.address import Address
from mailsrv.coroutines import next_turn
from mailsrv.delivery.added_fields import copy_with_fields
from mailsrv.delivery.onward import (
    OnwardPlan,
    delivered_to_field,
    plan_onward,
)
from mailsrv.delivery.quota import TARGETS_IN_ONE_GO, Reservations
from mailsrv.delivery.recipients import Recipient, Service
from mailsrv.delivery.success_notice import format_notice, reported
from mailsrv.delivery.transaction_state import State, Targets, TransactionState
from mailsrv.directory.resolve import POSTMASTER
from mailsrv.errors import MailError
from mailsrv.interfaces.content import Content
from mailsrv.interfaces.delivery import Accepted, Refused
from mailsrv.interfaces.journal import Delivery, JournaledMessage, JournalRecord, LocalDelivery
from mailsrv.interfaces.mailbox import OverQuota
from mailsrv.interfaces.queue import LOCAL, OnwardRecipient
from mailsrv.status import MAILBOX_FULL


class CommitSteps(TransactionState):
    """The part of a transaction that makes it durable."""

    async def _reserve_and_commit(self, content: Content) -> Sequence[Accepted | Refused]:
        parts = self._parts
        reservations = Reservations(parts.store, parts.clock)
        copies: list[Content] = []
        errors: dict[Address, MailError] = {}
        try:
            try:
                targets = {} if self._is_held else await self._targets()
                await reservations.reserve((target for target, _ in targets.values()), content.size)
                self._check_abandoned()
                if reservations.refused:
                    errors = self._quota_errors(reservations)
                    self._check_all_agree(errors)
                    targets = await self._targets(errors)
                if self._planned_targets() > TARGETS_IN_ONE_GO:
                    plan = await parts.run_in_thread(lambda: self._plan_onward(errors))
                    self._check_abandoned()
                else:
                    plan = self._plan_onward(errors)
                if plan is not None:
                    await self._copy(content, plan, copies)
                    self._check_abandoned()
                now = int(parts.clock.seconds())
                notice = None
                if self._wants_notice:
                    notice = await self._notice(errors, now)
                    self._check_abandoned()
                local = await self._local_deliveries(targets)
                self._check_abandoned()
                # Thousands take a moment to go: not in the step that answers.
                del targets
                record = self._record(content, local, plan, copies, notice=notice, now=now)
            except BaseException:
                self._discard_contents(content, copies)
                raise
            if record is not None:
                self._state = State.OVER
                await parts.journal.commit(record)
        finally:
            reservations.release()
        return self._outcomes(errors)

    def _discard_contents(self, content: Content, copies: Sequence[Content]) -> None:
        for each in (content, *copies):
            self._parts.spool.discard(each)

    def _planned_targets(self) -> int:
        """How many addresses the plan is about."""
        recipients = self._known.values()
        held = sum(len(self._targets_of(recipient)) for recipient in recipients) if self._is_held else 0
        return held + sum(len(recipient.onward) for recipient in recipients)

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

    async def _local_deliveries(self, targets: Targets) -> tuple[Delivery, ...]:
        """To the accounts; thousands of them with turns for others in between."""
        deliveries: list[Delivery] = []
        for target, path in targets.values():
            if len(deliveries) % TARGETS_IN_ONE_GO == TARGETS_IN_ONE_GO - 1:
                await next_turn(self._parts.clock)
            deliveries.append(LocalDelivery(target.account, recipient=str(path)))
        return tuple(deliveries)

    def _record(
        self,
        content: Content,
        deliveries: tuple[Delivery, ...],
        plan: OnwardPlan | None,
        copies: Sequence[Content],
        *,
        notice: JournaledMessage | None,
        now: int,
    ) -> JournalRecord | None:
        """Everything that comes of the transaction; None, and the content is let go, where that is nothing."""
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
        if notice is not None:
            messages.append(notice)
        reverse_path = str(self._reverse_path) if self._reverse_path else ""
        return JournalRecord(tuple(messages), self.transaction_id, reverse_path)

    async def _notice(self, errors: Collection[Address], now: int) -> JournaledMessage | None:
        """The notice of success that is due here, if any."""
        parts, sender = self._parts, self._reverse_path
        if sender is None or parts.queue is None or self._is_held:
            return None
        told = reported(recipient for recipient in self._known.values() if recipient.forward_path not in errors)
        if not told:
            return None
        return await format_notice(
            told,
            # Resolved when its turn comes: the way of a notice may be ours, or elsewhere.
            to=OnwardRecipient(sender, LOCAL),
            author=Address(POSTMASTER, parts.senders.domains.primary or parts.hostname),
            hostname=parts.hostname,
            transaction_id=self.transaction_id,
            header=self._given_header,
            parameters=self._parameters.envelope,
            now=now,
            signer=parts.signer,
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

    def _accepted(self) -> list[Accepted | Refused]:
        return [Accepted(recipient.forward_path, self.transaction_id) for recipient in self._recipients]
