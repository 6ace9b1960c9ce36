"""How far a long workload has come, on standard error; and a wait for a sink that ends when nothing comes any more."""

from __future__ import annotations

import sys
import time

from benchmarks.sink import SinkProcess

_EVERY_SECONDS = 5.0
_PATIENCE_SECONDS = 120.0


class Progress:
    """``what`` of so many; a line every few seconds."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._began = self._said = time.monotonic()

    def at(self, done: int) -> None:
        """So many are done."""
        now = time.monotonic()
        if now - self._said >= _EVERY_SECONDS:
            self._said = now
            rate = done / (now - self._began)
            share = done / self._total if self._total else 1.0
            print(
                f"{self._what}: {done:,} of {self._total:,} ({share:.0%}), {rate:,.0f}/s", file=sys.stderr, flush=True
            )


def wait_for_all(sink: SinkProcess, what: str, total: int, *, pause: float) -> None:
    """Until the sink has them all. SystemExit when none has come for two minutes."""
    progress = Progress(what, total)
    last, deadline = 0, time.monotonic() + _PATIENCE_SECONDS
    while (taken := sink.taken()) < total:
        if taken > last:
            last, deadline = taken, time.monotonic() + _PATIENCE_SECONDS
        elif time.monotonic() > deadline:
            raise SystemExit(f"{what}: only {taken} of {total} arrived")
        progress.at(taken)
        time.sleep(pause)
