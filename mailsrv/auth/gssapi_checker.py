"""Decides about GSSAPI (RFC 4752): a Kerberos ticket for our service is the proof.

A good ticket is never refused by the throttle, for nobody can guess one. A keytab that cannot be read is trouble of
ours: a temporary failure, and an error in the log (R-AUTH-7).
"""

from __future__ import annotations

import functools
import time
from typing import NoReturn

from twisted.logger import Logger

from mailsrv.auth.gssapi_settings import GssapiSettings
from mailsrv.auth.gssapi_threads import TicketThreads
from mailsrv.auth.principals import PrincipalRefused, account_name
from mailsrv.auth.rules import LoginRules
from mailsrv.auth.second_factor import TICKET_NOT_ENOUGH
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.auth.tickets import Acceptor, KeytabUnusable, MakeAcceptor, TicketRefused
from mailsrv.errors import Unavailable
from mailsrv.interfaces.account import SaslCredentials
from mailsrv.interfaces.directory import DirectoryUser, IDirectory
from mailsrv.interfaces.sessions import LastingProof, Login
from mailsrv.sasl.errors import SaslError
from mailsrv.sasl.gssapi import OFFER, TOKENS_LIMIT, parse_choice

_NOBODY = "whoever a ticket is of"
_END_POINT = "tls-server-end-point"


class GssapiChecker:
    """A :data:`~mailsrv.auth.sasl_checker.SaslDecider`."""

    _log = Logger()

    def __init__(
        self,
        directory: IDirectory,
        settings: GssapiSettings,
        rules: LoginRules,
        *,
        threads: TicketThreads,
        make_acceptor: MakeAcceptor,
        throttle: LoginThrottle,
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._rules = rules
        self._threads = threads
        self._make_acceptor = make_acceptor
        self._throttle = throttle

    async def __call__(self, credentials: SaslCredentials) -> DirectoryUser | Login:
        """The log-in, or InvalidCredentials, Unavailable, SaslError or SaslCancelled."""
        acceptor = self._make_acceptor(self._settings, credentials.service, credentials.channel(_END_POINT))
        try:
            principal = await self._establish(acceptor, credentials)
            offer = await self._threads.run(functools.partial(acceptor.wrap, OFFER))
            choice = await credentials.converse(offer)
            authzid = parse_choice(await self._threads.run(functools.partial(acceptor.unwrap, choice)))
        except TicketRefused as error:
            # Nobody can guess a ticket: each kind of failure counts, not each try with an old one (R-NAT-1).
            await self._refuse(credentials, _NOBODY, f"GSSAPI {error}", f"ticket: {error}")
        except KeytabUnusable as error:
            self._log.error("nobody can log in by ticket: {reason}", reason=str(error))
            raise Unavailable(cause=str(error)) from None
        try:
            account = account_name(principal, self._settings)
        except PrincipalRefused as error:
            await self._refuse(credentials, _NOBODY, f"GSSAPI {principal}", f"ticket of {error}")
        claim = self._rules.proven_claim(account, authzid)
        standing = await self._rules.standing(self._directory, claim, credentials)
        proof = f"GSSAPI {principal}"
        if standing.user is None or standing.objection:
            await self._refuse(credentials, claim.name, proof, standing.objection)
        if not self._settings.counts_as_second_factor and self._rules.second_factor.demands(standing.user):
            # Tickets come from the directory's password unless the KDC asks for more; a ticket does not tell.
            await self._refuse(credentials, claim.name, proof, TICKET_NOT_ENOUGH)
        self._throttle.proven(claim.name, credentials.client_address, proof)
        lasting = LastingProof(time.time, is_second_factor=self._settings.counts_as_second_factor)
        return self._rules.admit(standing, credentials, lasting)

    async def _establish(self, acceptor: Acceptor, credentials: SaslCredentials) -> str:
        """The principal. When the context is there, our last token, if there is one, has its empty answer."""
        token = credentials.response
        for _ in range(TOKENS_LIMIT):
            accepted = await self._threads.run(functools.partial(acceptor.accept, token))
            if not accepted.principal:
                token = await credentials.converse(accepted.token)
                continue
            if accepted.token and await credentials.converse(accepted.token):
                raise SaslError
            return accepted.principal
        raise SaslError(cause="no end to the tokens")

    async def _refuse(self, credentials: SaslCredentials, name: str, proof: str, reason: str) -> NoReturn:
        await self._rules.refuse_proof(self._throttle, credentials, name=name, proof=proof, reason=reason)
