"""The end of the machine, as those who use its disk see it."""

from __future__ import annotations

import errno


class PowerCut(OSError):
    """The machine is off. An OSError, so that nothing but the disk's own callers sees it."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "power cut")
