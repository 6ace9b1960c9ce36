"""RCPT: who is accepted, and how many."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed

from mailsrv.address import Address
from mailsrv.coroutines import next_turn, run_coroutine
from mailsrv.delivery.onward import (
    parameters_of,
)
from mailsrv.delivery.quota import TARGETS_IN_ONE_GO, check_room
from mailsrv.delivery.reach import Reach, reach_of
from mailsrv.delivery.recipients import Found, Recipient, Service
from mailsrv.delivery.transaction_state import Abandoned, State, TransactionState
from mailsrv.directory.posting import Poster
from mailsrv.errors import MailError
from mailsrv.interfaces.envelope import NOTIFY_UNSAID, Notify, RecipientParameters
from mailsrv.interfaces.filter import Phase
from mailsrv.status import TOO_MANY_RECIPIENTS


class RecipientSteps(TransactionState):
    """The part of a transaction that takes recipients."""

    async def ask_mail(self) -> None:
        """Phase MAIL; raises the refusal. Only where filters want it."""
        decision = await self._ask(Phase.MAIL)
        self._added += decision.headers
        self._is_discarded = decision.discard

    def add_recipient(self, forward_path: Address, parameters: RecipientParameters | None = None) -> Deferred[None]:
        known = self._known.get(forward_path)
        if known is not None:
            # LMTP answers once for each RCPT, also where it named the same (RFC 2033 4.2).
            self._recipients.append(known)
            return succeed(None)
        parts = self._parts
        if not parts.asks_rcpt and self._state is State.OPEN:
            try:
                found = parts.policy.find_at_hand(forward_path, self._reverse_path, may_relay=self._may_relay)
                if found is not None and self._is_plainly_taken(found):
                    if self._account is not None:
                        parts.count_submission(self._account, 1)
                    self._count_at_hand(found)
                    self._take_recipient(
                        Recipient(forward_path, found.accounts, found.onward, parameters_of(parameters))
                    )
                    return succeed(None)
            except MailError as error:
                self._history.recipient_refused(forward_path, error)
                return fail(error)
        return run_coroutine(self._add_recipient(forward_path, parameters_of(parameters)))

    def _is_plainly_taken(self, found: Found) -> bool:
        """Whether one recipient needs no further question: no limit is near, and no room to be looked for."""
        if len(self._accounts) >= self._parts.settings.accounts_per_message:
            return False
        if self._parts.service is Service.LMTP:
            return True
        has_quota = self._parts.store.has_quota
        return all(target.user.quota_octets is None and not has_quota(target.account) for target in found.accounts)

    async def _add_recipient(self, forward_path: Address, parameters: RecipientParameters) -> None:
        try:
            recipient, reach = await self._checked_recipient(forward_path, parameters)
            self._parts.count_submission(self._account, 1)
        except MailError as error:
            self._history.recipient_refused(forward_path, error)
            raise
        if self._state is not State.OPEN:
            raise Abandoned
        self._accounts |= reach.addresses
        self._forwarders |= reach.forwarders
        self._take_recipient(recipient)

    def _count_at_hand(self, found: Found) -> None:
        """One user here, or one address elsewhere that the client itself has named."""
        for local in found.accounts:
            self._accounts.add(local.user.address)
        for target in found.onward:
            self._accounts.add(target.address)

    def _take_recipient(self, recipient: Recipient) -> None:
        self._known[recipient.forward_path] = recipient
        self._recipients.append(recipient)
        notify = recipient.parameters.notify
        if notify is not NOTIFY_UNSAID and notify & Notify.SUCCESS:
            self._wants_notice = True
        if recipient.onward:
            self._has_onward = True

    async def _checked_recipient(
        self, forward_path: Address, parameters: RecipientParameters
    ) -> tuple[Recipient, Reach]:
        """Check, then filter: filters are asked only about recipients we would take."""
        parts = self._parts
        found = await parts.policy.find(forward_path, self._reverse_path, may_relay=self._may_relay)
        reach = await reach_of(found, parts.clock)
        if found.passed and parts.posting is not None:
            await parts.posting.check(found.passed, self._poster(), reach.addresses)
        self._check_number(reach)
        targets = found.accounts
        if parts.service is not Service.LMTP and self._parameters.envelope.hold_until is None:
            # SMTP has one reply for all at the end: better to tell a full mailbox apart here.
            for number, target in enumerate(targets, 1):
                if number % TARGETS_IN_ONE_GO == 0:
                    await next_turn(parts.clock)
                await check_room(parts.store, target, max(1, self._parameters.size or 1))
        if not parts.asks_rcpt:
            return Recipient(forward_path, targets, found.onward, parameters), reach
        decision = await self._ask(Phase.RCPT, forward_path)
        if decision.discard:
            return Recipient(forward_path, (), (), parameters), Reach(set(), set())
        if decision.redirect is not None:
            found = await parts.policy.find_all(decision.redirect, self._reverse_path, instead_of=forward_path)
            reach = await reach_of(found, parts.clock)
        self._added += decision.headers
        is_redirected = decision.redirect is not None
        return Recipient(forward_path, found.accounts, found.onward, parameters, is_redirected), reach

    def _poster(self) -> Poster:
        account = None if self._account is None else self._account.address
        return Poster(account, self._reverse_path, is_trusted=self._may_relay)

    def _check_number(self, reach: Reach) -> None:
        """Raise 4.5.3 where one message would go to too many."""
        settings = self._parts.settings
        limit = settings.accounts_per_message
        if len(self._accounts) + len(reach.addresses) > limit and len(self._accounts | reach.addresses) > limit:
            raise MailError(TOO_MANY_RECIPIENTS, "Too many recipients")
        if reach.forwarders and len(self._forwarders | reach.forwarders) > settings.forwarders_per_message:
            raise MailError(TOO_MANY_RECIPIENTS, "Too many forwarding recipients")
