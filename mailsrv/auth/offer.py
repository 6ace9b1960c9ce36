"""Which mechanisms a session may announce now: those that at least somebody can log in by."""

from __future__ import annotations

from collections.abc import Sequence

from mailsrv.auth.settings import AuthSettings, ScramUse
from mailsrv.interfaces.directory import IDirectory, IScramDirectory, ScramStanding
from mailsrv.sasl import ALL_MECHANISMS, MECHANISM_NAMES
from mailsrv.sasl.bearer import BEARER_MECHANISMS

_BOUND = {"SCRAM-SHA-256": "SCRAM-SHA-256-PLUS"}


class MechanismOffer:
    """Knows by settings and directory what can be had; an :data:`~mailsrv.sasl.OfferedMechanisms`."""

    def __init__(self, settings: AuthSettings, directory: IDirectory, *, takes_tokens: bool = False) -> None:
        """``takes_tokens``: an issuer of tokens is configured."""
        self._tokens = BEARER_MECHANISMS if takes_tokens else ()
        self._use = settings.scram
        self._directory = IScramDirectory(directory) if IScramDirectory.providedBy(directory) else None
        self._known: dict[tuple[tuple[ScramStanding, ...], bool], tuple[str, ...]] = {}

    def __call__(self, is_tls: bool) -> tuple[str, ...]:
        """In the order of preference; channel binding and tokens need TLS."""
        standings = tuple(self.scram())
        offer = self._known.get((standings, is_tls))
        if offer is None:
            names = {*MECHANISM_NAMES, *(standing.mechanism for standing in standings)}
            if is_tls:
                # RFC 7628 4: whoever overhears a token can use it.
                names |= {*self._tokens}
                names |= {_BOUND[name] for name in names if name in _BOUND}
            offer = tuple(name for name in ALL_MECHANISMS if name in names)
            # What the directory says changes with its file: only the last two answers are kept.
            if len(self._known) > 1:
                self._known.clear()
            self._known[standings, is_tls] = offer
        return offer

    def scram(self) -> Sequence[ScramStanding]:
        """The SCRAM mechanisms that can be had."""
        if self._use is ScramUse.OFF or self._directory is None:
            return ()
        standings = self._directory.scram_standings()
        return [standing for standing in standings if standing.has_everyone or self._use is ScramUse.ON]
