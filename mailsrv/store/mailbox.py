"""An open mailbox of the Maildir store: the view of a process, and how it keeps up (IMailbox).

All sessions of a worker share one. The view learns of changes in three ways, each of which ends
in "give me what is newer than my mod-sequence": our own writes answer with it, notices of the
change bus ask for it, and ``refresh`` asks whenever a session wants to be sure. A mailbox that
nobody changes costs a few ``stat`` calls a refresh and holds no index open.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import apsw
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.mailbox import (
    CopiedMessages,
    FlagOperation,
    FlagSet,
    FlagsStored,
    IMailbox,
    InternalDates,
    MessageSummary,
    Uid,
)
from mailsrv.store.content import close_all, open_contents
from mailsrv.store.copies import copy_within
from mailsrv.store.date_column import Columns, DateColumn, read_dates
from mailsrv.store.index.delta import Delta, is_small, read_delta
from mailsrv.store.index.rows import MailboxRow, mailbox_by_id
from mailsrv.store.maildir import layout
from mailsrv.store.operation import flags as flag_operation
from mailsrv.store.operation import removal
from mailsrv.store.operation.changed_file import take_as_new
from mailsrv.store.operation.copying import Elsewhere
from mailsrv.store.recent import claim_recent
from mailsrv.store.stamp import Stamp, take_stamp
from mailsrv.store.structure import make_structures, read_summaries, store_structures
from mailsrv.store.view import MailboxView, ViewedMailbox, stored_flags

if TYPE_CHECKING:
    from mailsrv.store.mailboxes import AccountMailboxes

_FEW_CHANGES = 64
"""Changed messages read in the reactor thread at most."""
_FEW_SUMMARIES = 8
_SCANNED_AT_ONCE = 64


def _is_complete(summary: MessageSummary) -> bool:
    """Whether the index has a message's structure; what other programs delivered has none at first."""
    return summary.imap_envelope is not None


