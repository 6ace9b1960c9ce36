"""Signals of a serving process, handled in the reactor.

SIGTERM and SIGINT stop it (the reactor's own handlers would make twistd end *by* the signal; a
server that stopped in good order exits with status 0), SIGHUP reloads, SIGUSR1 opens the log file
anew, SIGUSR2 replaces the workers one after the other.

The last three would end a process that has no answer to them yet, and a reload may come while the
server starts. So twistd's process holds them from its first moment (:func:`hold_signals`) and
does what was asked for once the reactor runs; workers begin with them blocked
(:func:`blocked_for_children`), for their first moment is the interpreter's.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

HELD_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class _Held:
    """The handler of one signal that nobody answers yet."""

    has_come = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.has_come = True


def hold_signals() -> None:
    """Until :func:`install_signal_actions`, remember these signals and do not end by them. Main thread only."""
    for number in HELD_SIGNALS:
        signal.signal(number, _Held())


@contextmanager
def blocked_for_children() -> Iterator[None]:
    """Processes started meanwhile have these signals blocked until they install their actions."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def install_signal_actions(reactor: Any, actions: Mapping[signal.Signals, Callable[[], object]]) -> None:
    """From the moment the reactor runs, do these in the reactor thread. Main thread only.

    What came while it was held is done then; a held signal without an action has no effect.
    """

    def install() -> None:
        for number, action in actions.items():
            previous = signal.signal(number, _in_reactor(reactor, action))
            if isinstance(previous, _Held) and previous.has_come:
                reactor.callFromThread(action)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, actions)

    reactor.callWhenRunning(install)


def _in_reactor(reactor: Any, action: Callable[[], object]) -> Callable[[int, FrameType | None], None]:
    def handle(_number: int, _frame: FrameType | None) -> None:
        reactor.callFromThread(action)

    return handle


def stop_reactor(reactor: Any) -> None:
    """Stop it unless it is stopping."""
    if reactor.running and not reactor._stopped:
        reactor.stop()
