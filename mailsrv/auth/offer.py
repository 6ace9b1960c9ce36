"""Which mechanisms a session may announce now: those that at least somebody can log in by."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.x509 import Certificate

from mailsrv.auth.app_passwords.judge import AppPasswordJudge
from mailsrv.auth.certificate_names import certificate_accounts
from mailsrv.auth.second_factor import SecondFactorRule
from mailsrv.auth.settings import AuthSettings, ScramUse
from mailsrv.interfaces.directory import IDirectory, IScramDirectory, ScramStanding
from mailsrv.sasl import ALL_MECHANISMS, MECHANISM_NAMES
from mailsrv.sasl.bearer import BEARER_MECHANISMS
from mailsrv.sasl.external import EXTERNAL

_BOUND = {"SCRAM-SHA-256": "SCRAM-SHA-256-PLUS"}


class MechanismOffer:
    """Knows by settings and directory what can be had; an :class:`~mailsrv.sasl.ServerMechanisms`."""

    def __init__(
        self,
        settings: AuthSettings,
        directory: IDirectory,
        *,
        takes_tokens: bool = False,
        under_tls: Sequence[str] = (),
        app_passwords: AppPasswordJudge | None = None,
    ) -> None:
        """``takes_tokens``: an issuer of tokens is configured. ``under_tls``: what else can be had there."""
        self._second_factor = SecondFactorRule(settings)
        self._app_passwords = app_passwords
        self._under_tls = (*(BEARER_MECHANISMS if takes_tokens else ()), *under_tls)
        self._settings = settings
        self._use = settings.scram
        self._directory = IScramDirectory(directory) if IScramDirectory.providedBy(directory) else None
        self._known: dict[tuple[tuple[ScramStanding, ...], bool], tuple[str, ...]] = {}

    def __call__(self, is_tls: bool, certificate: Certificate | None = None, /) -> tuple[str, ...]:
        """In the order of preference; channel binding, tokens and certificates need TLS."""
        offer = self._offer(is_tls)
        if is_tls and certificate is not None and self._accounts(certificate):
            return (EXTERNAL, *offer)
        return offer

    def _accounts(self, certificate: Certificate) -> Sequence[object]:
        return certificate_accounts(certificate, self._settings.certificate_names, self._settings.default_domain)

    def _offer(self, is_tls: bool) -> tuple[str, ...]:
        standings = tuple(self.scram())
        offer = self._known.get((standings, is_tls))
        if offer is None:
            names = {*MECHANISM_NAMES, *(standing.mechanism for standing in standings)}
            if is_tls:
                # RFC 7628 4: whoever overhears a token can use it.
                names |= {*self._under_tls}
                names |= {_BOUND[name] for name in names if name in _BOUND}
            offer = tuple(name for name in ALL_MECHANISMS if name in names)
            # What the directory says changes with its file: only the last two answers are kept.
            if len(self._known) > 1:
                self._known.clear()
            self._known[standings, is_tls] = offer
        return offer

    def scram(self) -> Sequence[ScramStanding]:
        """The SCRAM mechanisms that can be had.

        An app password cannot be proved by them: where there are any, or have to be, not everyone can use SCRAM.
        """
        if self._use is ScramUse.OFF or self._directory is None or self._second_factor.demands_of_all:
            return ()
        standings = self._directory.scram_standings()
        if self._use is ScramUse.ON or not standings:
            return standings
        return [] if self._has_others() else [standing for standing in standings if standing.has_everyone]

    def _has_others(self) -> bool:
        """Whether somebody's clients have to log in by an app password."""
        if self._second_factor.may_demand:
            return True
        if self._app_passwords is None:
            return False
        self._app_passwords.look()
        return self._app_passwords.are_any
