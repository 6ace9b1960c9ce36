"""``python -m benchmarks.probe FILE twistd-argument …``: twistd, with a watch on how long its reactor is busy.

Two things are told apart. A *step* is one thing the reactor does: it reads what a connection sent, writes, runs a call
that is due or one that a thread asked for. *Lateness* is how late a call comes that is due every five milliseconds:
many short steps in a row make it, and other programs on the processors. Each line of FILE is a quarter of a second: its
end, then in milliseconds the worst lateness, what of it was a wait for a processor, and the longest step: computing,
and by the clock.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, frozen

PERIOD_SECONDS = 0.005
WINDOW_SECONDS = 0.25


@frozen
class Worst:
    """Of a span of time, in milliseconds; each figure for itself."""

    late: float = 0.0
    late_without_wait: float = 0.0
    """Without what the thread waited for a processor, which others had."""
    step: float = 0.0
    """The most that one step computed."""
    step_by_the_clock: float = 0.0

    def __str__(self) -> str:
        return f"step {self.step:.1f} ms, late {self.late_without_wait:.0f} ms ({self.late:.0f} with others' load)"


@define(eq=False, slots=False)
class Probe:
    """Started in the reactor thread."""

    path: Path

    def start(self) -> None:
        from twisted.internet import reactor

        self._reactor: Any = reactor
        self._call_later = self._reactor.callLater
        thread = threading.get_native_id()
        self._scheduler = os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY)
        self._file = self.path.open("a", buffering=1)
        self._window_ends = 0.0
        self._late = self._waited_worst = self._step = self._step_wall = 0.0
        self._reactor._doReadOrWrite = self._timed(self._reactor._doReadOrWrite)
        call_from_thread, call_later = self._reactor.callFromThread, self._call_later
        self._reactor.callFromThread = lambda function, *args, **words: call_from_thread(
            self._timed(function), *args, **words
        )
        self._reactor.callLater = lambda delay, function, *args, **words: call_later(
            delay, self._timed(function), *args, **words
        )
        self._begin()

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **words: Any) -> Any:
            computed, began = time.thread_time(), time.perf_counter()
            try:
                return function(*args, **words)
            finally:
                self._step = max(self._step, time.thread_time() - computed)
                self._step_wall = max(self._step_wall, time.perf_counter() - began)

        return step

    def _processor_wait(self) -> float:
        return int(os.pread(self._scheduler, 100, 0).split()[1]) / 1e9

    def _begin(self) -> None:
        self._waited = self._processor_wait()
        self._due = time.perf_counter() + PERIOD_SECONDS
        self._call_later(PERIOD_SECONDS, self._look)

    def _look(self) -> None:
        now = time.perf_counter()
        late = now - self._due
        if late > self._late:
            self._late, self._waited_worst = late, min(late, self._processor_wait() - self._waited)
        if now >= self._window_ends:
            figures = (self._late, self._waited_worst, self._step, self._step_wall)
            self._file.write(" ".join([f"{time.time():.3f}", *(f"{each * 1e3:.3f}" for each in figures)]) + "\n")
            self._late = self._waited_worst = self._step = self._step_wall = 0.0
            self._window_ends = now + WINDOW_SECONDS
        self._begin()


def worst_between(path: Path, began: float, ended: float) -> Worst:
    """Of a span of ``time.time``."""
    worst = Worst()
    for line in path.read_text().splitlines():
        when, late, waited, step, wall = map(float, line.split())
        if began + WINDOW_SECONDS <= when <= ended + WINDOW_SECONDS:
            worst = Worst(
                max(worst.late, late),
                max(worst.late_without_wait, late - waited),
                max(worst.step, step),
                max(worst.step_by_the_clock, wall),
            )
    return worst


def main() -> None:
    from twisted.internet import reactor
    from twisted.scripts import twistd

    path, *rest = sys.argv[1:]
    watched: Any = reactor
    watched.callWhenRunning(Probe(Path(path)).start)
    sys.argv = ["twistd", *rest]
    twistd.run()


if __name__ == "__main__":
    main()
