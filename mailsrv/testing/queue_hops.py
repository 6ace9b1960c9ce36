"""Next hops that break off a dialogue at every step of it.

No DNS, no connection, 4xx, 5xx or nothing in answer to each command, a connection lost before and after each reply,
the one to the end of data too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from mailsrv.interfaces.queue import (
    AttemptOutcome,
    AttemptProblem,
    Consignment,
    Declined,
    Destination,
    ITransportAgent,
    Taken,
)
from mailsrv.status import EnhancedStatus
from mailsrv.testing.queue_account import Account


class _Step:
    """Where a dialogue with a next hop breaks off."""

    DNS, CONNECT, GREETING, EHLO, MAIL, DATA, END_OF_DATA, AFTER_END = range(8)


@implementer(ITransportAgent)
class SimulatedHops:
    """All next hops. Each has its own inclination to fail; some are dead for a time."""

    def __init__(self, clock: Clock, random: Random, trouble: Mapping[Destination, float], account: Account) -> None:
        """``trouble``: how often an attempt fails, from 0 to 1."""
        self._clock = clock
        self._random = random
        self._trouble = trouble
        self._account = account

    def stop(self) -> Deferred[None]:
        raise NotImplementedError("processes are killed here")

    def attempt(self, consignment: Consignment) -> Deferred[Sequence[AttemptOutcome]]:
        clock, draw = self._clock, self._random
        answer: Deferred[Sequence[AttemptOutcome]] = Deferred()
        trouble = self._trouble[consignment.destination]
        if draw.random() >= trouble:
            outcomes = self._accepting(consignment)
        else:
            step = draw.randrange(8)
            if step == _Step.AFTER_END:
                # The next hop has the message; its 250 is lost on the way.
                clock.callLater(1.0, self.takes, consignment, [each.id for each in consignment.recipients], True)
                outcomes = self._all(
                    consignment, "4.4.2", "Connection lost", AttemptProblem.DESTINATION, uncertain=True
                )
            else:
                outcomes = self._broken(consignment, step)
        delay = 300.0 if draw.random() < trouble / 4 else 2.0
        clock.callLater(delay, answer.callback, outcomes)
        return answer

    def _accepting(self, consignment: Consignment) -> list[AttemptOutcome]:
        """Each recipient has its own reply to RCPT; those that got 250 get the message."""
        draw, outcomes = self._random, list[AttemptOutcome]()
        taken: list[int] = []
        for recipient in consignment.recipients:
            chance = draw.random()
            if chance < 0.75:
                taken.append(recipient.id)
                outcomes.append(Taken(recipient.id, "mx", "250 2.0.0 Ok", offers_dsn=chance < 0.3))
            elif chance < 0.9:
                outcomes.append(Declined(recipient.id, EnhancedStatus(4, 2, 2), "452 4.2.2 Full", "mx"))
            else:
                outcomes.append(Declined(recipient.id, EnhancedStatus(5, 1, 1), "550 5.1.1 No", "mx"))
        if taken:
            self._clock.callLater(1.0, self.takes, consignment, taken, False)
        return outcomes

    def _broken(self, consignment: Consignment, step: int) -> list[AttemptOutcome]:
        """It fails at a step, by a reply or by silence, before the next hop has anything."""
        chance = self._random.random()
        if step <= _Step.CONNECT:
            text = "No answer from the DNS" if step == _Step.DNS else "Connection refused"
            if step == _Step.DNS and chance < 0.05:
                return self._all(consignment, "5.1.2", "No such domain", AttemptProblem.DESTINATION)
            return self._all(consignment, "4.4.1", text, AttemptProblem.DESTINATION)
        if chance < 0.4:
            return self._all(consignment, "4.4.2", "Connection lost", AttemptProblem.DESTINATION)
        scope = AttemptProblem.DESTINATION if step <= _Step.EHLO else AttemptProblem.MESSAGE
        if chance < 0.9:
            return self._all(consignment, "4.3.2", "421 4.3.2 Busy", scope, "mx")
        return self._all(consignment, "5.7.1", "554 5.7.1 Refused", AttemptProblem.MESSAGE, "mx")

    @staticmethod
    def _all(
        consignment: Consignment,
        status: str,
        reply: str,
        problem: AttemptProblem,
        host: str = "",
        *,
        uncertain: bool = False,
    ) -> list[AttemptOutcome]:
        code = EnhancedStatus(int(status[0]), int(status[2]), int(status[4]))
        return [Declined(each.id, code, reply, host, problem, uncertain) for each in consignment.recipients]

    def takes(self, consignment: Consignment, recipient_ids: Sequence[int], is_reply_lost: bool) -> None:
        """The next hop has taken the message."""
        for recipient_id in recipient_ids:
            self._account.taken((consignment.entry.id, recipient_id), is_reply_lost=is_reply_lost)
