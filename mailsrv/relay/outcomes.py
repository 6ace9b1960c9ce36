"""What a reply, or its absence, means for a recipient: status, reach, and whether another host may do better.

Where a reply has an enhanced status code of its own class, that counts; else one is chosen by code and
stage (RFC 3463; RFC 5321 4.2.3).
"""

from __future__ import annotations

from attrs import frozen

from mailsrv.interfaces.queue import AttemptOutcome, AttemptProblem, Declined, Taken
from mailsrv.smtp.client.events import Problem, RecipientOutcome, Stage
from mailsrv.smtp.client.replies import ServerReply, printable
from mailsrv.status import EnhancedStatus

CANNOT_CONNECT = EnhancedStatus(4, 4, 1)
CONNECTION_LOST = EnhancedStatus(4, 4, 2)
ROUTING_FAILED = EnhancedStatus(4, 4, 4)
PROTOCOL_BROKEN = EnhancedStatus(4, 5, 0)
TLS_NOT_OFFERED = EnhancedStatus(4, 7, 4)
TLS_NOT_GOOD = EnhancedStatus(4, 7, 5)
LOGIN_FAILED = EnhancedStatus(4, 7, 8)
OUR_TROUBLE = EnhancedStatus(4, 3, 0)

_SUBJECTS: dict[int, tuple[int, int]] = {
    421: (3, 2),
    450: (2, 0),
    451: (3, 0),
    452: (3, 1),
    454: (7, 0),
    500: (5, 2),
    501: (5, 4),
    502: (5, 1),
    503: (5, 1),
    504: (5, 4),
    521: (3, 2),
    530: (7, 0),
    535: (7, 8),
    551: (1, 6),
    552: (3, 4),
    555: (5, 4),
    556: (1, 10),
}
_OF_RECIPIENTS: dict[int, tuple[int, int]] = {550: (1, 1), 552: (2, 2), 553: (1, 3)}
_OF_ORIGINATORS: dict[int, tuple[int, int]] = {550: (1, 0), 553: (1, 7)}

_TOO_MANY = EnhancedStatus(4, 5, 3)
_WHOLE_SYSTEM = frozenset({EnhancedStatus(4, 3, 1), EnhancedStatus(4, 3, 2)})


class HopFailed(Exception):
    """A host, or a whole destination, that mail could not be given to. Nothing was sent.

    ``was_reached``: it answered, so it counts as a session that was tried.
    """

    def __init__(
        self,
        status: EnhancedStatus,
        text: str,
        host: str = "",
        *,
        problem: AttemptProblem = AttemptProblem.DESTINATION,
        was_reached: bool = False,
        is_asked: bool = True,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = printable(text)
        self.host = host
        self.problem = problem
        self.was_reached = was_reached
        self.is_asked = is_asked

    def declined(self, recipient_id: int) -> Declined:
        """As the outcome for one recipient."""
        return Declined(recipient_id, self.status, self.text, self.host, problem=self.problem, is_asked=self.is_asked)


@frozen
class Judged:
    """An outcome, and what may still be done in this attempt."""

    outcome: AttemptOutcome
    may_try_next: bool = False
    """Another host of the destination may take it."""
    may_try_again: bool = False
    """The same host may, in another transaction (too many recipients in this one)."""
    is_stale: bool = False
    """Nothing was answered at all: as if the connection had not been."""


def status_of(reply: ServerReply, stage: Stage | None = None) -> EnhancedStatus:
    """The enhanced status code of a refusal."""
    status = reply.status
    if status is not None:
        return status
    subject = None
    if stage is Stage.RCPT:
        subject = _OF_RECIPIENTS.get(reply.code)
    elif stage is Stage.MAIL:
        subject = _OF_ORIGINATORS.get(reply.code)
    subject = subject or _SUBJECTS.get(reply.code, (0, 0))
    return EnhancedStatus(5 if reply.is_permanent else 4, *subject)


def judge(
    outcome: RecipientOutcome,
    recipient_id: int,
    host: str,
    *,
    offers_dsn: bool,
    is_local: bool,
    offers_deliver_by: bool = False,
) -> Judged:
    """What the next hop's answer for one recipient means."""
    if outcome.is_taken:
        reply = "" if outcome.reply is None else outcome.reply.text
        return Judged(Taken(recipient_id, host, reply, offers_dsn, is_local, offers_deliver_by))
    if outcome.problem is not None:
        return _judge_problem(outcome, outcome.problem, recipient_id, host)
    reply_given = outcome.reply
    if reply_given is None:
        return Judged(Declined(recipient_id, PROTOCOL_BROKEN, "no reply", host, problem=AttemptProblem.DESTINATION))
    return _judge_refusal(reply_given, outcome.stage, recipient_id, host)


def _judge_refusal(reply: ServerReply, stage: Stage, recipient_id: int, host: str) -> Judged:
    if stage is Stage.RCPT and (reply.code == 452 or (reply.code == 552 and reply.status is None)):
        # RFC 5321 4.5.3.1.10: too many recipients, which old servers say with 552. With another status it is the
        # recipient's mailbox that is full, or the disk.
        status = reply.status or _TOO_MANY
        is_too_many = status == _TOO_MANY
        declined = Declined(recipient_id, status, reply.text, host)
        return Judged(declined, may_try_again=is_too_many)
    status = status_of(reply, stage)
    problem = AttemptProblem.RECIPIENT if stage is Stage.RCPT else AttemptProblem.MESSAGE
    # The system as a whole, not this message: it is stopping or overloaded (421, 4.3.2), or full (4.3.1). A 451 alone,
    # which filters say of one message, is no reason to let all others wait.
    concerns_all = reply.code == 421 or (stage is not Stage.RCPT and status in _WHOLE_SYSTEM)
    if concerns_all:
        problem = AttemptProblem.DESTINATION
    may_try_next = status.kind == 4 and stage is Stage.MAIL
    declined = Declined(recipient_id, status, reply.text, host, problem=problem)
    is_stale = reply.code == 421 and stage is Stage.MAIL
    return Judged(declined, may_try_next=may_try_next, is_stale=is_stale)


def _judge_problem(outcome: RecipientOutcome, problem: Problem, recipient_id: int, host: str) -> Judged:
    reply = outcome.reply
    reach = AttemptProblem.DESTINATION
    if outcome.stage is Stage.CONTENT and problem is Problem.LOST:
        # It may be this message that the host cannot bear; others should not wait for it.
        reach = AttemptProblem.MESSAGE
    if reply is not None:
        status, text = status_of(reply), reply.text
        if status.kind == 5:
            # Said in the midst of the message, and the connection closed.
            return Judged(Declined(recipient_id, status, text, host, problem=AttemptProblem.MESSAGE))
    else:
        status = PROTOCOL_BROKEN if problem is Problem.CONFUSED else CONNECTION_LOST
        text = printable(f"Conversation with {host}: {outcome.text or problem.value}")
        if problem is Problem.OURS:
            status, reach = OUR_TROUBLE, AttemptProblem.MESSAGE
    declined = Declined(
        recipient_id, status, text, host if reply is not None else "", problem=reach, is_uncertain=outcome.is_uncertain
    )
    is_over = outcome.is_uncertain or problem is Problem.OURS or outcome.stage is Stage.CONTENT
    is_stale = outcome.is_untouched and problem in {Problem.LOST, Problem.CLOSED_BY_SERVER}
    return Judged(declined, may_try_next=not is_over, is_stale=is_stale)
