"""What the tests of the Maildir store stand on: a store without threads, a journal that applies at once."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from mailsrv.disk import RealDisk
from mailsrv.errors import MailError
from mailsrv.interfaces.changes import IChangeBus
from mailsrv.interfaces.journal import (
    Applied,
    DeliveryKey,
    IJournal,
    JournalRecord,
    NotApplied,
    PendingDelivery,
)
from mailsrv.store.account_table import AccountTable
from mailsrv.store.apply import StoreApplier
from mailsrv.store.bus import LocalChangeBus
from mailsrv.store.directory_watch import DirectoryWatch
from mailsrv.store.mail_store import MailStore
from mailsrv.store.settings import StoreSettings
from mailsrv.store.threads import InlineThreads


class SingleThreadReactor(Clock):
    """A clock whose calls from threads come at once."""

    def callFromThread(self, function: Callable[..., Any], *args: Any, **kw: Any) -> None:
        function(*args, **kw)


@implementer(IJournal)
class ImmediateJournal:
    """Gives keys and applies; keeps nothing."""

    def __init__(self, applier: StoreApplier, segment_id: bytes | None = None) -> None:
        self.applier = applier
        self.segment_id = segment_id or os.urandom(16)
        self.live = {self.segment_id}
        self._offsets = itertools.count(0, 4096)

    def check_acceptance(self, octets: int) -> MailError | None:
        return None

    def pending(self, record: JournalRecord, *, is_replay: bool = False) -> list[PendingDelivery]:
        offset = next(self._offsets)
        numbers = itertools.count()
        return [
            PendingDelivery(DeliveryKey(self.segment_id, offset, next(numbers)), message, delivery, is_replay)
            for message in record.messages
            for delivery in message.deliveries
        ]

    def commit(self, record: JournalRecord) -> Deferred[None]:
        self.applier.apply(self.pending(record))
        return succeed(None)

    def commit_and_note(self, record: JournalRecord) -> Deferred[Sequence[Applied]]:
        answers = self.applier.apply(self.pending(record))
        applied = [answer for answer in answers if isinstance(answer, Applied)]
        for answer in answers:
            if isinstance(answer, NotApplied):
                return fail(answer.error)
        return succeed(applied)

    def live_segments(self) -> frozenset[bytes]:
        return frozenset(self.live)


class StoreSetting:
    """A whole Maildir store, everything in the calling thread."""

    def __init__(
        self,
        settings: StoreSettings,
        *,
        disk: Any = None,
        run_id: bytes | None = None,
        bus: IChangeBus | None = None,
        segment_id: bytes | None = None,
    ) -> None:
        self.reactor = SingleThreadReactor()
        self.bus = bus or LocalChangeBus()
        self.run_id = run_id or os.urandom(16)
        self.table = AccountTable(settings, disk or RealDisk(), self.reactor, self.run_id, self.bus)  # type: ignore[arg-type]
        self.applier = StoreApplier(self.table)
        self.journal = ImmediateJournal(self.applier, segment_id)
        self.store = MailStore(
            self.table,
            self.journal,
            InlineThreads(),
            DirectoryWatch(self.reactor, enabled=False),  # type: ignore[arg-type]
        )
        self.store.start()

    def stop(self) -> None:
        self.store.stop()

    def kill(self) -> None:
        """End without closing anything properly: connections are dropped as a kill would."""
        for account in list(self.table._open):
            account.close()
