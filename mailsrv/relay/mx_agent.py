"""To the hosts that take a domain's mail (RFC 5321 5.1)."""

from __future__ import annotations

from zope.interface import implementer

from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.queue import AttemptProblem, ITransportAgent
from mailsrv.relay.agent import Attempt, ConnectionAgent, RelayParts
from mailsrv.relay.hops import WAIVED, MxRoute
from mailsrv.relay.outcomes import ROUTING_FAILED, HopFailed
from mailsrv.relay.tls_required import waives_tls


@implementer(ITransportAgent)
class MxAgent(ConnectionAgent):
    """Destinations ``mx:DOMAIN``."""

    def __init__(self, parts: RelayParts) -> None:
        super().__init__(parts)
        names = {parts.hostname, parts.settings.helo_name, *parts.settings.own_names} - {""}
        self._own_names = frozenset(name.lower().rstrip(".") for name in names)

    async def _try_hosts(self, attempt: Attempt, content: IContent) -> None:
        parts, settings = self._parts, self._parts.settings
        parameters = attempt.consignment.entry.parameters
        route = MxRoute(
            attempt.consignment.destination.target,
            settings,
            self._own_names,
            parts.resolver,
            parts.policies,
            requires_tls=parameters.requires_tls,
            waives_tls=None if parameters.requires_tls else lambda: waives_tls(content),
        )
        last: HopFailed | None = None
        while (
            attempt.waiting and attempt.sessions < settings.sessions_tried and attempt.addresses < settings.mx_addresses
        ):
            hop = await route.next_hop()
            if hop is None:
                break
            if hop.host in attempt.hosts:
                continue
            attempt.addresses += 1
            try:
                connection = await parts.opener.open(hop)
            except HopFailed as failure:
                if failure.was_reached:
                    attempt.sessions += 1
                    attempt.hosts.add(hop.host)
                last = failure if last is None else _hopeful(last, failure)
                continue
            attempt.sessions += 1
            attempt.hosts.add(hop.host)
            await self._carry(attempt, connection, content, is_kept=hop.policy.source != WAIVED)
        if attempt.waiting:
            reason = last if route.failure is None else route.failure if last is None else _hopeful(route.failure, last)
            if reason is not None:
                attempt.note_failure(reason)
            elif not attempt.outcomes:
                raise HopFailed(ROUTING_FAILED, "No host could be tried", problem=AttemptProblem.DESTINATION)


def _hopeful(known: HopFailed, failure: HopFailed) -> HopFailed:
    """What to tell of two failures: a temporary one, for it says there is hope; of those the last."""
    return known if known.status.is_temporary and not failure.status.is_temporary else failure
