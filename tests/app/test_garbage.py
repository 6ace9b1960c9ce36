"""The collector of cycles in a process that serves."""

from __future__ import annotations

import gc

from mailsrv.app.garbage import calm_collector


def test_what_is_there_at_the_start_is_not_looked_at_again_and_cycles_are_found_all_the_same():
    before = gc.get_threshold()
    gc.unfreeze()  # the session has frozen what it read
    try:
        calm_collector()
        assert gc.get_freeze_count() > 0
        assert gc.isenabled()
        young, middle, old = gc.get_threshold()
        assert young > before[0]
        # What is looked at in one go, but for once in millions of messages, takes a millisecond or two.
        assert young * (middle + 2) <= 8_000
        assert young * (middle + 2) * old >= 5_000_000
        cycle: list[object] = []
        cycle.append(cycle)
        del cycle
        assert gc.collect() >= 1
    finally:
        gc.set_threshold(*before)
