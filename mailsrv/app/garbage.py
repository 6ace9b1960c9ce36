"""Python's collector of cycles, told what a mail server is like.

Hardly anything of a session or a message is a cycle: it goes when it is let go. With Python's defaults the
collector runs several times a message all the same, and now and then looks at everything that was ever
imported; that was a twelfth of the CPU time of a busy server.
"""

from __future__ import annotations

import gc

_YOUNG = 4_000
"""Objects more than before until the young ones are looked at: with less, many are looked at that would just go."""
_MIDDLE = 0
"""Every second time those that have stayed are looked at with them, 8,000 at most: two milliseconds, in which nobody is
served. Waiting longer would make it the same work, but all of it at once."""
_OLD = 1_200
"""So often again until all are looked at, tens of milliseconds: once in some hundred thousand messages."""


def calm_collector() -> None:
    """When all is set up: that stays, and is not looked at again; what comes is looked at less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
