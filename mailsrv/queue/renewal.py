"""Leases of what takes long: a large message over a slow line, a host that takes its minutes for each answer, a result
that waits for the disk. Without a word from time to time they would expire, and the mail would be sent twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailsrv.interfaces.queue import IQueueStore

_TIMES_A_LEASE = 4


class LeaseRenewal:
    """Says to ``store``, several times a lease, which messages are still in hand. ``in_hand`` gives their ids."""

    def __init__(
        self, store: IQueueStore, clock: IReactorTime, in_hand: Callable[[], Sequence[int]], *, lease_seconds: float
    ) -> None:
        self._store = store
        self._clock = clock
        self._in_hand = in_hand
        self._interval = lease_seconds / _TIMES_A_LEASE
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Until :meth:`stop`."""
        self._timer = self._clock.callLater(self._interval, self._renew)

    def stop(self) -> None:
        """Safe to call twice."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _renew(self) -> None:
        self.start()
        entry_ids = self._in_hand()
        if entry_ids:
            self._store.renew(entry_ids)
