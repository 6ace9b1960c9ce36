"""Who may not log in by the directory's password alone, because a second factor is demanded of them.

Mail programs cannot ask for one. What lets such users in is something that was given out after it had been shown: an
app password, a token of the identity provider, a client certificate.
"""

from __future__ import annotations

from mailsrv.auth.names import comparable_group
from mailsrv.auth.settings import AuthSettings, SecondFactor
from mailsrv.interfaces.directory import DirectoryUser

SECOND_FACTOR_DEMANDED = "a second factor is demanded: no log-in by the directory's password"
TICKET_NOT_ENOUGH = "a second factor is demanded: no log-in by ticket (gssapi.counts_as_second_factor)"
"""For the log."""


class SecondFactorRule:
    """``[auth]`` beside what the directories say. Names of groups are compared without case."""

    def __init__(self, settings: AuthSettings) -> None:
        self.demands_of_all = settings.second_factor is SecondFactor.ALL
        """Nobody logs in by a password of a directory."""
        self._groups = frozenset(comparable_group(name) for name in settings.second_factor_groups)

    @property
    def may_demand(self) -> bool:
        """Whether the settings demand it of anybody."""
        return self.demands_of_all or bool(self._groups)

    def demands(self, user: DirectoryUser) -> bool:
        """Of this user."""
        return (
            self.demands_of_all
            or user.needs_second_factor
            or any(comparable_group(name) in self._groups for name in user.groups)
        )
