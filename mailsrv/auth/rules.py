"""What holds for a log-in by any mechanism: whose name it is, what speaks against it, and what a failure costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsrv.address import Address
from mailsrv.auth.access import AccessDecision, AccessRules
from mailsrv.auth.impersonation import Claim, objection_to, read_claim, read_proven_claim
from mailsrv.auth.second_factor import SecondFactorRule
from mailsrv.auth.settings import AuthSettings
from mailsrv.auth.throttle import Attempt, LoginThrottle
from mailsrv.interfaces.account import InvalidCredentials, PasswordCredentials, SaslCredentials
from mailsrv.interfaces.directory import DirectoryUser, IDirectory, ILoginDirectory
from mailsrv.interfaces.sessions import DirectoryProof, IProof, Login
from mailsrv.wire.networks import NetworkSet


class LoginPlace(Protocol):
    """Where somebody logs in, or has: credentials, or a session."""

    @property
    def service(self) -> str: ...

    @property
    def client_address(self) -> str: ...


@frozen
class Standing:
    """What is known of a log-in before its proof is looked at."""

    user: DirectoryUser | None
    """Whose credentials have to be right."""
    objection: str = ""
    """Why it fails whatever the proof, for the log; "" if nothing speaks against it."""
    target: DirectoryUser | None = None
    """Whose account it will be, where that is somebody else's."""


class LoginRules:
    """The same for all checkers."""

    _log = Logger()

    def __init__(self, settings: AuthSettings, clock: IReactorTime, access: AccessRules | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._access = access or AccessRules()
        self.second_factor = SecondFactorRule(settings)
        """Whose password, and what comes from it, is not enough."""

    def claim(self, authcid: str, authzid: str = "") -> Claim:
        """Who a client says it is and whom it wants to be. ``authzid`` as in RFC 4422 3.4.1, "" for none."""
        return read_claim(authcid, authzid, self._settings.impersonation, self._settings.default_domain)

    def proven_claim(self, account: str, authzid: str = "") -> Claim:
        """The same where somebody vouches for the account: a certificate, a ticket, a token."""
        return read_proven_claim(account, authzid, self._settings.default_domain)

    async def standing(
        self,
        directory: IDirectory,
        claim: Claim,
        credentials: PasswordCredentials | SaslCredentials,
        *,
        user: DirectoryUser | None = None,
    ) -> Standing:
        """Ask the directory. ``user``: who is behind the claim, where that is known by other means.

        Both accounts are looked up before anything is decided: the time tells nothing of either.
        """
        if user is None and claim.address is not None:
            user = await find_login(directory, claim.address)
        target = user
        wanted = claim.acting_for
        if wanted is not None and self._settings.impersonation.enabled:
            target = await find_login(directory, wanted)
        elif wanted is not None and user is not None and wanted != user.address:
            target = None
        return self._judge(user, target, claim, credentials)

    def _judge(
        self,
        user: DirectoryUser | None,
        target: DirectoryUser | None,
        claim: Claim,
        credentials: PasswordCredentials | SaslCredentials,
    ) -> Standing:
        if user is None:
            return Standing(None, "unknown user" if claim.address is not None else "no user name")
        objection = self.objection(user, credentials)
        if objection:
            return Standing(user, objection)
        if claim.is_contradictory:
            return Standing(user, "asks to act for somebody else")
        if target is None or target.address != user.address:
            objection = objection_to(user, target, credentials.service, self._settings.impersonation)
            return Standing(user, objection, None if objection else target)
        return Standing(user)

    def objection(self, user: DirectoryUser, credentials: LoginPlace) -> str:
        """Why this user may not log in there, whatever the proof; "" if nothing speaks against it."""
        if not user.may_log_in:
            return "may not log in"
        if user.networks and not _is_from(credentials.client_address, user.networks):
            return "may not log in from there"
        decision = self.access_decision(user, credentials)
        return "" if decision.is_allowed else f"access rule {decision.rule} denies it"

    def access_decision(self, user: DirectoryUser, credentials: LoginPlace) -> AccessDecision:
        """What the ``[[access]]`` tables say of it."""
        return self._access.decide(user, credentials.service, credentials.client_address)

    def admit(
        self,
        standing: Standing,
        credentials: PasswordCredentials | SaslCredentials,
        proof: IProof | None = None,
    ) -> DirectoryUser | Login:
        """The proof was right: what the realm gets. Whoever acts for somebody else is logged, with both names.

        ``proof`` None: it was the directory's password, which a bare user stands for.
        """
        if standing.user is None or standing.objection:
            raise RuntimeError("nobody is admitted against an objection")
        if standing.target is None:
            return standing.user if proof is None else Login(standing.user, proof)
        self._log.warn(
            "{service}: {administrator} logs in as {account} from {address}",
            service=credentials.service,
            administrator=str(standing.user.address),
            account=str(standing.target.address),
            address=credentials.client_address,
            connection=credentials.connection_id,
        )
        return Login(standing.target, proof or DirectoryProof(standing.user), acting=standing.user)

    async def refuse(
        self,
        attempt: Attempt,
        credentials: PasswordCredentials | SaslCredentials,
        *,
        name: str,
        reason: str,
        started: float,
    ) -> None:
        """Count the failure, log it, and wait as long as it deserves from when the attempt ``started``."""
        wait = started + attempt.failed() - self._clock.seconds()
        self._log.info(
            "{service}: log-in as {name} from {address} failed: {reason}",
            service=credentials.service,
            name=name,
            address=credentials.client_address,
            reason=reason,
            connection=credentials.connection_id,
        )
        if wait > 0:
            await deferLater(self._clock, wait, lambda: None)

    async def refuse_proof(
        self, throttle: LoginThrottle, credentials: SaslCredentials, *, name: str, proof: str, reason: str
    ) -> NoReturn:
        """Refuse a certificate or a ticket, which counts only now: nobody can guess one that is good.

        The same ``proof`` again is one failure (R-NAT-1). Raises InvalidCredentials, as late as the failure deserves.
        """
        started = self._clock.seconds()
        attempt = throttle.begin(name, credentials.client_address, proof)
        await self.refuse(attempt, credentials, name=name, reason=reason, started=started)
        raise InvalidCredentials(cause=reason)


def find_login(directory: IDirectory, address: Address) -> Deferred[DirectoryUser | None]:
    """The user who logs in by a name; some directories know more names for that than addresses."""
    if ILoginDirectory.providedBy(directory):
        return ILoginDirectory(directory).find_login(address)
    return directory.find_user(address)


def _is_from(client_address: str, networks: Sequence[str]) -> bool:
    if not client_address:
        return "local" in networks
    return client_address in NetworkSet(network for network in networks if network != "local")
