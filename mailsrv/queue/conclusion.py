"""What an attempt's outcomes mean for its recipients: which are done, which wait until when, who is told.

Pure: outcomes and the time go in, settlements, reports and log lines come out. The rules of NOTIFY
(RFC 3461 4.1, 5.2) and of DELIVERBY (RFC 2852) are here and in :class:`~mailsrv.queue.retry.RetryTimes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import field, frozen

from mailsrv.interfaces.envelope import NOTIFY_UNSAID, Notify
from mailsrv.interfaces.queue import (
    AttemptOutcome,
    AttemptProblem,
    Consignment,
    Declined,
    Delivered,
    Ending,
    Finished,
    Postponed,
    QueuedRecipient,
    QueueEntry,
    Settled,
    Settlement,
    Taken,
)
from mailsrv.message.delivery_status import Action
from mailsrv.queue.lane import Contact
from mailsrv.queue.retry import RetryTimes
from mailsrv.status import EnhancedStatus

EXPIRED = EnhancedStatus(4, 4, 7)
"""Given up after trying for long (RFC 3463 3.5: delivery time expired)."""
DEADLINE_PASSED = EnhancedStatus(5, 4, 7)
"""RFC 2852 4.1.3: what DELIVERBY in mode R comes back with."""
WAITS = EnhancedStatus(4, 4, 7)
RELAYED = EnhancedStatus(2, 0, 0)
_TEXT_LIMIT = 512


@frozen
class Report:
    """What a sender is to be told of a recipient."""

    recipient: QueuedRecipient
    action: Action
    status: EnhancedStatus
    reply: str
    host: str = ""
    is_attempted: bool = True
    will_retry_until: int | None = None


@frozen
class AttemptLine:
    """A line of the log: how an attempt ended for a recipient."""

    recipient: QueuedRecipient
    status: str
    """sent, deferred, bounced, expired."""
    reply: str
    host: str = ""
    is_uncertain: bool = False


@frozen
class Conclusion:
    """Of an attempt or of a review; every recipient is in exactly one of the first four."""

    entry: QueueEntry
    settlements: tuple[Settlement, ...] = ()
    """For the store: recipients that go on waiting or end without a word."""
    bounced: tuple[Report, ...] = ()
    """End with a notice of failure."""
    expired: tuple[Report, ...] = ()
    """As bounced."""
    succeeded: tuple[Report, ...] = ()
    """End with a notice of success."""
    delayed: tuple[Report, ...] = ()
    """Those among ``settlements`` whose sender is told that they wait, once that is settled."""
    lines: tuple[AttemptLine, ...] = field(default=())


def contact_of(outcomes: Sequence[AttemptOutcome]) -> Contact:
    """What an attempt has shown about its destination."""
    contact = Contact.UNKNOWN
    for outcome in outcomes:
        if not isinstance(outcome, Declined):
            return Contact.UP
        if outcome.problem is not AttemptProblem.DESTINATION:
            if outcome.is_asked or outcome.host:
                return Contact.UP
        elif outcome.status.is_temporary:
            contact = Contact.DOWN
        else:
            # Such as a domain that takes no mail: an answer, and for every message the same.
            return Contact.UP
    return contact


def all_declined(consignment: Consignment, status: EnhancedStatus, reply: str) -> list[AttemptOutcome]:
    """Nobody was asked, for a reason of ours."""
    return [
        Declined(recipient.id, status, reply, problem=AttemptProblem.MESSAGE, is_asked=False)
        for recipient in consignment.recipients
    ]


def wants_failure_notice(recipient: QueuedRecipient) -> bool:
    """RFC 3461 4.1: where nothing was said, failures are reported."""
    return recipient.notify == NOTIFY_UNSAID or bool(recipient.notify & Notify.FAILURE)


def success_action(entry: QueueEntry, recipient: QueuedRecipient, taken: Taken) -> Action | None:
    """What a success notice says, None where none is due from us.

    "delivered" for final delivery, "relayed" where the next hop does not offer DSN (RFC 3461 5.2.2). With DELIVERBY
    "relayed" also goes to all who did not say NOTIFY=NEVER: at each hop where a trace was asked for (RFC 2852 4.1.4),
    and in mode N where the next hop does not know it, so that nobody waits for its notice of delay (4.1.4.2).
    """
    by = entry.parameters.deliver_by
    notify = recipient.notify
    if entry.reverse_path is None or (by is None and notify is NOTIFY_UNSAID) or notify & Notify.NEVER:
        return None
    wants_success = bool(notify & Notify.SUCCESS)
    if taken.is_local:
        return Action.DELIVERED if wants_success else None
    is_told = by is not None and (by.is_traced or not (by.must_return or taken.offers_deliver_by))
    return Action.RELAYED if is_told or (wants_success and not taken.offers_dsn) else None


class Concluding:
    """Makes conclusions."""

    def __init__(self, times: RetryTimes) -> None:
        self._times = times

    def attempt(self, consignment: Consignment, outcomes: Sequence[AttemptOutcome], now: float) -> Conclusion:
        """Of an attempt. A recipient without an outcome of its own is postponed."""
        entry = consignment.entry
        recipients = consignment.recipients
        if len(outcomes) == 1 == len(recipients):
            outcome = outcomes[0]
            if isinstance(outcome, Taken) and success_action(entry, recipients[0], outcome) is None:
                return self._simple_success(entry, recipients[0], outcome)
        by_id = {outcome.recipient_id: outcome for outcome in outcomes}
        draft = _Draft(entry)
        for recipient in recipients:
            outcome_of_it = by_id.get(recipient.id)
            if outcome_of_it is None:
                self._postpone(draft, recipient, now, "No outcome of the attempt is known")
            elif isinstance(outcome_of_it, Taken):
                self._taken(draft, recipient, outcome_of_it)
            elif isinstance(outcome_of_it, Settled):
                status = "sent" if outcome_of_it.ending is Ending.DELIVERED else "bounced"
                draft.lines.append(AttemptLine(recipient, status, outcome_of_it.reply))
            else:
                self._declined(draft, recipient, outcome_of_it, now)
        return draft.conclusion()

    @staticmethod
    def _simple_success(entry: QueueEntry, recipient: QueuedRecipient, taken: Taken) -> Conclusion:
        text = _said(taken.host, taken.reply)
        settlement = Delivered(recipient.id, text, not taken.is_local and not taken.offers_dsn)
        return Conclusion(entry, (settlement,), lines=(AttemptLine(recipient, "sent", taken.reply, taken.host),))

    @staticmethod
    def _taken(draft: _Draft, recipient: QueuedRecipient, taken: Taken) -> None:
        draft.lines.append(AttemptLine(recipient, "sent", taken.reply, taken.host))
        action = success_action(draft.entry, recipient, taken)
        if action is not None:
            draft.succeeded.append(Report(recipient, action, RELAYED, taken.reply, taken.host))
        else:
            is_relayed = not taken.is_local and not taken.offers_dsn
            draft.settlements.append(Delivered(recipient.id, _said(taken.host, taken.reply), is_relayed))

    def _declined(self, draft: _Draft, recipient: QueuedRecipient, declined: Declined, now: float) -> None:
        entry, times = draft.entry, self._times
        reply, host = declined.reply, declined.host
        if not declined.status.is_temporary:
            draft.lines.append(AttemptLine(recipient, "bounced", reply, host, declined.is_uncertain))
            draft.fail(Report(recipient, Action.FAILED, declined.status, reply, host), Ending.BOUNCED)
        elif times.expires_at(entry) <= now:
            draft.lines.append(AttemptLine(recipient, "expired", reply, host, declined.is_uncertain))
            draft.fail(Report(recipient, Action.FAILED, self._expired_status(entry), reply, host), Ending.EXPIRED)
        else:
            draft.lines.append(AttemptLine(recipient, "deferred", reply, host, declined.is_uncertain))
            is_attempt = declined.is_asked or declined.problem is AttemptProblem.DESTINATION
            until = times.next_attempt_at(entry, recipient, recipient.attempts + is_attempt, now)
            is_told = self._tell_delay(draft, recipient, declined, now)
            draft.settlements.append(Postponed(recipient.id, until, _said(host, reply), is_attempt, is_told))

    def _tell_delay(self, draft: _Draft, recipient: QueuedRecipient, declined: Declined | None, now: float) -> bool:
        entry, times = draft.entry, self._times
        if times.delay_notice_at(entry, recipient) > now:
            return recipient.is_delay_told
        status = declined.status if declined is not None else WAITS
        reply = declined.reply if declined is not None else recipient.last_reply
        host = declined.host if declined is not None else ""
        until = int(times.expires_at(entry))
        draft.delayed.append(
            Report(recipient, Action.DELAYED, status, reply, host, declined is not None, will_retry_until=until)
        )
        return True

    def _postpone(self, draft: _Draft, recipient: QueuedRecipient, now: float, reply: str) -> None:
        draft.lines.append(AttemptLine(recipient, "deferred", reply))
        until = self._times.next_attempt_at(draft.entry, recipient, recipient.attempts + 1, now)
        draft.settlements.append(Postponed(recipient.id, until, reply, True, recipient.is_delay_told))

    def _expired_status(self, entry: QueueEntry) -> EnhancedStatus:
        by = entry.parameters.deliver_by
        is_deadline = by is not None and by.must_return and by.deadline <= self._times.expires_at(entry)
        return DEADLINE_PASSED if is_deadline else EXPIRED

    def is_over(self, entry: QueueEntry, now: float) -> bool:
        """Whether the message is past a deadline at which it goes back: it is not tried any more."""
        return self._times.is_past_deadline(entry, now)

    def review(self, consignment: Consignment, now: float, until: float) -> Conclusion:
        """Without an attempt: what is too old ends, what waits for long is told, all else waits on, until ``until``
        or the next of these instants.
        """
        entry, times = consignment.entry, self._times
        draft = _Draft(entry)
        is_expired = times.expires_at(entry) <= now
        for recipient in consignment.recipients:
            if is_expired:
                reply = recipient.last_reply or "The destination could not be reached in time"
                draft.lines.append(AttemptLine(recipient, "expired", reply))
                report = Report(recipient, Action.FAILED, self._expired_status(entry), reply, is_attempted=False)
                draft.fail(report, Ending.EXPIRED)
            else:
                is_told = self._tell_delay(draft, recipient, None, now)
                due = times.cut_short(until, entry, recipient, now)
                draft.settlements.append(
                    Postponed(recipient.id, due, recipient.last_reply, is_attempt=False, is_delay_told=is_told)
                )
        return draft.conclusion()


class _Draft:
    """A conclusion in the making."""

    def __init__(self, entry: QueueEntry) -> None:
        self.entry = entry
        self.settlements: list[Settlement] = []
        self.bounced: list[Report] = []
        self.expired: list[Report] = []
        self.succeeded: list[Report] = []
        self.delayed: list[Report] = []
        self.lines: list[AttemptLine] = []

    def fail(self, report: Report, ending: Ending) -> None:
        """A null reverse-path is kept too: whether the postmaster hears of it is not decided here."""
        if not wants_failure_notice(report.recipient):
            self.settlements.append(Finished(report.recipient.id, ending, _said(report.host, report.reply)))
        elif ending is Ending.EXPIRED:
            self.expired.append(report)
        else:
            self.bounced.append(report)

    def conclusion(self) -> Conclusion:
        return Conclusion(
            self.entry,
            tuple(self.settlements),
            tuple(self.bounced),
            tuple(self.expired),
            tuple(self.succeeded),
            tuple(self.delayed),
            tuple(self.lines),
        )


def _said(host: str, reply: str) -> str:
    return f"{host}: {reply}"[:_TEXT_LIMIT] if host else reply[:_TEXT_LIMIT]


def ended_reports(conclusion: Conclusion) -> Iterator[tuple[Ending, tuple[Report, ...]]]:
    """The recipients that end with a notice, by how they end."""
    for ending, reports in (
        (Ending.BOUNCED, conclusion.bounced),
        (Ending.EXPIRED, conclusion.expired),
        (Ending.DELIVERED, conclusion.succeeded),
    ):
        if reports:
            yield ending, reports
