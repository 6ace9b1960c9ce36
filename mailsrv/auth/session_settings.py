"""``[sessions]``: how soon a session ends whose user may no longer have it."""

from __future__ import annotations

from attrs import frozen

from mailsrv.setting import setting


@frozen
class SessionSettings:
    """``[sessions]``: sessions of users who are disabled, gone, or have another password are ended."""

    check_seconds: float = setting(
        20.0,
        "How often the accounts of open sessions are looked up again. Who is not found is looked up twice.",
        at_least=1,
        at_most=3600,
        unit="s",
    )
    checks_per_second: float = setting(
        1000.0, "Accounts looked up in a second at most; a round takes longer where there are more.", at_least=1
    )
    end_seconds: float = setting(
        10.0, "How long such a session may take for the command under way before it is cut off.", above=0, unit="s"
    )
