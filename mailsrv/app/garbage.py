"""Python's collector of cycles, told what a mail server is like: it looks at what came lately, not at all there is.

Hardly anything of a session or a message is a cycle: it goes when it is let go. What has stayed after one look
(sessions, mailboxes, users remembered) would be looked at in vain again and again, for longer the more is remembered.
So a look is at what came since the last one, some thousand objects, and everything is looked at on two occasions only:
after a reload, for what was replaced refers to itself, and when the process has grown so much that something must be
wrong.

That everything else is gone when it is let go, ``tests/collector.py`` is what tests say it with.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_log = Logger()

YOUNG = 3_000
"""Objects more than before until the collector looks by itself, in whichever thread: with less, many are looked at that
would just go."""
_AT_ALL_YOUNG = -1
"""Each such look is at all that came since the last one. What stays is old then."""
_NEVER = 2**31 - 1
"""As often, until the collector would look at all of them by itself."""
ENOUGH = 1_000
"""So many new ones are looked at although no more came than went. While a full cache takes new entries for old ones,
as many come as go, and the collector, which counts the difference, would find tens of thousands when it looks at last.
"""
BUSY_SECONDS, IDLE_SECONDS = 0.1, 0.4
"""How often they are counted: while many come, and else, for each time wakes the process."""
_MANY = 100
"""More than the last time."""
SETTLE_SECONDS = 10.0
"""After a reload, until what is under way by the old settings has ended, mostly."""
GROWTH_SECONDS = 30.0
_MIB = 1 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")


def set_apart() -> None:
    """What is there before a server is made (modules, classes, settings) stays: it is not looked at again."""
    gc.collect()
    gc.freeze()


def resident_octets() -> int:
    """Memory of this process. Reads a file that is none on a disk; raises OSError where there is no /proc."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * _PAGE


class Collector:
    """When the collector of this process looks, and at what; ``growth_mib`` as in the settings."""

    def __init__(self, clock: IReactorTime, growth_mib: int, resident: Callable[[], int] = resident_octets) -> None:
        self._clock = clock
        self._growth_octets = growth_mib * _MIB
        self._resident = resident
        self._octets_then = 0
        self._young_then = 0
        self._next: IDelayedCall | None = None
        self._after_reload: IDelayedCall | None = None
        self._growth = LoopingCall(self._look_after_growth)
        self._growth.clock = clock

    def start(self) -> None:
        """From now on, when all is set up."""
        gc.collect()
        gc.set_threshold(YOUNG, _AT_ALL_YOUNG, _NEVER)
        try:
            self._octets_then = self._resident()
        except OSError as error:
            _log.warn("nobody sees whether this process grows too much: {error}", error=error)
        self._growth.start(GROWTH_SECONDS, now=False)
        self._next = self._clock.callLater(IDLE_SECONDS, self._look)

    def stop(self) -> None:
        """No more looks by the clock."""
        if self._growth.running:
            self._growth.stop()
        for call in (self._next, self._after_reload):
            if call is not None and call.active():
                call.cancel()

    def look_after_reload(self) -> None:
        """At everything, in a while: once for several reloads."""
        if self._after_reload is not None and self._after_reload.active():
            self._after_reload.reset(SETTLE_SECONDS)
        else:
            self._after_reload = self._clock.callLater(SETTLE_SECONDS, self._look_at_replaced)

    def _look(self) -> None:
        young = len(gc.get_objects(generation=0))
        is_busy = young >= self._young_then + _MANY
        if young >= ENOUGH:
            gc.collect(1)
            young = 0
        self._young_then = young
        self._next = self._clock.callLater(BUSY_SECONDS if is_busy else IDLE_SECONDS, self._look)

    def _look_at_replaced(self) -> None:
        found, milliseconds = self._look_at_all()
        _log.info(
            "after the reload all objects were looked at in {milliseconds} ms, {found} of them were left over",
            milliseconds=milliseconds,
            found=found,
        )

    def _look_after_growth(self) -> None:
        grown = self._size() - self._octets_then
        if grown < self._growth_octets:
            return
        found, milliseconds = self._look_at_all()
        _log.warn(
            "this process has grown by {grown_mib} MiB: all objects were looked at in {milliseconds} ms, "
            "{found} of them were left over; it is {resident_mib} MiB now",
            grown_mib=grown // _MIB,
            milliseconds=milliseconds,
            found=found,
            resident_mib=self._octets_then // _MIB,
        )

    def _look_at_all(self) -> tuple[int, float]:
        """How many objects were in cycles nobody had, and how long it took."""
        began = time.perf_counter()
        found = gc.collect()
        milliseconds = round((time.perf_counter() - began) * 1e3, 1)
        self._octets_then = self._size()
        return found, milliseconds

    def _size(self) -> int:
        try:
            return self._resident()
        except OSError:
            # No descriptor is left, for one; next time, then.
            return self._octets_then
