"""``[sessions]``: how soon a session ends whose user may no longer have it."""

from __future__ import annotations

from attrs import field, frozen, validators


@frozen
class SessionSettings:
    """``[sessions]``: sessions of users who are disabled, gone, or have another password are ended."""

    check_seconds: float = field(
        default=20.0,
        validator=validators.and_(validators.ge(1), validators.le(3600)),
        metadata={
            "help": "How often the accounts of open sessions are looked up again. Who is not found is looked up twice.",
            "unit": "s",
        },
    )
    checks_per_second: float = field(
        default=1000.0,
        validator=validators.ge(1),
        metadata={"help": "Accounts looked up in a second at most; a round takes longer where there are more."},
    )
    end_seconds: float = field(
        default=10.0,
        validator=validators.gt(0),
        metadata={
            "help": "How long such a session may take for the command under way before it is cut off.",
            "unit": "s",
        },
    )
