"""A journal and a spool without threads: records are kept in a list, or applied at once.

The real ones are in :mod:`mailsrv.journal`; these answer at once, and can be told to refuse or to wait.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from hashlib import blake2b

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from mailsrv.errors import MailError
from mailsrv.interfaces.content import Content, FileContent, InlineContent, ISpool, ISpoolWriter
from mailsrv.interfaces.journal import (
    Applied,
    DeliveryKey,
    IApplier,
    IJournal,
    JournalRecord,
    NotApplied,
    PendingDelivery,
)

SEGMENT_ID = b"memory-journal-0"


@implementer(IJournal)
@define(eq=False)
class MemoryJournal:
    """Takes records. With an ``applier`` each is applied before ``commit`` fires."""

    applier: IApplier | None = None
    records: list[JournalRecord] = field(factory=list)
    """Everything committed, in order."""
    refusal: MailError | None = None
    """What ``check_acceptance`` answers."""
    failure: MailError | None = None
    """What ``commit`` fails with."""
    waiting: Deferred[None] | None = None
    """Where set, ``commit`` fires when this does."""

    def check_acceptance(self, octets: int) -> MailError | None:
        return self.refusal

    def commit(self, record: JournalRecord) -> Deferred[None]:
        if self.failure is not None:
            return fail(self.failure)
        if self.waiting is not None:
            return self.waiting.addCallback(lambda _: self._commit(record))
        self._commit(record)
        return succeed(None)

    def _commit(self, record: JournalRecord) -> None:
        self._apply(record)

    def commit_and_note(self, record: JournalRecord) -> Deferred[Sequence[Applied]]:
        if self.failure is not None:
            return fail(self.failure)
        outcomes = self._apply(record)
        for outcome in outcomes:
            if isinstance(outcome, NotApplied):
                return fail(outcome.error)
        return succeed([outcome for outcome in outcomes if isinstance(outcome, Applied)])

    def _apply(self, record: JournalRecord) -> Sequence[Applied | NotApplied]:
        offset = len(self.records)
        self.records.append(record)
        if self.applier is None:
            return []
        pending = [(message, delivery) for message in record.messages for delivery in message.deliveries]
        return self.applier.apply(
            [
                PendingDelivery(
                    DeliveryKey(SEGMENT_ID, offset, number), message, delivery, transaction_id=record.transaction_id
                )
                for number, (message, delivery) in enumerate(pending)
            ]
        )

    def live_segments(self) -> frozenset[bytes]:
        return frozenset({SEGMENT_ID})


@implementer(ISpool)
@define(eq=False)
class MemorySpool:
    """Content in memory up to ``inline_limit``, above it in files of ``directory`` (temporary ones if empty)."""

    inline_limit: int = 128 * 1024
    directory: str = ""
    failure: MailError | None = None
    """What ``finish`` fails with."""
    pause: Deferred[None] | None = None
    """What every ``write`` answers."""
    open_writers: int = 0
    """Writers neither finished nor aborted."""
    discarded: list[Content] = field(factory=list)

    def begin(self) -> MemorySpoolWriter:
        self.open_writers += 1
        return MemorySpoolWriter(self)

    def discard(self, content: Content) -> None:
        self.discarded.append(content)
        if isinstance(content, FileContent) and os.path.exists(content.path):
            os.unlink(content.path)


@implementer(ISpoolWriter)
class MemorySpoolWriter:
    """One message on its way in."""

    def __init__(self, spool: MemorySpool) -> None:
        self.size = 0
        self._spool = spool
        self._octets = bytearray()
        self._is_over = False

    def write(self, octets: bytes) -> Deferred[None] | None:
        self._octets += octets
        self.size += len(octets)
        return self._spool.pause

    def finish(self) -> Deferred[Content]:
        self._end()
        if self._spool.failure is not None:
            return fail(self._spool.failure)
        octets = bytes(self._octets)
        if len(octets) <= self._spool.inline_limit:
            return succeed(InlineContent(octets))
        descriptor, path = tempfile.mkstemp(dir=self._spool.directory or None)
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
        return succeed(FileContent(path, len(octets), blake2b(octets, digest_size=16).digest()))

    def abort(self) -> None:
        self._end()

    def _end(self) -> None:
        if self._is_over:
            raise RuntimeError("a spool writer ends once")
        self._is_over = True
        self._spool.open_writers -= 1
