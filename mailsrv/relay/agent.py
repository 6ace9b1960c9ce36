"""Transport agents: by MX, to a smarthost, by LMTP, and the one that picks among them.

An attempt first uses a connection that is open already; else it goes from host to host: at most so
many addresses are connected to, and so many sessions held, for a recipient (so an attempt is bounded in
time). What a host says of a recipient is final for the attempt; only where a host
could not be spoken to, or will not take anything, the next one is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.coroutines import fires_within, run_coroutine
from mailsrv.errors import MailError
from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.queue import (
    AttemptOutcome,
    AttemptProblem,
    Consignment,
    Declined,
    Destination,
    ITransportAgent,
    QueuedRecipient,
    QueueEntry,
    Transport,
)
from mailsrv.interfaces.resolver import IResolver
from mailsrv.interfaces.tls_policy import ITlsPolicies
from mailsrv.relay.adaptation import Adapter, Sign
from mailsrv.relay.carriage import Carrier, Results
from mailsrv.relay.connection_cache import ConnectionCache
from mailsrv.relay.dialer import IDialer, TwistedDialer
from mailsrv.relay.opening import ConnectionTls, OpenConnection, Opener
from mailsrv.relay.outcomes import OUR_TROUBLE, HopFailed, Judged
from mailsrv.relay.settings import RelaySettings

_EAGER_IDLE_SECONDS = 1.0
"""A connection that was idle for longer may have been closed: content goes only after an answer."""

OpenContent = Callable[[QueueEntry], Deferred[IContent]]

log = Logger()


@define(eq=False)
class RelayParts:
    """What the relay agents of a process share; made by :func:`make_relay_parts`."""

    settings: RelaySettings
    hostname: str
    resolver: IResolver
    policies: ITlsPolicies
    opener: Opener
    carrier: Carrier
    cache: ConnectionCache
    open_content: OpenContent
    reactor: Any


def make_relay_parts(
    settings: RelaySettings,
    hostname: str,
    *,
    resolver: IResolver,
    tls_policies: ITlsPolicies,
    client_tls: ConnectionTls,
    open_content: OpenContent,
    reactor: Any,
    dialer: IDialer | None = None,
    wall_clock: Callable[[], float] = time.time,
    sign: Sign | None = None,
) -> RelayParts:
    """``sign`` signs what users sent, where it had to be converted.

    ``dialer`` and ``wall_clock`` (seconds since the epoch) are for tests.
    """
    opener = Opener(
        settings,
        settings.helo_name or hostname,
        dialer if dialer is not None else TwistedDialer(reactor, settings),
        client_tls=client_tls,
        policies=tls_policies,
        clock=reactor,
    )
    return RelayParts(
        settings,
        hostname,
        resolver,
        tls_policies,
        opener,
        Carrier(Adapter(settings.conversion_octets, settings.long_lines, sign), wall_clock),
        ConnectionCache(settings, reactor),
        open_content,
        reactor,
    )


@define(eq=False)
class Attempt:
    """What one attempt has come to so far."""

    consignment: Consignment
    waiting: dict[int, QueuedRecipient]
    """Whose outcome another host may still better."""
    outcomes: dict[int, AttemptOutcome] = field(factory=dict)
    hosts: set[str] = field(factory=set)
    """Those that have been spoken to: they have said what they say."""
    sessions: int = 0
    addresses: int = 0

    def note(self, results: Results) -> None:
        """Keep the outcomes; those no other host can better are settled."""
        for recipient_id, judged in results.items():
            self.outcomes[recipient_id] = judged.outcome
            if not judged.may_try_next:
                self.waiting.pop(recipient_id, None)

    def note_failure(self, failure: HopFailed) -> None:
        """Nobody to give it to: that counts for those who have no better answer yet."""
        for recipient_id in self.waiting:
            known = self.outcomes.get(recipient_id)
            # A host that answered said more than one that could not be reached.
            if known is None or not isinstance(known, Declined) or not known.host or failure.host:
                self.outcomes[recipient_id] = failure.declined(recipient_id)


class ConnectionAgent:
    """What the three agents have in common. Subclasses say how hosts are found: ``_try_hosts``."""

    def __init__(self, parts: RelayParts) -> None:
        self._parts = parts
        self._under_way: set[Deferred[Any]] = set()
        self._is_stopping = False

    def attempt(self, consignment: Consignment) -> Deferred[Sequence[AttemptOutcome]]:
        """See :class:`~mailsrv.interfaces.queue.ITransportAgent`."""
        if self._is_stopping:
            return succeed([_not_now(recipient.id) for recipient in consignment.recipients])
        attempt = run_coroutine(self._attempt(consignment))
        if not attempt.called:
            self._under_way.add(attempt)
            attempt.addBoth(self._finished, attempt)
        return attempt

    def stop(self) -> Deferred[None]:
        """QUIT what is idle; what is under way may end, for a while."""
        self._is_stopping = True
        self._parts.cache.stop()
        if not self._under_way:
            return succeed(None)
        watched: list[Deferred[Any]] = []
        for attempt in self._under_way:
            ended: Deferred[None] = Deferred()
            attempt.addBoth(_passing_on, ended)
            watched.append(ended)
        stopped = fires_within(DeferredList(watched), self._parts.settings.stop_seconds, self._parts.reactor)
        return stopped.addCallback(lambda _: None)

    def _finished(self, result: Any, attempt: Deferred[Any]) -> Any:
        self._under_way.discard(attempt)
        return result

    async def _attempt(self, consignment: Consignment) -> Sequence[AttemptOutcome]:
        recipients = consignment.recipients
        attempt = Attempt(consignment, {recipient.id: recipient for recipient in recipients})
        try:
            content = await self._parts.open_content(consignment.entry)
        except MailError as error:
            status = error.status if error.is_temporary else OUR_TROUBLE
            failure = HopFailed(status, "The message could not be read", problem=AttemptProblem.MESSAGE, is_asked=False)
            return [failure.declined(recipient.id) for recipient in recipients]
        try:
            await self._use_open_connections(attempt, content)
            if attempt.waiting:
                await self._try_hosts(attempt, content)
        except HopFailed as failure:
            attempt.note_failure(failure)
        except Exception:
            # Never fails: what is not settled by now is tried again later.
            log.failure("relay: attempt of {transaction_id} failed", transaction_id=consignment.entry.transaction_id)
        finally:
            content.close()
        outcomes = attempt.outcomes
        return [outcomes.get(recipient.id) or _not_now(recipient.id) for recipient in recipients]

    def _key(self, consignment: Consignment) -> object:
        return consignment.destination, consignment.entry.parameters.requires_tls

    async def _use_open_connections(self, attempt: Attempt, content: IContent) -> None:
        """Over a connection that is still there. One that proves to be gone does not count."""
        parts = self._parts
        key = self._key(attempt.consignment)
        while (connection := parts.cache.take(key)) is not None:
            idle = parts.reactor.seconds() - connection.idle_since
            results = await self._carry(attempt, connection, content, is_eager=idle < _EAGER_IDLE_SECONDS)
            if all(judged.is_stale for judged in results.values()):
                for recipient_id in results:
                    attempt.outcomes.pop(recipient_id, None)
                continue
            attempt.sessions += 1
            attempt.hosts.add(connection.host)
            return

    async def _carry(
        self,
        attempt: Attempt,
        connection: OpenConnection,
        content: IContent,
        *,
        is_eager: bool = True,
        is_kept: bool = True,
    ) -> Results:
        """``is_kept``: the connection is good enough for other mail to the destination."""
        consignment = attempt.consignment
        parts = self._parts
        results = await parts.carrier.carry(
            connection, consignment.entry, tuple(attempt.waiting.values()), content, is_eager=is_eager
        )
        attempt.note(results)
        if is_kept:
            parts.cache.give(self._key(consignment), connection)
        else:
            connection.protocol.quit()
        return results

    async def _try_hosts(self, attempt: Attempt, content: IContent) -> None:
        """Open connections and carry, until nobody waits or the limits are reached. May raise HopFailed."""
        raise NotImplementedError


def _passing_on(result: Any, ended: Deferred[None]) -> Any:
    ended.callback(None)
    return result


def _not_now(recipient_id: int) -> Declined:
    return Declined(
        recipient_id,
        OUR_TROUBLE,
        "Not attempted: this server is stopping or had trouble",
        problem=AttemptProblem.MESSAGE,
        is_asked=False,
    )


@implementer(ITransportAgent)
class DestinationAgent:
    """Hands each consignment to the agent of its destination's transport."""

    def __init__(self, agents: Mapping[Transport, Any]) -> None:
        """``agents``: an ITransportAgent for each transport that is used."""
        self._agents = dict(agents)

    def attempt(self, consignment: Consignment) -> Deferred[Sequence[AttemptOutcome]]:
        agent = self._agents.get(consignment.destination.transport)
        if agent is None:
            return succeed([_no_agent(consignment.destination, one.id) for one in consignment.recipients])
        outcomes: Deferred[Sequence[AttemptOutcome]] = agent.attempt(consignment)
        return outcomes

    def stop(self) -> Deferred[None]:
        stopping = DeferredList([agent.stop() for agent in self._agents.values()], consumeErrors=True)
        return stopping.addCallback(lambda _results: None)


def _no_agent(destination: Destination, recipient_id: int) -> Declined:
    return HopFailed(OUR_TROUBLE, f"No transport for {destination}", is_asked=False).declined(recipient_id)


__all__ = ["Attempt", "ConnectionAgent", "DestinationAgent", "Judged", "RelayParts", "make_relay_parts"]
