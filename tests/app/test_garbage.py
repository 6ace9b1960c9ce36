"""The collector of cycles in a process that serves."""

from __future__ import annotations

import gc

from mailsrv.app.garbage import calm_collector


def test_what_is_there_at_the_start_is_not_looked_at_again_and_cycles_are_found_all_the_same():
    before = gc.get_threshold()
    try:
        calm_collector()
        assert gc.get_freeze_count() > 0
        assert gc.isenabled()
        assert gc.get_threshold()[0] > before[0]
        cycle: list[object] = []
        cycle.append(cycle)
        del cycle
        assert gc.collect() >= 1
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
