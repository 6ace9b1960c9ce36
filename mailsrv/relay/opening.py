"""From an address to a connection over which mail may flow: connect, greet, TLS as the policy wants, AUTH.

What goes wrong comes out as :class:`~mailsrv.relay.outcomes.HopFailed`. How TLS went is told to the
policies for the day's report (RFC 8460), once for each host that was spoken to. A host whose TLS is broken is
remembered for some minutes: where mail may flow without, it does at once, over one connection.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from attrs import define, evolve, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError, UserError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IReactorTime
from twisted.logger import Logger

from mailsrv.interfaces.queue import AttemptProblem
from mailsrv.interfaces.tls_policy import HostTlsPolicy, ITlsPolicies, TlsLevel, TlsResult
from mailsrv.relay.dialer import IDialer
from mailsrv.relay.hops import Hop
from mailsrv.relay.outcomes import (
    CANNOT_CONNECT,
    CONNECTION_LOST,
    LOGIN_FAILED,
    PROTOCOL_BROKEN,
    TLS_NOT_GOOD,
    TLS_NOT_OFFERED,
    HopFailed,
    status_of,
)
from mailsrv.relay.settings import RelaySettings
from mailsrv.smtp.client.events import Problem
from mailsrv.smtp.client.failures import LoginRefused, SessionFailed, TlsFailed, TlsNotStarted
from mailsrv.smtp.client.protocol import SmtpClientProtocol
from mailsrv.smtp.client.replies import printable
from mailsrv.smtp.client.session import SmtpClientSession

log = Logger()

_NO_MAIL_HERE = 521


class Verdict(Protocol):
    """:class:`mailsrv.tls.client.TlsVerdict`."""

    @property
    def is_ok(self) -> bool: ...
    @property
    def result_type(self) -> str: ...
    @property
    def detail(self) -> str: ...


class ConnectionTls(Protocol):
    """:class:`mailsrv.tls.client.ClientTls`, as far as it is needed here."""

    def connection_creator(self, policy: HostTlsPolicy) -> IOpenSSLClientConnectionCreator: ...
    def check(self, policy: HostTlsPolicy, transport: Any) -> Verdict: ...


@frozen
class Credentials:
    """For AUTH."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"


@define(eq=False)
class OpenConnection:
    """A connection mail can be sent over, with what has to be known to use it again."""

    protocol: SmtpClientProtocol
    host: str
    address: str
    is_verified: bool
    """TLS with an identity that was checked; good enough for REQUIRETLS."""
    is_local: bool
    """LMTP: what is taken is delivered."""
    opened_at: float
    messages: int = 0
    idle_since: float = 0.0


