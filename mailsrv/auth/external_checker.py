"""Decides about EXTERNAL (RFC 4422 appendix A): a certificate, verified in the TLS handshake, is the proof.

A certificate that is good is never refused by the throttle, for nobody can guess one; failures (of an account that is
not there, or may not log in) are counted and delayed as others are. A certificate that names several accounts is
for whichever of them the client asks for, and for none if it does not ask.
"""

from __future__ import annotations

import time
from typing import NoReturn

from cryptography.hazmat.primitives import hashes

from mailsrv.address import Address
from mailsrv.auth.certificate_names import certificate_accounts
from mailsrv.auth.names import parse_user_name
from mailsrv.auth.rules import LoginRules
from mailsrv.auth.settings import AuthSettings
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.interfaces.account import SaslCredentials
from mailsrv.interfaces.directory import DirectoryUser, IDirectory
from mailsrv.interfaces.sessions import LastingProof, Login
from mailsrv.sasl.external import parse_external

_NOBODY = "whoever a certificate is for"


class ExternalChecker:
    """A :data:`~mailsrv.auth.sasl_checker.SaslDecider`."""

    def __init__(
        self,
        directory: IDirectory,
        settings: AuthSettings,
        rules: LoginRules,
        *,
        throttle: LoginThrottle,
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._rules = rules
        self._throttle = throttle

    async def __call__(self, credentials: SaslCredentials) -> DirectoryUser | Login:
        """The log-in, or InvalidCredentials, Unavailable or SaslError."""
        authzid = parse_external(credentials.response)
        certificate = credentials.certificate
        if certificate is None:
            await self._refuse(credentials, _NOBODY, "no-certificate", "no client certificate that is good")
        proof = f"EXTERNAL {certificate.fingerprint(hashes.SHA256()).hex()}"
        accounts = certificate_accounts(certificate, self._settings.certificate_names, self._settings.default_domain)
        account = self._choose(accounts, authzid)
        if account is None:
            reason = "the certificate names several accounts" if accounts else "the certificate names no account"
            await self._refuse(credentials, _NOBODY, proof, reason)
        claim = self._rules.proven_claim(str(account), authzid)
        standing = await self._rules.standing(self._directory, claim, credentials)
        if standing.user is None or standing.objection:
            await self._refuse(credentials, claim.name, proof, standing.objection)
        self._throttle.proven(claim.name, credentials.client_address, proof)
        return self._rules.admit(standing, credentials, LastingProof(time.time))

    def _choose(self, accounts: tuple[Address, ...], authzid: str) -> Address | None:
        wanted = parse_user_name(authzid, self._settings.default_domain) if authzid else None
        if wanted in accounts:
            return wanted
        return accounts[0] if len(accounts) == 1 else None

    async def _refuse(self, credentials: SaslCredentials, name: str, proof: str, reason: str) -> NoReturn:
        await self._rules.refuse_proof(self._throttle, credentials, name=name, proof=proof, reason=reason)
