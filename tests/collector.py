"""What only Python's collector of cycles would find: what is let go is to be gone at once."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator


@contextlib.contextmanager
def left_to_the_collector() -> Iterator[Counter[str]]:
    """How many objects of each class (by its name) became garbage in cycles; filled at the end."""
    found: Counter[str] = Counter()
    was_enabled, flags = gc.isenabled(), gc.get_debug()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found.update(type(one).__name__ for one in gc.garbage)
    finally:
        gc.set_debug(flags)
        gc.garbage.clear()
        if was_enabled:
            gc.enable()
