"""Signals of a serving process, handled in the reactor.

SIGTERM and SIGINT stop it (the reactor's own handlers would make twistd end *by* the signal; a
server that stopped in good order exits with status 0), SIGHUP reloads, SIGUSR1 opens the log file
anew, SIGUSR2 replaces the workers one after the other.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any


def install_signal_actions(reactor: Any, actions: Mapping[signal.Signals, Callable[[], object]]) -> None:
    """From the moment the reactor runs, do these in the reactor thread. Main thread only."""

    def install() -> None:
        for number, action in actions.items():
            signal.signal(number, _in_reactor(reactor, action))

    reactor.callWhenRunning(install)


def _in_reactor(reactor: Any, action: Callable[[], object]) -> Callable[[int, FrameType | None], None]:
    def handle(_number: int, _frame: FrameType | None) -> None:
        reactor.callFromThread(action)

    return handle


def stop_reactor(reactor: Any) -> None:
    """Stop it unless it is stopping."""
    if reactor.running and not reactor._stopped:
        reactor.stop()
