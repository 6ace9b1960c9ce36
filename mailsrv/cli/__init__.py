"""``mailsrvctl``: the administrator's command. One file a command group; groups are loaded when they are asked for.

Exit status 0 done, 1 failed, 2 wrong use.
"""

from __future__ import annotations


def main(arguments: list[str] | None = None) -> None:
    """``mailsrvctl``. Loaded at the call: ``mailsrv-sendmail`` in the same package starts without any of it."""
    from mailsrv.cli.root import main as run

    run(arguments)
