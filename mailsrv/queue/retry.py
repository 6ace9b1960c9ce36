"""When a recipient is tried again, when its time is over, and when its sender hears that it waits.

The interval doubles with each attempt up to a bound and varies a little at random. Two instants cut it
short, so that something happens when it is due: the delay notice and the end of the message's life.
Life is counted from acceptance, or from the end of the hold where the sender asked for one (RFC 4865 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from mailsrv.interfaces.envelope import NOTIFY_UNSAID, Notify
from mailsrv.interfaces.queue import QueuedRecipient, QueueEntry
from mailsrv.queue.settings import RetrySettings

NEVER = math.inf


def backoff_seconds(first: float, longest: float, count: int) -> float:
    """``first`` after one failure, doubling with each further one up to ``longest``."""
    # 2**64 times anything is beyond every bound, and a float still holds it.
    return min(longest, first * 2.0 ** min(max(count, 1) - 1, 64))


class RetryTimes:
    """Instants, in seconds since the epoch. ``random`` gives numbers from 0 up to 1."""

    def __init__(self, settings: RetrySettings, random: Callable[[], float]) -> None:
        self._settings = settings
        self._random = random

    def jittered(self, seconds: float) -> float:
        """``seconds``, varied by the jitter in both directions."""
        return seconds * (1.0 + self._settings.jitter * (2.0 * self._random() - 1.0))

    def begins_at(self, entry: QueueEntry) -> float:
        """When the message's life in the queue began."""
        return max(entry.accepted_at, entry.parameters.hold_until or 0)

    def expires_at(self, entry: QueueEntry) -> float:
        """When it is given up: its age, or the deadline of DELIVERBY in mode R (RFC 2852 4.1.3)."""
        settings = self._settings
        life = settings.max_age_seconds if entry.reverse_path is not None else settings.bounce_max_age_seconds
        expires_at = self.begins_at(entry) + life
        by = entry.parameters.deliver_by
        return min(expires_at, by.deadline) if by is not None and by.must_return else expires_at

    def is_past_deadline(self, entry: QueueEntry, now: float) -> bool:
        """Whether it has to go back without a further attempt (DELIVERBY in mode R)."""
        by = entry.parameters.deliver_by
        return by is not None and by.must_return and by.deadline <= now

    def delay_notice_at(self, entry: QueueEntry, recipient: QueuedRecipient) -> float:
        """When its sender is told that it waits, :data:`NEVER` where nobody wants to hear that (again).

        Once: to users of this server and to whoever said NOTIFY=DELAY (RFC 3461 4.1); with DELIVERBY in
        mode N at its deadline, to all who did not say otherwise (RFC 2852 4.1.3).
        """
        if recipient.is_delay_told or entry.reverse_path is None:
            return NEVER
        by = entry.parameters.deliver_by
        is_by_deadline = by is not None and not by.must_return
        if recipient.notify is NOTIFY_UNSAID or recipient.notify == NOTIFY_UNSAID:
            if not entry.account and not is_by_deadline:
                return NEVER
        elif not recipient.notify & Notify.DELAY:
            return NEVER
        if by is not None and is_by_deadline:
            return by.deadline
        return self.begins_at(entry) + self._settings.delay_notice_seconds

    def next_attempt_at(self, entry: QueueEntry, recipient: QueuedRecipient, attempts: int, now: float) -> float:
        """The next attempt after ``attempts`` finished ones."""
        settings = self._settings
        until = now + self.jittered(backoff_seconds(settings.first_seconds, settings.longest_seconds, attempts))
        return self.cut_short(until, entry, recipient, now)

    def cut_short(self, until: float, entry: QueueEntry, recipient: QueuedRecipient, now: float) -> float:
        """``until``, or what has to happen to the recipient before."""
        for instant in (self.delay_notice_at(entry, recipient), self.expires_at(entry)):
            if now < instant < until:
                until = instant
        return until
