"""Decides about mechanisms that do not hand a password over: about SCRAM (RFC 5802) itself, about others who is told.

A user without keys, one of whom a second factor is demanded and an unknown one get a believable challenge; one who may
not log in gets their own. It is the same each time, wherever and as whomever they ask (R-AUTH-4), and after it comes
the answer that a wrong proof gets. The throttle counts the proof: a right one is known again by its key, as a right
password would be; of two wrong ones nobody can tell whether they are of the same password, so each counts.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnhandledCredentials
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface, implementer

from mailsrv.auth.access import AccessRules
from mailsrv.auth.offer import MechanismOffer
from mailsrv.auth.rules import LoginRules
from mailsrv.auth.second_factor import SECOND_FACTOR_DEMANDED
from mailsrv.auth.settings import AuthSettings
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.interfaces.account import InvalidCredentials, ISaslCredentials, SaslCredentials
from mailsrv.interfaces.directory import DirectoryUser, IDirectory
from mailsrv.interfaces.sessions import Login
from mailsrv.sasl import SaslError
from mailsrv.sasl.scram import PLUS, ScramServer
from mailsrv.sasl.scram_keys import DIGESTS, SALT_OCTETS, ScramKeys, find_keys, make_decoy

SaslDecider = Callable[[SaslCredentials], Coroutine[Any, Any, DirectoryUser | Login]]
"""Decides about one mechanism; raises as :meth:`SaslChecker.requestAvatarId` fails."""


@implementer(ICredentialsChecker)
class SaslChecker:
    """Checks :class:`SaslCredentials`; the avatar id is the :class:`DirectoryUser` itself, or a :class:`Login`.

    ``decoy_secret``: what the challenges of unknown users are made of, the same in all workers and after a restart.
    ``further``: who decides about mechanisms that this class knows nothing of.
    """

    credentialInterfaces: Sequence[type[Interface]] = (ISaslCredentials,)

    def __init__(
        self,
        directory: IDirectory,
        settings: AuthSettings,
        *,
        clock: IReactorTime,
        throttle: LoginThrottle,
        offer: MechanismOffer,
        decoy_secret: bytes,
        further: Mapping[str, SaslDecider] | None = None,
        access: AccessRules | None = None,
    ) -> None:
        self._directory = directory
        self._rules = LoginRules(settings, clock, access)
        self._clock = clock
        self._throttle = throttle
        self._offer = offer
        self._decoy_secret = decoy_secret
        self._further = further or {}

    # cred's interface speaks of octets as avatar id; its portal hands on whatever it gets.
    def requestAvatarId(self, credentials: object) -> Deferred[DirectoryUser | Login]:  # type: ignore[override]
        """The user, or InvalidCredentials, Unavailable, SaslError or SaslCancelled."""
        if isinstance(credentials, SaslCredentials):
            if credentials.mechanism.removesuffix(PLUS) in DIGESTS:
                return Deferred.fromCoroutine(self._scram(credentials))
            decider = self._further.get(credentials.mechanism)
            if decider is not None:
                return Deferred.fromCoroutine(decider(credentials))
        return fail(UnhandledCredentials())

    async def _scram(self, credentials: SaslCredentials) -> DirectoryUser | Login:
        mechanism = credentials.mechanism.removesuffix(PLUS)
        scram = ScramServer(
            mechanism,
            is_plus=credentials.mechanism.endswith(PLUS),
            offers_plus=mechanism + PLUS in credentials.offered,
        )
        first = scram.receive_first(credentials.response)
        claim = self._rules.claim(first.authcid, first.authzid)
        standing = await self._rules.standing(self._directory, claim, credentials)
        user, reason = standing.user, standing.objection
        keys = None
        if user is not None and self._rules.second_factor.demands(user):
            reason = reason or SECOND_FACTOR_DEMANDED
        elif user is not None:
            # Whatever speaks against it: a salt that changes with the service, or with whom one asks to be, would
            # tell that there is such a user.
            keys = find_keys(mechanism, (user.secret, *user.verifiers))
            reason = reason or ("no keys for SCRAM" if keys is None else "wrong proof")
        challenge = scram.challenge(keys or self._decoy(mechanism, claim.name))
        final = await credentials.converse(challenge)
        is_proven = scram.receive_final(final, credentials.channel) and keys is not None and not standing.objection
        started = self._clock.seconds()
        # From here to the end of the attempt nothing waits, so none is under way while it is not counted.
        proof = f"{mechanism} {keys.stored_key.hex() if is_proven and keys is not None else secrets.token_hex(16)}"
        attempt = self._throttle.begin(claim.name, credentials.client_address, proof)
        if attempt.is_refused or not is_proven:
            reason = "too many failures" if attempt.is_refused else reason
            await self._rules.refuse(attempt, credentials, name=claim.name, reason=reason, started=started)
            raise InvalidCredentials(cause=reason)
        attempt.succeeded()
        if await credentials.converse(scram.signature):
            raise SaslError
        return self._rules.admit(standing, credentials)

    def _decoy(self, mechanism: str, name: str) -> ScramKeys:
        """Like most users' keys, or like a recommended user's where nobody has any."""
        iterations, salt_octets = 4096, SALT_OCTETS
        for standing in self._offer.scram():
            if standing.mechanism == mechanism:
                iterations, salt_octets = standing.iterations, standing.salt_octets
        return make_decoy(mechanism, name, self._decoy_secret, iterations=iterations, salt_octets=salt_octets)