class _NotGoodEnough(Exception):
    """The certificate is not what the policy demands."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.detail)
        self.verdict = verdict


class Opener:
    """Opens connections. ``helo_name`` is what EHLO says."""

    def __init__(
        self,
        settings: RelaySettings,
        helo_name: str,
        dialer: IDialer,
        *,
        client_tls: ConnectionTls,
        policies: ITlsPolicies,
        clock: IReactorTime,
    ) -> None:
        self._settings = settings
        self._helo_name = helo_name
        self._dialer = dialer
        self._client_tls = client_tls
        self._policies = policies
        self._clock = clock
        self._broken_tls = _BrokenTls(settings, clock)

    async def open(
        self, hop: Hop, *, credentials: Credentials | None = None, has_implicit_tls: bool = False
    ) -> OpenConnection:
        """By SMTP. Raises HopFailed."""
        protocol = self._make_protocol(is_lmtp=False)
        try:
            await self._dial(lambda: self._dialer.connect(hop.address, hop.port, protocol), hop.host, hop.address)
            hop = evolve(hop, local_address=_local_address(protocol))
            if has_implicit_tls:
                await self._begin_tls(protocol, hop)
            else:
                await protocol.wait_until_ready()
                await self._upgrade(protocol, hop)
            await self._log_in(protocol, hop, credentials)
        except _Fallback:
            # RFC 7435: any mail is better than none; on a fresh connection, for this one is spoilt.
            plain = evolve(hop, policy=evolve(hop.policy, level=TlsLevel.NONE))
            return await self.open(plain, credentials=credentials)
        except SessionFailed as failure:
            protocol.abort()
            raise _session_failure(failure, hop.host) from failure
        except HopFailed:
            protocol.quit()
            raise
        except Exception:
            protocol.abort()
            raise
        is_verified = protocol.session.is_tls and hop.policy.is_verified and not hop.policy.is_testing
        log.debug(
            "relay: connected to {host} [{address}], {security}",
            host=hop.host,
            address=hop.address,
            security="verified TLS" if is_verified else "TLS" if protocol.session.is_tls else "in the clear",
        )
        return OpenConnection(protocol, hop.host, hop.address, is_verified, False, self._clock.seconds())

    async def open_lmtp(self, endpoint: str) -> OpenConnection:
        """By LMTP at a client endpoint. Raises HopFailed."""
        protocol = self._make_protocol(is_lmtp=True)
        try:
            await self._dial(lambda: self._dialer.connect_endpoint(endpoint, protocol), "", endpoint)
            await protocol.wait_until_ready()
        except SessionFailed as failure:
            protocol.abort()
            raise _session_failure(failure, endpoint) from failure
        return OpenConnection(protocol, endpoint, endpoint, endpoint.startswith("unix:"), True, self._clock.seconds())

    def _make_protocol(self, *, is_lmtp: bool) -> SmtpClientProtocol:
        session = SmtpClientSession(self._settings, hostname=self._helo_name, is_lmtp=is_lmtp)
        return SmtpClientProtocol(session, self._settings, self._clock)

    async def _dial(self, dial: Callable[[], Deferred[Any]], host: str, address: str) -> None:
        try:
            await dial()
        except (
            ConnectError,
            UserError,
            OSError,
            ValueError,
            TypeError,
            ConnectTimeout,
            DeferredTimeout,
            CancelledError,
        ) as error:
            reason = _connect_trouble(error)
            log.debug("relay: no connection to {host} {address}: {reason}", host=host, address=address, reason=reason)
            where = f"{host} [{address}]" if host and host.strip("[]") != address else address
            raise HopFailed(CANNOT_CONNECT, f"No connection to {where}: {reason}") from error

    # -- TLS

    async def _begin_tls(self, protocol: SmtpClientProtocol, hop: Hop) -> None:
        try:
            await protocol.begin_tls(self._client_tls.connection_creator(hop.policy), self._checker(hop))
        except (TlsFailed, _NotGoodEnough) as failure:
            # There is no way without.
            self._record(hop, *_report_of(failure))
            raise HopFailed(TLS_NOT_GOOD, f"TLS with {hop.host}: {failure}", was_reached=True) from failure

    async def _upgrade(self, protocol: SmtpClientProtocol, hop: Hop) -> None:
        policy = hop.policy
        if policy.level is TlsLevel.NONE:
            return
        may_go_without = policy.level is TlsLevel.OPPORTUNISTIC or policy.is_testing
        known = self._broken_tls.find(hop) if may_go_without else None
        if known is not None:
            # As it went a moment ago, so it would go now: that is what the report counts, too.
            self._record(hop, *known)
            return
        if not protocol.session.capabilities.offers("STARTTLS"):
            self._record(hop, "starttls-not-supported", "the host does not offer STARTTLS")
            if not may_go_without:
                raise HopFailed(TLS_NOT_OFFERED, f"TLS is required, but {hop.host} does not offer it", was_reached=True)
            return
        try:
            await protocol.start_tls(self._client_tls.connection_creator(policy), self._checker(hop))
        except TlsNotStarted as refusal:
            self._record(hop, "starttls-not-supported", refusal.reply.text)
            if not may_go_without:
                raise HopFailed(
                    TLS_NOT_OFFERED,
                    f"TLS is required, but {hop.host} refused it: {refusal.reply.text}",
                    was_reached=True,
                ) from refusal
        except (TlsFailed, _NotGoodEnough) as failure:
            report = _report_of(failure)
            self._record(hop, *report)
            if may_go_without:
                self._broken_tls.note(hop, report)
                raise _Fallback from failure
            raise HopFailed(TLS_NOT_GOOD, f"TLS with {hop.host}: {failure}", was_reached=True) from failure

    def _checker(self, hop: Hop) -> Callable[[Any], None]:
        def check(transport: Any) -> None:
            verdict = self._client_tls.check(hop.policy, transport)
            if not verdict.is_ok:
                raise _NotGoodEnough(verdict)
            self._record(hop, verdict.result_type, verdict.detail)

        return check

    def _record(self, hop: Hop, result_type: str, detail: str = "") -> None:
        self._policies.record(
            TlsResult(hop.domain, hop.host, hop.address, hop.policy, result_type, printable(detail), hop.local_address)
        )

    async def _log_in(self, protocol: SmtpClientProtocol, hop: Hop, credentials: Credentials | None) -> None:
        if credentials is None:
            return
        try:
            await protocol.authenticate(credentials.username, credentials.password)
        except LoginRefused as refusal:
            # Our password, not the sender's mail: nothing bounces for it.
            reason = (
                refusal.reply.text if refusal.reply is not None else "AUTH PLAIN or LOGIN inside TLS is not offered"
            )
            log.error("relay: {host} does not let us log in: {reason}", host=hop.host, reason=reason)
            raise HopFailed(LOGIN_FAILED, f"Log-in at {hop.host}: {reason}", hop.host, was_reached=True) from refusal


class _BrokenTls:
    """Addresses at which TLS failed lately, and how; the oldest first."""

    def __init__(self, settings: RelaySettings, clock: IReactorTime) -> None:
        self._settings = settings
        self._clock = clock
        self._known: OrderedDict[tuple[str, int], tuple[float, tuple[str, str]]] = OrderedDict()

    def note(self, hop: Hop, report: tuple[str, str]) -> None:
        """It failed, with this for the report."""
        key = hop.address, hop.port
        self._known[key] = self._clock.seconds() + self._settings.broken_tls_seconds, report
        self._known.move_to_end(key)
        if len(self._known) > self._settings.broken_tls_hosts:
            self._known.popitem(last=False)

    def find(self, hop: Hop) -> tuple[str, str] | None:
        """What was noted, while it counts."""
        if not self._known:
            return None
        key = hop.address, hop.port
        known = self._known.get(key)
        if known is None:
            return None
        until, report = known
        if until <= self._clock.seconds():
            del self._known[key]
            return None
        return report


class _Fallback(Exception):
    """TLS failed where mail may flow without."""


def _report_of(failure: TlsFailed | _NotGoodEnough) -> tuple[str, str]:
    if isinstance(failure, _NotGoodEnough):
        return failure.verdict.result_type or "validation-failure", failure.verdict.detail
    return "validation-failure", str(failure)


def _session_failure(failure: SessionFailed, host: str) -> HopFailed:
    """A connection that ended before any mail."""
    reply = failure.reply
    if reply is None:
        status = PROTOCOL_BROKEN if failure.problem is Problem.CONFUSED else CONNECTION_LOST
        return HopFailed(status, f"Conversation with {host}: {failure.text}", was_reached=True)
    status = status_of(reply)
    if status.kind == 5 and reply.code != _NO_MAIL_HERE:
        # RFC 7504 2: only 521 says that there never is mail; other refusals of whole connections are a matter of
        # reputation or of a host's trouble, and pass.
        status = status.as_temporary()
    return HopFailed(status, reply.text, host, problem=AttemptProblem.DESTINATION, was_reached=True)


def _local_address(protocol: SmtpClientProtocol) -> str:
    """Where a connection comes from; empty where the transport does not know, or is gone already."""
    try:
        return str(protocol.transport.getHost().host)
    except (AttributeError, OSError):
        return ""


def _connect_trouble(error: BaseException) -> str:
    if isinstance(error, ConnectTimeout | DeferredTimeout):
        return "timed out"
    if isinstance(error, ConnectError):
        text = type(error).__doc__ or ""
        reason = getattr(error, "osError", None)
        return printable(str(reason.strerror) if isinstance(reason, OSError) else text.split("\n")[0].rstrip("."), 100)
    if isinstance(error, OSError):
        return printable(error.strerror or "refused by the system", 100)
    return "it cannot be made"
