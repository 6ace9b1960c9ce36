"""Coroutines that hardly ever wait: most answers are in memory and come at once.

``Deferred.fromCoroutine`` prepares for waiting (a context, a status, callbacks) before the first
step, which costs more than many an answer itself.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime

T = TypeVar("T")


def run_coroutine(coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """As ``Deferred.fromCoroutine``, but cheap where the coroutine ends without waiting for anybody."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return succeed(end.value)
    except Exception:
        return fail()
    # It waits for a Deferred, which says so again when it is asked again.
    return Deferred.fromCoroutine(coroutine)


def next_turn(clock: IReactorTime) -> Deferred[None]:
    """Fires when the reactor has seen to everybody else: between the parts of work that would be long."""
    turn: Deferred[None] = Deferred()
    clock.callLater(0, turn.callback, None)
    return turn
