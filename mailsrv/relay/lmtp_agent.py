"""To an LMTP server at a Twisted client endpoint (RFC 2033), which answers for each recipient."""

from __future__ import annotations

from zope.interface import implementer

from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.queue import ITransportAgent
from mailsrv.relay.agent import Attempt, ConnectionAgent


@implementer(ITransportAgent)
class LmtpAgent(ConnectionAgent):
    """Destinations ``lmtp:ENDPOINT``. In the clear: a socket of this machine, or a network that is trusted."""

    async def _try_hosts(self, attempt: Attempt, content: IContent) -> None:
        endpoint = attempt.consignment.destination.target
        if endpoint in attempt.hosts:
            return
        connection = await self._parts.opener.open_lmtp(endpoint)
        await self._carry(attempt, connection, content)
