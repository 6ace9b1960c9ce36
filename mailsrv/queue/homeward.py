"""Queued mail for a domain elsewhere that has become one of ours: it is delivered here, not brought to its MX hosts.

A message waits in the queue for hours, and a directory that lists domains is asked now and then: by the time of an
attempt the MX records may lead to this server. The relay would call that a loop, and refuse the message for good. So
recipients who are ours by now go to the local agent; and a loop is no reason to refuse while it is not known whether
the domain is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.coroutines import run_coroutine
from mailsrv.interfaces.queue import AttemptOutcome, Consignment, Declined, ITransportAgent
from mailsrv.status import ROUTING_LOOP


@implementer(ITransportAgent)
class HomewardAgent:
    """Destinations ``mx:DOMAIN``. ``onward`` carries them, ``local`` is for recipients here.

    ``stays_here`` tells of a reverse-path and a recipient whether the rules deliver the mail here. ``may_be_ours``
    tells whether domains may have become ours since an instant (seconds since the epoch) without anybody knowing.
    """

    def __init__(
        self,
        onward: ITransportAgent,
        local: ITransportAgent,
        *,
        is_ours: Callable[[str], bool],
        stays_here: Callable[[Address | None, Address], bool],
        may_be_ours: Callable[[float], bool],
    ) -> None:
        self._onward = onward
        self._local = local
        self._is_ours = is_ours
        self._stays_here = stays_here
        self._may_be_ours = may_be_ours

    def attempt(self, consignment: Consignment) -> Deferred[Sequence[AttemptOutcome]]:
        """See :class:`~mailsrv.interfaces.queue.ITransportAgent`."""
        if self._is_ours(consignment.destination.target):
            return run_coroutine(self._attempt(consignment))
        outcomes: Deferred[Sequence[AttemptOutcome]] = self._onward.attempt(consignment)
        if self._may_be_ours(consignment.entry.accepted_at):
            outcomes.addCallback(_hopeful)
        return outcomes

    async def _attempt(self, consignment: Consignment) -> Sequence[AttemptOutcome]:
        sender, recipients = consignment.entry.reverse_path, consignment.recipients
        here = tuple(each for each in recipients if self._stays_here(sender, each.address))
        there = tuple(each for each in recipients if each not in here)
        outcomes: list[AttemptOutcome] = []
        for agent, some in ((self._local, here), (self._onward, there)):
            if some:
                outcomes += await agent.attempt(evolve(consignment, recipients=some))
        by_recipient = {outcome.recipient_id: outcome for outcome in outcomes}
        return [by_recipient[each.id] for each in recipients]

    def stop(self) -> Deferred[None]:
        """The local agent is stopped by who stops those of all transports."""
        stopped: Deferred[None] = self._onward.stop()
        return stopped


def _hopeful(outcomes: Sequence[AttemptOutcome]) -> Sequence[AttemptOutcome]:
    """A loop that we have seen passes; one that another host reports does not."""
    return [
        evolve(outcome, status=outcome.status.as_temporary())
        if isinstance(outcome, Declined) and outcome.status == ROUTING_LOOP and not outcome.host
        else outcome
        for outcome in outcomes
    ]
