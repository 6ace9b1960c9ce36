"""Signals that come before anybody answers them: a start is not ended by a reload that came too early."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from mailsrv.app.signals import HELD_SIGNALS, blocked_for_children, hold_signals, install_signal_actions


class Reactor:
    """What is to be done, in its order."""

    def __init__(self):
        self.calls = []

    def callWhenRunning(self, call):
        self.calls.append(call)

    def callFromThread(self, call):
        self.calls.append(call)

    def run(self):
        while self.calls:
            self.calls.pop(0)()


@pytest.fixture(autouse=True)
def _as_before():
    numbers = (*HELD_SIGNALS, signal.SIGTERM)
    handlers = {number: signal.getsignal(number) for number in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_what_came_while_it_was_held_is_done_once_when_the_reactor_runs():
    hold_signals()
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    reactor, done = Reactor(), []
    actions = {signal.SIGHUP: lambda: done.append("reload"), signal.SIGUSR1: lambda: done.append("reopen")}
    install_signal_actions(reactor, actions)
    os.kill(os.getpid(), signal.SIGHUP)
    assert done == []
    reactor.run()
    assert done == ["reload"]
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    reactor.run()
    assert done == ["reload", "reopen"], "SIGUSR2 has no action here and does no harm"


def test_a_child_begins_with_them_blocked_and_unblocks_what_it_answers():
    program = "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))"
    with blocked_for_children():
        shown = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout
        reactor, done = Reactor(), []
        # To this thread: others of the process, which are not a child's, do not have it blocked.
        signal.pthread_kill(threading.get_ident(), signal.SIGHUP)
        install_signal_actions(reactor, {signal.SIGHUP: lambda: done.append("reload")})
        reactor.run()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {signal.SIGUSR1, signal.SIGUSR2}
    assert shown.strip() == str(sorted(HELD_SIGNALS))
    assert done == ["reload"]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
