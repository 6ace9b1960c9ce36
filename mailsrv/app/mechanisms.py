"""Who decides about the SASL mechanisms whose proof is no secret of the user's: tokens, certificates, tickets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from mailsrv.app.settings import Service
from mailsrv.auth.access import AccessRules
from mailsrv.auth.bearer_checker import BearerChecker
from mailsrv.auth.external_checker import ExternalChecker
from mailsrv.auth.gssapi_checker import GssapiChecker
from mailsrv.auth.gssapi_threads import TicketThreads
from mailsrv.auth.rules import LoginRules
from mailsrv.auth.sasl_checker import SaslDecider
from mailsrv.auth.second_factor import SecondFactorRule
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.auth.tickets import KeytabUnusable
from mailsrv.config.schema import Settings
from mailsrv.interfaces.directory import IDirectory
from mailsrv.sasl.bearer import BEARER_MECHANISMS
from mailsrv.sasl.external import EXTERNAL
from mailsrv.sasl.gssapi import GSSAPI
from mailsrv.wire.tls_mode import TlsMode

if TYPE_CHECKING:
    # It needs a library that not everybody installs.
    from mailsrv.auth.tokens import TokenJudge


def make_deciders(
    settings: Settings,
    directory: IDirectory,
    *,
    clock: IReactorTime,
    throttle: LoginThrottle,
    access: AccessRules,
    tokens: TokenJudge | None,
    ticket_threads: TicketThreads,
) -> dict[str, SaslDecider]:
    """By mechanism. Does not wait. ``tokens`` None: no issuer is configured."""
    rules = LoginRules(settings.auth, clock, access)
    deciders: dict[str, SaslDecider] = {EXTERNAL: ExternalChecker(directory, settings.auth, rules, throttle=throttle)}
    if tokens is not None:
        bearer = BearerChecker(directory, rules, tokens, clock=clock, throttle=throttle, seconds=time.time)
        deciders |= dict.fromkeys(BEARER_MECHANISMS, bearer)
    if settings.gssapi.keytab_file:
        from mailsrv.auth.gssapi_acceptor import TicketAcceptor

        deciders[GSSAPI] = GssapiChecker(
            directory,
            settings.gssapi,
            rules,
            threads=ticket_threads,
            make_acceptor=TicketAcceptor,
            throttle=throttle,
        )
    return deciders


def offered_under_tls(settings: Settings) -> tuple[str, ...]:
    """What can be had there beside passwords, SCRAM, tokens and certificates."""
    is_of_use = settings.gssapi.counts_as_second_factor or not SecondFactorRule(settings.auth).demands_of_all
    return (GSSAPI,) if settings.gssapi.keytab_file and is_of_use else ()


def check_keytab(settings: Settings) -> None:
    """Whether there is a key for each service somebody could log in to. Waits for the disk, raises KeytabUnusable."""
    if not settings.gssapi.keytab_file:
        return
    try:
        from mailsrv.auth.gssapi_acceptor import acquire
    except (ImportError, OSError) as error:
        # It is installed, and what it is made upon is not.
        raise KeytabUnusable(f"gssapi.keytab_file: the library gssapi cannot be loaded: {error}") from error

    services = {listen.service for listen in settings.listen if listen.tls is not TlsMode.NONE}
    for service in sorted(service.value for service in services & {Service.SUBMISSION, Service.IMAP, Service.POP3}):
        acquire(settings.gssapi, service)
