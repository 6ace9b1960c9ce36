"""What the schedule remembers of one destination, and how its concurrency window and its back-off move.

The window grows by one after as many successes as it is wide and is halved where the destination, in the
midst of successes, could not be spoken to (its connection limit, a restart). Where nothing has
succeeded since the failed attempt began, the destination is *down*: nothing is tried but one probe
each back-off interval, and one success opens it again.
"""

from __future__ import annotations

import enum
import math
from collections import deque

from attrs import define, field, frozen

from mailsrv.interfaces.queue import Consignment, Destination


class Contact(enum.Enum):
    """What an attempt has shown about its destination."""

    UP = enum.auto()
    """Somebody answered, whatever they said about message and recipients."""
    DOWN = enum.auto()
    """Nobody there to be spoken to."""
    UNKNOWN = enum.auto()
    """It was not asked."""


@define(eq=False)
class Lane:
    """One destination that mail waits for, or that is remembered."""

    destination: Destination
    window: float
    """Attempts at the same time; its whole part counts."""
    next_due: float = math.inf
    active: int = 0
    """Attempts running."""
    leased: deque[Consignment] | None = None
    """Taken and not yet started; made late, for most destinations wait."""
    taken_at: float = 0.0
    """When the last of these were taken."""
    is_taking: bool = False
    expected: int = 0
    """Recipients that wait in all, where that was told and nothing has happened since; 0: not known."""
    was_empty: bool = False
    """The last take found nothing."""
    is_listed: bool = False
    """In the ring of those who may have work."""
    timer_at: float = math.inf
    """The earliest of its timers in the heap."""
    contacts: int = 0
    """Successful contacts so far; tells whether there was one since an attempt began."""
    failures: int = 0
    """Probes in a row that found nobody; above 0 the destination is down."""
    failed_at: float = 0.0
    """When the last of these ended."""
    probe_at: float = 0.0
    shared_until: float = 0.0
    """What this worker last noted for the others, or read of them."""
    review_at: float = math.inf

    @property
    def is_down(self) -> bool:
        return self.failures > 0

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do for it until news comes."""
        return self.next_due == math.inf and not (self.active or self.leased or self.is_taking)

    def limit(self, now: float) -> int:
        """How many attempts may run now."""
        if not self.failures:
            return int(self.window)
        return 1 if self.probe_at <= now else 0

    def went_up(self, first: int, largest: int) -> None:
        """A contact."""
        self.contacts += 1
        if self.failures:
            self.failures, self.window, self.review_at = 0, float(first), math.inf
        elif self.window < largest:
            self.window = min(float(largest), self.window + 1.0 / self.window)

    def halve(self) -> None:
        """Fewer at the same time, at least one."""
        self.window = max(1.0, self.window / 2)


@define(eq=False)
class Attempt:
    """A running attempt, as the schedule knows it."""

    lane: Lane = field(repr=False)
    consignment: Consignment
    started_at: float
    is_probe: bool
    contacts_before: int
    """Of the lane, when it began."""
    is_stalled: bool = False


class Purpose(enum.Enum):
    """Why mail is taken."""

    ATTEMPT = enum.auto()
    REVIEW = enum.auto()
    """To look at the age of what waits for a destination that is down."""


@frozen
class TakeOrder:
    """Take so much that is due for a destination."""

    destination: Destination
    messages: int
    purpose: Purpose = Purpose.ATTEMPT
