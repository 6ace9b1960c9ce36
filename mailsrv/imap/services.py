"""What all sessions of a listener share: settings, the portal, spool and row cache, and the budgets of commands."""

from __future__ import annotations

from attrs import frozen
from twisted.cred.portal import Portal

from mailsrv.imap.fetch.row_cache import RowCache
from mailsrv.imap.reader import Budget
from mailsrv.imap.settings import ImapSettings
from mailsrv.interfaces.content import ISpool


@frozen(eq=False)
class Services:
    """Replaced as a whole when settings change; a session keeps what it began with."""

    settings: ImapSettings
    hostname: str
    portal: Portal
    spool: ISpool
    row_cache: RowCache
    before_login: Budget
    after_login: Budget

    @classmethod
    def build(
        cls, settings: ImapSettings, *, hostname: str, portal: Portal, spool: ISpool, row_cache: RowCache | None = None
    ) -> Services:
        """Work out the budgets from the settings."""
        return cls(
            settings,
            hostname,
            portal,
            spool,
            row_cache if row_cache is not None else RowCache(settings.row_cache_octets),
            Budget(
                settings.login_line_octets,
                settings.login_literal_octets,
                settings.login_command_octets,
                settings.discard_octets,
            ),
            Budget(settings.line_octets, settings.literal_octets, settings.command_octets, settings.discard_octets),
        )
