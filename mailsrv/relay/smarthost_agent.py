"""To one host and port that takes all mail, perhaps after a log-in."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.queue import AttemptProblem, Destination, ITransportAgent
from mailsrv.interfaces.resolver import DnsAnswer, DnsFailure, MailExchange
from mailsrv.interfaces.tls_policy import DomainTlsPolicy, HostTlsPolicy, TlsLevel
from mailsrv.relay.agent import Attempt, ConnectionAgent, RelayParts
from mailsrv.relay.hops import Hop, check_policy
from mailsrv.relay.opening import Credentials
from mailsrv.relay.outcomes import LOGIN_FAILED, ROUTING_FAILED, HopFailed
from mailsrv.relay.settings import AddressFamilies
from mailsrv.routing.rules import Smarthost

SUBMISSIONS_PORT = 465
"""RFC 8314 3.3: TLS from the first octet."""
_LONGEST_PASSWORD = 1024


def read_password(path: str) -> Deferred[str]:
    """The first line of a file. Waits in a thread; fails with OSError or ValueError."""
    return deferToThread(_read_first_line, path)


def _read_first_line(path: str) -> str:
    with open(path, "rb") as file:
        return file.readline(_LONGEST_PASSWORD).rstrip(b"\r\n").decode("utf-8")


@implementer(ITransportAgent)
class SmarthostAgent(ConnectionAgent):
    """Destinations ``smtp:HOST:PORT``. ``smarthosts``: those that rules say more of; ``read``: a password file."""

    def __init__(
        self,
        parts: RelayParts,
        smarthosts: Mapping[Destination, Smarthost],
        *,
        read: Callable[[str], Deferred[str]] = read_password,
    ) -> None:
        super().__init__(parts)
        self._read = read
        self._known = smarthosts

    async def _try_hosts(self, attempt: Attempt, content: IContent) -> None:
        parts, settings = self._parts, self._parts.settings
        destination = attempt.consignment.destination
        host, port = split_target(destination.target)
        if host in attempt.hosts:
            return
        smarthost = self._known.get(destination)
        try:
            policy = await self._policy(host, port, smarthost)
            check_policy(policy, host, parts.policies, requires_tls=attempt.consignment.entry.parameters.requires_tls)
            addresses = await self._addresses(host)
        except DnsFailure as failure:
            raise HopFailed(failure.status, failure.text) from failure
        credentials = await self._credentials(smarthost)
        last: HopFailed | None = None
        for address in addresses:
            if not attempt.waiting or attempt.sessions >= settings.sessions_tried:
                break
            if attempt.addresses >= settings.mx_addresses:
                break
            attempt.addresses += 1
            hop = Hop(host, address, port, policy, host)
            try:
                connection = await parts.opener.open(
                    hop, credentials=credentials, has_implicit_tls=port == SUBMISSIONS_PORT
                )
            except HopFailed as failure:
                attempt.sessions += failure.was_reached
                last = failure
                continue
            attempt.sessions += 1
            await self._carry(attempt, connection, content)
        if attempt.waiting and last is not None:
            attempt.note_failure(last)

    async def _policy(self, host: str, port: int, smarthost: Smarthost | None) -> HostTlsPolicy:
        level = TlsLevel.OPPORTUNISTIC if smarthost is None else smarthost.tls
        if level not in {TlsLevel.OPPORTUNISTIC, TlsLevel.DANE}:
            return HostTlsPolicy(host, level, "configured", (host,), why="the route says so")
        exchange = MailExchange(0, host)
        if level is TlsLevel.DANE:
            domain_policy = DomainTlsPolicy(host, level, "configured")
        else:
            domain_policy = await self._parts.policies.for_domain(host)
        # A name that was configured is as good as a secure MX record (RFC 7672 2.2.1).
        answer = DnsAnswer((exchange,), is_secure=True)
        return await self._parts.policies.for_host(domain_policy, exchange, answer, port)

    async def _addresses(self, host: str) -> list[str]:
        literal = host.strip("[]").removeprefix("ipv6:").removeprefix("IPv6:")
        try:
            return [str(ipaddress.ip_address(literal))]
        except ValueError:
            answer = await self._parts.resolver.addresses(host)
        # The administrator named this host: private addresses are as good as others.
        families = self._parts.settings.address_families
        found = [one for one in answer.records if families is AddressFamilies.BOTH or (":" in one) is (
            families is AddressFamilies.IPV6
        )]  # fmt: skip
        if not found:
            # What is configured may be mended; nobody's mail bounces for it.
            raise HopFailed(ROUTING_FAILED, f"Host {host} has no address")
        return found

    async def _credentials(self, smarthost: Smarthost | None) -> Credentials | None:
        if smarthost is None or not smarthost.username:
            return None
        try:
            password = await self._read(smarthost.password_file)
        except (OSError, ValueError) as error:
            raise HopFailed(
                LOGIN_FAILED,
                f"The password for {smarthost.host} cannot be read",
                problem=AttemptProblem.DESTINATION,
                is_asked=False,
            ) from error
        return Credentials(smarthost.username, password)


def split_target(target: str) -> tuple[str, int]:
    """``HOST:PORT``, ``[2001:db8::1]:25``; port 25 where there is none. Raises HopFailed."""
    host, _, port = target.rpartition(":")
    if not host or target.endswith("]"):
        host, port = target, "25"
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise HopFailed(ROUTING_FAILED, f"{target} is no host and port", is_asked=False)
    return host.lower().rstrip("."), int(port)
