"""Who decides about the SASL mechanisms whose proof is no secret of the user's: tokens, certificates, tickets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from mailsrv.auth.access import AccessRules
from mailsrv.auth.bearer_checker import BearerChecker
from mailsrv.auth.external_checker import ExternalChecker
from mailsrv.auth.rules import LoginRules
from mailsrv.auth.sasl_checker import SaslDecider
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.config.schema import Settings
from mailsrv.interfaces.directory import IDirectory
from mailsrv.sasl.bearer import BEARER_MECHANISMS
from mailsrv.sasl.external import EXTERNAL

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
) -> dict[str, SaslDecider]:
    """By mechanism. Does not wait. ``tokens`` None: no issuer is configured."""
    rules = LoginRules(settings.auth, clock, access)
    deciders: dict[str, SaslDecider] = {
        EXTERNAL: ExternalChecker(directory, settings.auth, rules, clock=clock, throttle=throttle)
    }
    if tokens is not None:
        bearer = BearerChecker(directory, rules, tokens, clock=clock, throttle=throttle, seconds=time.time)
        deciders |= dict.fromkeys(BEARER_MECHANISMS, bearer)
    return deciders