@implementer(IMailbox)
class StoredMailbox(ViewedMailbox):
    """Made by :class:`~mailsrv.store.mailboxes.AccountMailboxes`; reactor thread only."""

    _log = Logger()

    def __init__(self, owner: AccountMailboxes, row: MailboxRow, view: MailboxView) -> None:
        self.account = owner.account
        self.may_write = True
        self.name = row.name
        self.mailbox_id = row.id
        self.uid_validity = row.uid_validity
        self.is_gone = False
        self.references = 0
        self.directory = row.directory
        self._owner = owner
        self._view = view
        self._stamp: Stamp | None = None
        self._refreshing: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []
        self._is_hinted = False
        self._keeping: Deferred[None] | None = None
        self._dates = DateColumn()

    @property
    def path(self) -> str:
        """Its folder."""
        return layout.join(self._owner.files.root, self.directory)

    @property
    def place(self) -> Elsewhere:
        """For copies to other accounts."""
        files = self._owner.files
        return Elsewhere(files.index_path, files.root, self.mailbox_id, self.uid_validity)

    # Keeping up

    def take(self, delta: Delta) -> None:
        """Take in news. Older news than what is known are nothing new."""
        if self.is_gone:
            return
        if delta.is_gone:
            self.end()
            return
        if delta.uid_validity != self.uid_validity:
            # Another mailbox stands under this number: the account was replaced on disk.
            self.end()
            return
        self.name, self.directory = delta.name, delta.directory
        view = self._view
        if delta.mod_seq <= view.highest_mod_seq:
            return
        view.learn_keywords(delta.keywords.split())
        vanished: Sequence[int] = delta.vanished
        if delta.is_whole:
            vanished = sorted(set(view.uids) - {row[0] for row in delta.rows})
        view.apply_changes(delta.rows, vanished, delta.mod_seq, delta.uid_next)

    def end(self) -> None:
        """The mailbox is no more."""
        if not self.is_gone:
            self.is_gone = True
            self._view.notify()

    def hint(self) -> None:
        """Something may be new: look soon, once however many hints come."""
        if not self._is_hinted and not self.is_gone:
            self._is_hinted = True
            self._owner.call_soon(self._look)

    def _look(self) -> None:
        self._is_hinted = False
        if self.references:
            self.refresh().addErrback(
                lambda failure: self._log.warn(
                    "could not look at {name}: {error}", name=self.name, error=failure.getErrorMessage()
                )
            )

    def refresh(self) -> Deferred[None]:
        if self.is_gone or self._is_unchanged():
            return succeed(None)
        if self._refreshing is None and self._refresh_in_place():
            return succeed(None)
        answer: Deferred[None] = Deferred()
        self._waiting.append(answer)
        if self._refreshing is None:
            self._begin_refresh()
        return answer

    def _begin_refresh(self) -> None:
        """One at a time; who asks during one is answered by the next, for this one may have looked already."""
        waiting, self._waiting = self._waiting, []
        self._refreshing = self._refresh()
        self._refreshing.addBoth(self._refreshed, waiting)

    def _refreshed(self, result: object, waiting: list[Deferred[None]]) -> None:
        self._refreshing = None
        for answer in waiting:
            # A Failure given to callback() becomes the errback.
            answer.callback(result)  # type: ignore[arg-type]
        if self._waiting:
            self._begin_refresh()

    def _refresh(self) -> Deferred[None]:
        async def look() -> None:
            stamp = take_stamp(self._owner.files.index_path, self.path)
            found = await self._owner.index.read(partial(self._read_news, since=self.highest_mod_seq))
            if found is None:
                await self._owner.scan(self.mailbox_id)
            else:
                self.take(found)
            self._stamp = stamp

        return Deferred.fromCoroutine(look())

    def _read_news(self, connection: apsw.Connection, *, since: int) -> Delta | None:
        """The news; None where the folder must be scanned first."""
        if self._owner.is_scan_due(connection, self.mailbox_id, thorough=False):
            return None
        return read_delta(connection, self.mailbox_id, since)

    def _refresh_in_place(self) -> bool:
        """Look from the reactor thread, if index and news are at hand and small."""
        files = self._owner.files
        stamp = take_stamp(files.index_path, self.path)
        reader = files.try_reader()
        if reader is None:
            return False
        try:
            reader.execute("BEGIN")
            try:
                if self._owner.is_scan_due(reader, self.mailbox_id, thorough=False):
                    return False
                if not is_small(reader, self.mailbox_id, self.highest_mod_seq, _FEW_CHANGES):
                    return False
                delta = read_delta(reader, self.mailbox_id, self.highest_mod_seq)
            finally:
                reader.execute("ROLLBACK")
        except apsw.Error:
            return False
        finally:
            files.reader_lock.release()
        self._owner.index.used()
        self.take(delta)
        self._stamp = stamp
        return True

    def _is_unchanged(self) -> bool:
        """Whether index and folder are as they were at a look that was not too close to their last change."""
        seen = self._stamp
        if seen is None or seen.taken_ns - seen.newest_ns < self._owner.settle_ns:
            return False
        return take_stamp(self._owner.files.index_path, self.path).stamps == seen.stamps

    # Changing

    def claim_recent(self) -> Deferred[Uid]:
        claimed = self._owner.index.read_in_place(self._read_recent)
        return claimed.addCallback(lambda uid: uid if uid else self._claim_recent())

    def _read_recent(self, connection: apsw.Connection) -> Uid | None:
        """What a claim would answer where nothing came since the last one: then there is nothing to write."""
        row = mailbox_by_id(connection, self.mailbox_id)
        return Uid(row.recent_uid) if row is not None and row.recent_uid >= row.uid_next else None

    def _claim_recent(self) -> Deferred[Uid]:
        return self._owner.write(partial(claim_recent, mailbox_id=self.mailbox_id), is_durable=False)

    def store_flags(
        self,
        uids: Sequence[Uid],
        operation: FlagOperation,
        flags: FlagSet,
        unchanged_since: int | None = None,
    ) -> Deferred[FlagsStored]:
        bits, keywords = stored_flags(flags)
        wanted = list(uids)

        def note(stored: FlagsStored) -> FlagsStored:
            self._owner.late_names.add(self.mailbox_id, stored.changed)
            return stored

        return self._owner.write(
            lambda transaction: flag_operation.store_flags(
                transaction,
                self.mailbox_id,
                wanted,
                operation=operation,
                bits=bits,
                words=keywords,
                unchanged_since=unchanged_since,
            )
        ).addCallback(note)

    def expunge(self, uids: Sequence[Uid] | None = None) -> Deferred[Sequence[Uid]]:
        wanted = None if uids is None else list(uids)
        return self._owner.write(lambda transaction: removal.expunge(transaction, self.mailbox_id, wanted))

    def delete_messages(self, uids: Sequence[Uid]) -> Deferred[Sequence[Uid]]:
        wanted = list(uids)
        return self._owner.write(lambda transaction: removal.delete_messages(transaction, self.mailbox_id, wanted))

    def copy(self, uids: Sequence[Uid], destination: str) -> Deferred[CopiedMessages]:
        return copy_within(self._owner, self.mailbox_id, uids, destination, is_move=False)

    def move(self, uids: Sequence[Uid], destination: str) -> Deferred[CopiedMessages]:
        return copy_within(self._owner, self.mailbox_id, uids, destination, is_move=True)

    # Reading

    def summaries(self, uids: Sequence[Uid], *, with_structure: bool = True) -> Deferred[Sequence[MessageSummary]]:
        cache = self._owner.cache.of(self)
        wanted = sorted(uids)
        try:
            return succeed([cache[uid] for uid in wanted])
        except KeyError:
            pass
        missing = [uid for uid in wanted if uid not in cache]
        if len(missing) <= _FEW_SUMMARIES:
            found = self._summaries_in_place(missing)
            if found is not None and (not with_structure or all(map(_is_complete, found))):
                return succeed(self._with_cached(wanted, found))
        return Deferred.fromCoroutine(self._read_summaries(wanted, missing, with_structure=with_structure))

    def _summaries_in_place(self, uids: Sequence[int]) -> list[MessageSummary] | None:
        reader = self._owner.files.try_reader()
        if reader is None:
            return None
        try:
            return read_summaries(reader, self.mailbox_id, uids)
        except apsw.Error:
            return None
        finally:
            self._owner.files.reader_lock.release()

    async def _read_summaries(
        self, wanted: list[Uid], missing: list[Uid], *, with_structure: bool
    ) -> Sequence[MessageSummary]:
        found = await self._owner.index.read(partial(read_summaries, mailbox_id=self.mailbox_id, uids=missing))
        if with_structure:
            bare = [summary for summary in found if not _is_complete(summary)]
            if bare:
                found = [summary for summary in found if _is_complete(summary)]
                found += await self._complete(bare)
        return self._with_cached(wanted, found)

    async def _complete(self, bare: list[MessageSummary]) -> list[MessageSummary]:
        """Look into messages nobody has looked into yet. What cannot be read is gone, and left out.

        The answer does not wait for the index to have it, only for what it was to have before.
        """
        owner = self._owner
        complete: list[MessageSummary] = []
        for start in range(0, len(bare), _SCANNED_AT_ONCE):
            some = {int(summary.uid): summary for summary in bare[start : start + _SCANNED_AT_ONCE]}
            made = await owner.index.in_thread(
                partial(make_structures, owner.files, self.mailbox_id, self.path, list(some))
            )
            for one in made:
                known = some[one.uid]
                complete.append(
                    one.summary.for_message(one.uid, known.internal_date, known.date_offset_minutes, known.email_id)
                )
            if self._keeping is not None:
                await self._keeping
            self._keeping = owner.write(
                partial(store_structures, mailbox_id=self.mailbox_id, made=made), is_durable=False
            ).addErrback(
                lambda failure: self._log.warn(
                    "what was found in messages of {name} could not be kept: {error}",
                    name=self.name,
                    error=failure.getErrorMessage(),
                )
            )
        return complete

    def _with_cached(self, wanted: Sequence[int], found: list[MessageSummary]) -> list[MessageSummary]:
        """``found`` joined with what is cached, ascending; and cached in turn."""
        cache = self._owner.cache.of(self)
        known = {int(summary.uid): summary for summary in found}
        both = list(map(known.get, wanted)) if not cache else [known.get(uid) or cache.get(uid) for uid in wanted]
        if self.references:
            self._owner.cache.add(self, filter(_is_complete, found))
        return [summary for summary in both if summary is not None]

    def internal_dates(self, uids: Sequence[Uid]) -> Deferred[InternalDates]:
        first = self._dates.first_missing(uids)
        if first is None:
            return succeed(self._dates.answer(uids))

        def answer(columns: Columns) -> InternalDates:
            self._dates.add(columns, self._view.uids)
            return self._dates.answer(uids)

        return self._owner.index.read(partial(read_dates, mailbox_id=self.mailbox_id, first_uid=first)).addCallback(
            answer
        )

    def contents(self, uids: Sequence[Uid]) -> Deferred[Sequence[IContent | None]]:
        return Deferred.fromCoroutine(self._contents(list(uids)))

    async def _contents(self, uids: list[Uid]) -> Sequence[IContent | None]:
        opened, lost = await self._open(uids)
        for at in lost:
            try:
                opened[at] = await self._look_again(uids[at])
            except BaseException:
                close_all(opened)
                raise
        return opened

    def _open(self, uids: list[Uid]) -> Deferred[tuple[list[IContent | None], list[int]]]:
        owner = self._owner
        settings, threads = owner.settings, owner.threads
        return owner.index.in_thread(
            lambda: open_contents(owner.files, self.mailbox_id, uids, settings=settings, threads=threads)
        )

    async def _look_again(self, uid: Uid) -> IContent | None:
        """The file has another name than the index knows, or other octets: another program was quicker."""
        owner = self._owner
        path = await owner.write(partial(flag_operation.locate, mailbox_id=self.mailbox_id, uid=uid), is_durable=False)
        if path is None:
            return None
        [content], lost = await self._open([uid])
        if lost:
            take = partial(take_as_new, mailbox_id=self.mailbox_id, uid=uid, live_segments=owner.live_segments)
            await owner.write(take)
        return content

    def close(self) -> None:
        self._owner.close_mailbox(self)
