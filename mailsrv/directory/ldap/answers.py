"""What the directory said about addresses, kept for a while: fresh answers save the question, old ones an outage."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection

from attrs import frozen

from mailsrv.address import Address
from mailsrv.interfaces.directory import DirectoryUser


@frozen
class Answer:
    """What an address is: a user, something that stands for other addresses, or neither."""

    user: DirectoryUser | None = None
    dn: str = ""
    targets: tuple[Address, ...] | None = None
    is_list: bool = False
    """A group: rules may say who sends to it."""
    is_member: bool = False
    """Read as a member of a list: whether it is the only entry of its address was not asked."""

    @property
    def is_known(self) -> bool:
        return self.user is not None or self.targets is not None


NOBODY = Answer()
NOBODY_ENTRIES = 5000
"""Names of nobody that are remembered. They have room of their own: guessed ones must not push out those that exist."""


class AnswerCache:
    """At most ``entries`` positive answers; the oldest go first. Nothing here takes long, however many there are.

    ``seconds``: an answer is as good as new. ``outage_seconds``: a positive one still serves when nobody can be asked.
    """

    def __init__(self, *, clock: Callable[[], float], seconds: float, outage_seconds: float, entries: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._outage_seconds = max(seconds, outage_seconds)
        self._entries = entries
        # When it was asked for, the how-manieth answer it is, and the answer; by age.
        self._kept: OrderedDict[Address, tuple[float, int, Answer]] = OrderedDict()
        self._nobody: OrderedDict[Address, tuple[float, int]] = OrderedDict()
        """When it was asked for, and the how-manieth answer it was, of names that are nobody's."""
        self._count = 0
        self._last_dropped = self._last_list_dropped = 0
        """Answers up to these are no longer fresh: all, and those that are lists or aliases."""
        self.drops = 0
        """How often something was dropped: who asked before that may have an old answer."""
        self._by_dn: dict[str, set[Address]] = {}
        """Which answers are of an entry."""

    def __len__(self) -> int:
        return len(self._kept)

    def oldest_seconds(self) -> float | None:
        """How long ago the oldest answer was asked for; None where there is none."""
        if not self._kept:
            return None
        return max(0.0, self._clock() - next(iter(self._kept.values()))[0])

    def fresh(self, address: Address, *, as_member: bool = False) -> Answer | None:
        """An answer from lately. ``as_member``: also one that serves for members of lists alone."""
        found = self._kept.get(address)
        if found is None:
            return self._fresh_nobody(address)
        since, number, answer = found
        if self._clock() - since >= self._seconds:
            return None
        if answer.is_member and not as_member:
            return None
        if number <= self._last_dropped or (number <= self._last_list_dropped and answer.targets is not None):
            return None
        return answer

    def _fresh_nobody(self, address: Address) -> Answer | None:
        since, number = self._nobody.get(address, (0.0, 0))
        is_fresh = number > self._last_dropped and self._clock() - since < self._seconds
        return NOBODY if is_fresh else None

    def stale(self, address: Address) -> Answer | None:
        """A positive answer, old as it may be within bounds."""
        found = self._kept.get(address)
        if found is None or self._clock() - found[0] >= self._outage_seconds:
            return None
        return found[2]

    def drop(self, address: Address) -> None:
        """It has changed: the next question is asked anew. What is known still serves in an outage."""
        self.drops += 1
        self._nobody.pop(address, None)
        found = self._kept.get(address)
        if found is not None:
            since, number, answer = found
            self._kept[address] = (min(since, self._clock() - self._seconds - 1.0), number, answer)

    def drop_all(self) -> None:
        """Anything may have changed."""
        self.drops += 1
        self._last_dropped = self._count

    def drop_lists(self) -> None:
        """Who is in which list may have changed."""
        self.drops += 1
        self._last_list_dropped = self._count

    def drop_entry(self, dn: str, addresses: Collection[Address]) -> set[Address]:
        """An entry that has, or had, these addresses has changed. Answers with those it was known by."""
        known = set(self._by_dn.get(dn.lower(), ()))
        for address in known.union(addresses):
            self.drop(address)
        return known

    def users_of(self, dn: str) -> list[DirectoryUser]:
        """What is remembered of an entry as a user."""
        found = (self._kept[address][2].user for address in self._by_dn.get(dn.lower(), ()))
        return [user for user in found if user is not None]

    def add(self, address: Address, answer: Answer) -> None:
        """Keep it from now."""
        if answer.is_member and self.fresh(address) is not None:
            # What is known better.
            return
        self._detach(address)
        self._count += 1
        self._nobody.pop(address, None)
        if not answer.is_known:
            self._kept.pop(address, None)
            self._nobody[address] = (self._clock(), self._count)
            while len(self._nobody) > min(self._entries, NOBODY_ENTRIES):
                self._nobody.popitem(last=False)
            return
        self._kept[address] = (self._clock(), self._count, answer)
        self._kept.move_to_end(address)
        if answer.dn:
            self._by_dn.setdefault(answer.dn.lower(), set()).add(address)
        while len(self._kept) > self._entries:
            oldest = next(iter(self._kept))
            self._detach(oldest)
            del self._kept[oldest]

    def _detach(self, address: Address) -> None:
        found = self._kept.get(address)
        if found is None or not found[2].dn:
            return
        key = found[2].dn.lower()
        self._by_dn[key].discard(address)
        if not self._by_dn[key]:
            del self._by_dn[key]
