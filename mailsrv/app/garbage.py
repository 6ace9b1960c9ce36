"""Python's collector of cycles, told what a mail server is like.

Hardly anything of a session or a message is a cycle: it goes when it is let go. With Python's defaults the
collector runs several times a message all the same, and now and then looks at everything that was ever
imported; that was a twelfth of the CPU time of a busy server.
"""

from __future__ import annotations

import gc

_YOUNG = 4_000
"""Objects more than before until the young ones are looked at: a millisecond or two, in which nobody is served."""
_GENERATIONS = 50


def calm_collector() -> None:
    """When all is set up: that stays, and is not looked at again; what comes is looked at less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _GENERATIONS, _GENERATIONS)
