"""File names that do not show the flags of their messages yet.

Flags are in the index at once; names follow soon and together, so that marking a thousand messages as read, one
after the other, is not a thousand renames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailsrv.store.index.transaction import Transaction
from mailsrv.store.operation.flags import rename_files

_AFTER_SECONDS = 2.0
"""How long file names may lag behind flags while the server runs."""


class LateNames:
    """Of one account. Reactor thread only. ``write`` does an operation in a transaction that need not be durable."""

    def __init__(self, reactor: IReactorTime, write: Callable[[Callable[[Transaction], Any]], Deferred[Any]]) -> None:
        self._reactor = reactor
        self._write = write
        self._late: dict[int, set[int]] = {}
        self._call: IDelayedCall | None = None

    def add(self, mailbox_id: int, uids: Iterable[int]) -> None:
        """The names of these messages are late."""
        late = self._late.setdefault(mailbox_id, set())
        late.update(uids)
        if late and self._call is None:
            self._call = self._reactor.callLater(_AFTER_SECONDS, self.catch_up)

    def catch_up(self) -> None:
        """Let the names follow now."""
        self.stop()
        self._call = None
        late, self._late = self._late, {}
        for mailbox_id, uids in late.items():
            # What is missed here is made good by the next scan.
            self._write(partial(rename_files, mailbox_id=mailbox_id, uids=sorted(uids))).addErrback(
                lambda failure: None
            )

    def stop(self) -> None:
        """Wait for nothing any more."""
        if self._call is not None and self._call.active():
            self._call.cancel()
