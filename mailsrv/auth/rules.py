"""What holds for a log-in by any mechanism: whose name it is, what speaks against it, and what a failure costs."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsrv.address import Address
from mailsrv.auth.names import parse_user_name
from mailsrv.auth.settings import AuthSettings
from mailsrv.auth.throttle import Attempt
from mailsrv.interfaces.account import PasswordCredentials, SaslCredentials
from mailsrv.interfaces.directory import DirectoryUser, IDirectory, ILoginDirectory
from mailsrv.wire.networks import NetworkSet


class LoginRules:
    """The same for all checkers."""

    _log = Logger()

    def __init__(self, settings: AuthSettings, clock: IReactorTime) -> None:
        self._default_domain = settings.default_domain
        self._clock = clock

    def account_name(self, authcid: str) -> tuple[Address | None, str]:
        """The address a user name means, if it can mean one, and what failures are counted and logged under."""
        address = parse_user_name(authcid, self._default_domain)
        return address, ascii(authcid[:320]) if address is None else str(address)

    def objection(self, user: DirectoryUser | None, authzid: str, client_address: str) -> str:
        """Why a log-in fails whatever the proof; "" if nothing speaks against it."""
        if user is None:
            return "unknown user"
        if not user.may_log_in:
            return "may not log in"
        if user.networks and not _is_from(client_address, user.networks):
            return "may not log in from there"
        if authzid:
            # RFC 4616 section 2: acting for somebody else is not supported; naming oneself twice is.
            acting_for = parse_user_name(authzid, self._default_domain)
            if acting_for is None or str(acting_for) != str(user.address):
                return "asks to act for somebody else"
        return ""

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


def find_login(directory: IDirectory, address: Address) -> Deferred[DirectoryUser | None]:
    """The user who logs in by a name; some directories know more names for that than addresses."""
    if ILoginDirectory.providedBy(directory):
        return ILoginDirectory(directory).find_login(address)
    return directory.find_user(address)


def _is_from(client_address: str, networks: Sequence[str]) -> bool:
    if not client_address:
        return "local" in networks
    return client_address in NetworkSet(network for network in networks if network != "local")
