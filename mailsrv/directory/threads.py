"""How this folder is given threads: a callable, so that tests run everything in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


class RunInThread(Protocol):
    """Runs a function in a thread; the Deferred fires in the reactor thread with what it returned or raised.

    ``functools.partial(deferToThreadPool, reactor, pool)`` is one.
    """

    def __call__(self, function: Callable[[], T], /) -> Deferred[T]: ...
