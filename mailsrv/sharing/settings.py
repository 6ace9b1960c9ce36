"""``[sharing]``: mailboxes of others in IMAP."""

from __future__ import annotations

from attrs import frozen

from mailsrv.setting import setting


@frozen
class SharingSettings:
    """``[sharing]``: who may open which mailboxes of others stands in the directory, or in ``[[shared]]``."""

    mailboxes: int = setting(
        100,
        "Accounts of others that one user has among their mailboxes; of more, the first by address. 0 is none.",
        at_least=0,
        at_most=1000,
    )
    check_seconds: float = setting(
        20.0,
        'How often the rights of users with open sessions are asked for again, and how long "has none" is remembered.',
        at_least=1,
        at_most=3600,
        unit="s",
    )
    login_seconds: float = setting(
        3.0,
        "How long a log-in waits for the directory to tell the rights; then it goes on without mailboxes of others.",
        above=0,
        at_most=60,
        unit="s",
    )
    cache_entries: int = setting(
        20_000, "Users without any such right that each worker remembers for a while.", at_least=0
    )
