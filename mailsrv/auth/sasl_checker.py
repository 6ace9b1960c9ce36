"""Decides about mechanisms that do not hand a password over: SCRAM (RFC 5802), OAUTHBEARER (RFC 7628), XOAUTH2.

A user without keys, an unknown one and one who may not log in get a believable challenge, the same each time
(R-AUTH-4), and after it the answer that a wrong proof gets. The throttle counts the proof: a right one is known
again by its key, as a right password would be; of two wrong ones nobody can tell whether they are of the same
password, so each counts. A token that is good is never refused: nobody can guess one.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnhandledCredentials
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface, implementer

from mailsrv.auth.offer import MechanismOffer
from mailsrv.auth.rules import LoginRules, find_login
from mailsrv.auth.settings import AuthSettings
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.auth.token_errors import TokenRefused
from mailsrv.interfaces.account import InvalidCredentials, ISaslCredentials, SaslCredentials
from mailsrv.interfaces.directory import DirectoryUser, IDirectory
from mailsrv.sasl import SaslError
from mailsrv.sasl.bearer import BEARER_MECHANISMS, parse_bearer, refusal
from mailsrv.sasl.scram import PLUS, ScramServer
from mailsrv.sasl.scram_keys import DIGESTS, SALT_OCTETS, ScramKeys, find_keys, make_decoy

if TYPE_CHECKING:
    # It needs a library that not everybody installs.
    from mailsrv.auth.tokens import TokenJudge


@implementer(ICredentialsChecker)
class SaslChecker:
    """Checks :class:`SaslCredentials`; the avatar id is the :class:`DirectoryUser` itself.

    ``decoy_secret``: what the challenges of unknown users are made of, the same in all workers and after a restart.
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
        tokens: TokenJudge | None = None,
    ) -> None:
        self._directory = directory
        self._rules = LoginRules(settings, clock)
        self._clock = clock
        self._throttle = throttle
        self._offer = offer
        self._decoy_secret = decoy_secret
        self._tokens = tokens

    # cred's interface speaks of octets as avatar id; its portal hands on whatever it gets.
    def requestAvatarId(self, credentials: object) -> Deferred[DirectoryUser]:  # type: ignore[override]
        """The user, or InvalidCredentials, Unavailable, SaslError or SaslCancelled."""
        if isinstance(credentials, SaslCredentials):
            if credentials.mechanism.removesuffix(PLUS) in DIGESTS:
                return Deferred.fromCoroutine(self._scram(credentials))
            if credentials.mechanism in BEARER_MECHANISMS and self._tokens is not None:
                return Deferred.fromCoroutine(self._bearer(credentials, self._tokens))
        return fail(UnhandledCredentials())

    async def _scram(self, credentials: SaslCredentials) -> DirectoryUser:
        mechanism = credentials.mechanism.removesuffix(PLUS)
        scram = ScramServer(
            mechanism,
            is_plus=credentials.mechanism.endswith(PLUS),
            offers_plus=mechanism + PLUS in credentials.offered,
        )
        first = scram.receive_first(credentials.response)
        address, name = self._rules.account_name(first.authcid)
        user = None if address is None else await find_login(self._directory, address)
        reason = self._rules.objection(user, first.authzid, credentials.client_address)
        keys = None
        if user is not None and not reason:
            keys = find_keys(mechanism, (user.secret, *user.verifiers))
            reason = "no keys for SCRAM" if keys is None else "wrong proof"
        challenge = scram.challenge(keys or self._decoy(mechanism, name))
        final = await credentials.converse(challenge)
        is_proven = scram.receive_final(final, credentials.channel) and keys is not None
        started = self._clock.seconds()
        # From here to the end of the attempt nothing waits, so none is under way while it is not counted.
        proof = f"{mechanism} {keys.stored_key.hex() if is_proven and keys is not None else secrets.token_hex(16)}"
        attempt = self._throttle.begin(name, credentials.client_address, proof)
        if attempt.is_refused or not is_proven or user is None:
            reason = "too many failures" if attempt.is_refused else reason
            await self._rules.refuse(attempt, credentials, name=name, reason=reason, started=started)
            raise InvalidCredentials(cause=reason)
        attempt.succeeded()
        if await credentials.converse(scram.signature):
            raise SaslError
        return user

    async def _bearer(self, credentials: SaslCredentials, tokens: TokenJudge) -> DirectoryUser:
        given = parse_bearer(credentials.mechanism, credentials.response)
        user, name = None, self._rules.account_name(given.name)[1] if given.name else "whoever a token is for"
        try:
            account = await tokens.account_of(given.token)
        except TokenRefused as error:
            reason = f"token: {error}"
        else:
            address, name = self._rules.account_name(account)
            user = None if address is None else await find_login(self._directory, address)
            reason = self._rules.objection(user, given.name, credentials.client_address)
        started = self._clock.seconds()
        if user is not None and not reason:
            self._throttle.begin(name, credentials.client_address, given.token).succeeded()
            return user
        # The client has to answer once more (RFC 7628 3.2.3); what it says then means nothing.
        issuer = tokens.issuers[0]
        await credentials.converse(
            refusal(credentials.mechanism, scope=issuer.scope, openid_configuration=issuer.openid_configuration)
        )
        attempt = self._throttle.begin(name, credentials.client_address, given.token)
        await self._rules.refuse(attempt, credentials, name=name, reason=reason, started=started)
        raise InvalidCredentials(cause=reason)

    def _decoy(self, mechanism: str, name: str) -> ScramKeys:
        """Like most users' keys, or like a recommended user's where nobody has any."""
        iterations, salt_octets = 4096, SALT_OCTETS
        for standing in self._offer.scram():
            if standing.mechanism == mechanism:
                iterations, salt_octets = standing.iterations, standing.salt_octets
        return make_decoy(mechanism, name, self._decoy_secret, iterations=iterations, salt_octets=salt_octets)
