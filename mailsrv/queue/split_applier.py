"""The journal's applier where there are two: mailboxes get local deliveries, the queue gets the rest.

The parts of one record that belong to different sides are applied one after the other. Each side knows
what it has by the delivery's key, so that what comes again after a crash between them does nothing twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from zope.interface import implementer

from mailsrv.interfaces.journal import (
    Applied,
    DeliveryKey,
    IApplier,
    LocalDelivery,
    NotApplied,
    PendingDelivery,
)


@implementer(IApplier)
class SplitApplier:
    """Hands each delivery to the side it belongs to, and the answers back in order."""

    def __init__(self, local: IApplier, queue: IApplier) -> None:
        self._local = local
        self._queue = queue

    def apply(self, deliveries: Sequence[PendingDelivery[Any]]) -> Sequence[Applied | NotApplied]:
        local = [pending for pending in deliveries if type(pending.delivery) is LocalDelivery]
        if len(local) == len(deliveries):
            return self._local.apply(deliveries)
        queued = [pending for pending in deliveries if type(pending.delivery) is not LocalDelivery]
        if not local:
            return self._queue.apply(queued)
        # Mailboxes first: a settlement ends a recipient when what it turned into is there.
        local_answers = iter(self._local.apply(local))
        queue_answers = iter(self._queue.apply(queued))
        return [
            next(local_answers if type(pending.delivery) is LocalDelivery else queue_answers) for pending in deliveries
        ]

    def take_touched(self) -> Collection[str]:
        # The queue first: it may raise, and then nothing was taken from either.
        touched = set(self._queue.take_touched())
        touched.update(self._local.take_touched())
        return touched

    def checkpoint_failed(self, keys: Collection[DeliveryKey]) -> None:
        self._local.checkpoint_failed(keys)
        self._queue.checkpoint_failed(keys)
