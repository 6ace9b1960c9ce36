"""Coroutines that hardly ever wait, for most answers are in memory and come at once; and waiting for time.

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


def pause(clock: IReactorTime, seconds: float) -> Deferred[None]:
    """Fires so much later; 0 is after everybody else in the reactor had a turn."""
    over: Deferred[None] = Deferred()
    clock.callLater(seconds, over.callback, None)
    return over


def next_turn(clock: IReactorTime) -> Deferred[None]:
    """Fires when the reactor has seen to everybody else: between the parts of work that would be long."""
    return pause(clock, 0)


def fires_within(waiting: Deferred[Any], seconds: float, clock: IReactorTime) -> Deferred[bool]:
    """Whether ``waiting`` fires in time. Unlike addTimeout this cancels nothing: it may be waited for again."""
    answer: Deferred[bool] = Deferred()
    call = clock.callLater(seconds, answer.callback, False)

    def fired(result: Any) -> Any:
        if call.active():
            call.cancel()
            answer.callback(True)
        return result

    waiting.addBoth(fired)
    return answer
