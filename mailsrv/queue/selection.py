"""Which recipients a command of the administrator means, and how their states are called."""

from __future__ import annotations

import enum
from typing import Any

from attrs import frozen

from mailsrv.queue.schema import RecipientState

_OPEN_STATES = "r.state<>3"


class ShownState(enum.Enum):
    """How states are called in filters and lists."""

    WAITING = "waiting"
    ACTIVE = "active"
    """Being delivered."""
    HELD = "held"
    ENDED = "ended"


_STATES = {
    ShownState.WAITING: (RecipientState.WAITING,),
    ShownState.ACTIVE: (RecipientState.LEASED, RecipientState.LEASED_THEN_HELD),
    ShownState.HELD: (RecipientState.HELD, RecipientState.LEASED_THEN_HELD),
    ShownState.ENDED: (RecipientState.ENDED,),
}


def shown_state(state: int) -> str:
    """How lists and statistics call a state of the database."""
    if state in (RecipientState.LEASED, RecipientState.LEASED_THEN_HELD):
        return ShownState.ACTIVE.value
    return {
        RecipientState.WAITING: ShownState.WAITING.value,
        RecipientState.HELD: ShownState.HELD.value,
        RecipientState.ENDED: ShownState.ENDED.value,
    }[RecipientState(state)]


@frozen
class Selection:
    """Which recipients; all conditions have to hold. Without any: all that are owed a message.

    Patterns may have ``*`` and ``?``; letter case does not matter.
    """

    ids: tuple[int, ...] = ()
    sender: str | None = None
    """"" is the null reverse-path."""
    recipient: str | None = None
    destination: str | None = None
    state: ShownState | None = None
    older_than: float | None = None
    """Seconds since it was accepted."""
    younger_than: float | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing narrows it down."""
        return self == Selection()

    def condition(self, now: float) -> tuple[str, tuple[Any, ...]]:
        """For WHERE, over ``recipient r``, ``message m``, ``destination d``."""
        parts: list[str] = []
        values: list[Any] = []
        if self.ids:
            parts.append(f"r.message IN ({', '.join('?' * len(self.ids))})")
            values += self.ids
        for column, pattern in (
            ("coalesce(m.reverse_path, '')", self.sender),
            ("r.address", self.recipient),
            ("d.name", self.destination),
        ):
            if pattern is not None:
                parts.append(f"lower({column}) GLOB ?")
                values.append(pattern.lower().replace("[", "[[]"))
        if self.state is None:
            parts.append(_OPEN_STATES)
        else:
            parts.append(f"r.state IN ({', '.join(str(int(state)) for state in _STATES[self.state])})")
        if self.older_than is not None:
            parts.append("m.accepted_at<=?")
            values.append(now - self.older_than)
        if self.younger_than is not None:
            parts.append("m.accepted_at>=?")
            values.append(now - self.younger_than)
        return " AND ".join(parts), tuple(values)
