"""Whether resolvers validate: they have to prove it before their AD bit is believed (RFC 7672 2.1).

A resolver that validates sets AD on a signed domain and has no answer (SERVFAIL) for one whose
signatures are wrong. Only servers that may be trusted at all are tried: the way to any other
could be listened in on. What they are is found out before the first question of mail is
answered, and again from time to time; a test that could not be made changes nothing.

Where one has proved it, only such servers are asked: from another one, a forged answer would come
as an ordinary one and take DANE away.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from attrs import define
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from twisted.names.dns import NS

from mailsrv.dns.asking import Asking
from mailsrv.dns.servers import Server
from mailsrv.dns.settings import DnsSettings, TrustedServers
from mailsrv.dns.wire import NOERROR, NXDOMAIN, RCODES, ROOT, SERVFAIL, Reply, WireError, normalize_name

TRY_AGAIN_SECONDS = 60.0


class Proof(enum.Enum):
    """What is known of a server."""

    UNKNOWN = "unknown"
    PROVED = "proved"
    REFUTED = "refuted"


@define
class _State:
    proof: Proof = Proof.UNKNOWN
    why: str = "not tried yet"
    test_again_at: float = 0.0
    testing: Deferred[None] | None = None


class Validation:
    """Which of the servers may be asked, and whether what they say of DNSSEC counts."""

    _log = Logger()

    def __init__(
        self,
        settings: DnsSettings,
        asking: Asking,
        seconds: Callable[[], float],
        when_changed: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._asking = asking
        self._seconds = seconds
        self._when_changed = when_changed
        self._states: dict[Server, _State] = {}
        self._signed = normalize_name(settings.self_test_signed) or ROOT
        self._broken = normalize_name(settings.self_test_broken) if settings.self_test_broken else None
        self._told_that_none = False

    async def choose(self, servers: Sequence[Server]) -> tuple[Sequence[Server], bool]:
        """The servers to ask, and whether their AD bit counts. Waits for the first test, never for later ones."""
        trusted = [server for server in servers if self._may_trust(server)]
        if not trusted:
            if not self._told_that_none:
                self._told_that_none = True
                self._log.warn("No resolver may be trusted to validate (dns.trust_ad): DANE is off")
            return servers, False
        for server in trusted:
            await self._be_tested(server)
        proved = [server for server in trusted if self._states[server].proof is Proof.PROVED]
        return (proved, True) if proved else (servers, False)

    def states(self, servers: Sequence[Server]) -> dict[str, str]:
        """For people: each server and what is known of it."""
        return {
            str(server): (
                f"{self._states[server].proof.value}: {self._states[server].why}"
                if server in self._states
                else ("not tried yet" if self._may_trust(server) else "not trusted to validate (dns.trust_ad)")
            )
            for server in servers
        }

    def _may_trust(self, server: Server) -> bool:
        if self._settings.trust_ad is TrustedServers.LOOPBACK:
            return server.is_loopback or server.has_trust_option
        return self._settings.trust_ad is TrustedServers.ALL

    async def _be_tested(self, server: Server) -> None:
        state = self._states.get(server)
        if state is None:
            if len(self._states) > 64:
                self._states = {known: one for known, one in self._states.items() if one.testing is not None}
            state = self._states[server] = _State()
        if state.testing is None and self._seconds() >= state.test_again_at:
            is_first = state.test_again_at == 0.0
            state.testing = Deferred()
            # Not part of the question that happened to start it: that may be cancelled.
            testing = Deferred.fromCoroutine(self._test(server, state))
            testing.addErrback(lambda failure: self._log.failure("The test of a resolver failed", failure))
            if not is_first:
                return
        if state.testing is not None and state.test_again_at == 0.0:
            waiting: Deferred[None] = Deferred()
            state.testing.addCallback(lambda _: None if waiting.called else waiting.callback(None))
            await waiting

    async def _test(self, server: Server, state: _State) -> None:
        before = state.proof
        try:
            proof, why = await self._find_out(server)
        except Exception:
            self._log.failure("The test of resolver {server} failed", server=str(server))
            proof, why = Proof.UNKNOWN, "the test failed"
        if proof is not Proof.UNKNOWN or before is Proof.UNKNOWN:
            self._tell(server, state, proof, why)
            state.proof, state.why = proof, why
        interval = self._settings.self_test_interval
        state.test_again_at = self._seconds() + (
            interval if proof is Proof.PROVED else min(TRY_AGAIN_SECONDS, interval)
        )
        if state.proof is not before:
            self._when_changed()
        done, state.testing = state.testing, None
        if done is not None:
            done.callback(None)

    async def _find_out(self, server: Server) -> tuple[Proof, str]:
        names = [self._signed] + ([self._broken] if self._broken is not None else [])
        replies = await gatherResults([Deferred.fromCoroutine(self._reply(server, name)) for name in names])
        signed = replies[0]
        if not isinstance(signed, Reply) or signed.rcode not in (NOERROR, NXDOMAIN):
            return Proof.UNKNOWN, f"{self._signed} could not be asked for: {_describe(signed)}"
        if not signed.is_authentic:
            return Proof.REFUTED, f"it does not say that {self._signed} is signed"
        if self._broken is None:
            return Proof.PROVED, f"{self._signed} is signed"
        broken = replies[1]
        if not isinstance(broken, Reply):
            return Proof.UNKNOWN, f"{self._broken} could not be asked for: {broken}"
        if broken.rcode == SERVFAIL:
            return Proof.PROVED, f"{self._signed} is signed, {self._broken} is refused"
        if broken.rcode in (NOERROR, NXDOMAIN):
            return Proof.REFUTED, f"it answers for {self._broken}, whose signatures are wrong"
        return Proof.UNKNOWN, f"{self._broken} could not be asked for: {_describe(broken)}"

    async def _reply(self, server: Server, name: str) -> Reply | str:
        # A resolver tries all servers of a domain before it says that their signatures are wrong.
        timeout = self._settings.timeout * 2
        try:
            return await self._asking.ask_one(server, name, NS, timeout, wants_dnssec=True)
        except WireError as error:
            return str(error)
        except Exception as error:  # sockets and twisted.internet have many
            return f"no answer ({type(error).__name__})"

    def _tell(self, server: Server, state: _State, proof: Proof, why: str) -> None:
        if (proof, why) == (state.proof, state.why):
            return
        if proof is Proof.PROVED:
            self._log.info("Resolver {server} validates DNSSEC: {why}", server=str(server), why=why)
        else:
            self._log.warn(
                "Resolver {server} did not prove that it validates DNSSEC, DANE is off with it: {why}",
                server=str(server),
                why=why,
            )


def _describe(reply: Reply | str) -> str:
    return reply if isinstance(reply, str) else RCODES.get(reply.rcode, f"answer code {reply.rcode}")
