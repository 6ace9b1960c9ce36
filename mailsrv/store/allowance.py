"""What an account may hold, and what of it is promised to messages on their way (quota)."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define


@define
class Allowance:
    """Of one account, for all sessions of a process. Reactor thread only."""

    octets: int | None
    """The quota; None: without limit."""
    messages: int | None
    promised_octets: int = 0

    @property
    def is_limited(self) -> bool:
        """Whether there is any quota."""
        return self.octets is not None or self.messages is not None

    def room(self) -> tuple[int | None, int | None]:
        """Limits of octets and messages; octets promised elsewhere are taken off."""
        return (None if self.octets is None else self.octets - self.promised_octets), self.messages

    def promise(self, octets: int) -> Callable[[], None]:
        """Set octets aside; answers with what gives them back, once."""
        self.promised_octets += octets
        is_held = True

        def give_back() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self.promised_octets -= octets

        return give_back
