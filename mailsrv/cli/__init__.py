"""``mailsrvctl``: the administrator's command. One file a command group; groups are loaded when they are asked for.

Exit status 0 done, 1 failed, 2 wrong use.
"""

from mailsrv.cli.root import main

__all__ = ["main"]
