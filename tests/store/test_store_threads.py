"""Disk work in threads, and the whole store on the real reactor."""

from __future__ import annotations

import tempfile
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from mailsrv.address import Address
from mailsrv.disk import RealDisk
from mailsrv.errors import Unavailable
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.mailbox import FlagOperation, NewMessage
from mailsrv.store.account_table import AccountTable
from mailsrv.store.apply import StoreApplier
from mailsrv.store.bus import LocalChangeBus
from mailsrv.store.mail_store import MailStore
from mailsrv.store.settings import StoreSettings
from mailsrv.store.threads import DiskThreads
from tests.store.store_setting import ImmediateJournal

ALICE = Address("alice", "example.test")


class ThreadsTests(TestCase):
    def test_answers_come_in_the_reactor_thread(self):
        threads = DiskThreads(reactor, 2, 100)  # type: ignore[arg-type]
        threads.start()
        self.addCleanup(threads.stop)
        here = threading.get_ident()

        def answered(found: list[Any]) -> None:
            assert here not in found
            assert threading.get_ident() == here

        return gatherResults([threads.run(threading.get_ident) for _ in range(20)]).addCallback(answered)

    def test_errors_come_out(self):
        threads = DiskThreads(reactor, 1, 100)  # type: ignore[arg-type]
        threads.start()
        self.addCleanup(threads.stop)
        return self.assertFailure(threads.run(lambda: 1 // 0), ZeroDivisionError)

    def test_r_lim_2_too_much_waiting_work_is_refused_and_recovers(self):
        threads = DiskThreads(reactor, 1, 2)  # type: ignore[arg-type]
        waiting = [threads.run(lambda: 1), threads.run(lambda: 2)]
        refused = threads.run(lambda: 3)
        self.failureResultOf(refused, Unavailable)
        threads.start()
        self.addCleanup(threads.stop)
        done = gatherResults(waiting)
        return done.addCallback(lambda _: threads.run(lambda: 4)).addCallback(self.assertEqual, 4)


class WholeStoreTests(TestCase):
    """Real threads, real inotify."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="store-")
        self.addCleanup(folder.cleanup)
        self.root = f"{folder.name}/alice"
        settings = StoreSettings(path=f"{folder.name}/{{local}}")
        self.table = AccountTable(settings, RealDisk(), reactor, bytes(16), LocalChangeBus())  # type: ignore[arg-type]
        journal = ImmediateJournal(StoreApplier(self.table))
        self.store = MailStore(self.table, journal)
        self.addCleanup(self.store.stop)
        return self.store.start()

    def test_concurrent_operations_all_come_true(self):
        async def story() -> None:
            mail: Any = await self.store.open_account(ALICE)
            messages = [NewMessage(InlineContent(b"Subject: %d\r\n\r\n" % number)) for number in range(100)]
            await mail.append("INBOX", messages)
            inbox = await mail.open_mailbox("INBOX")
            work: list[Deferred[Any]] = []
            for uid in list(inbox.uids):
                work.append(inbox.store_flags([uid], FlagOperation.ADD, frozenset({"\\Seen"})))
                work.append(inbox.summaries([uid]))
                work.append(inbox.contents([uid]))
                if uid % 2:
                    work.append(inbox.copy([uid], "Archive"))
            await gatherResults(work)
            status = await mail.status("INBOX")
            assert (status.messages, status.unseen) == (100, 0)
            assert (await mail.status("Archive")).messages == 50
            # What came together was committed together.
            assert inbox.highest_mod_seq <= 110
            inbox.close()
            mail.release()

        return Deferred.fromCoroutine(story())

    def test_an_idle_mailbox_holds_no_index_open_and_comes_back(self):
        async def story() -> None:
            mail: Any = await self.store.open_account(ALICE)
            await mail.append("INBOX", [NewMessage(InlineContent(b"Subject: 1\r\n\r\n"))])
            inbox = await mail.open_mailbox("INBOX")
            assert self.table.close_idle(0) == 1
            assert not mail.files.is_open
            await inbox.store_flags([1], FlagOperation.ADD, frozenset({"\\Seen"}))
            assert mail.files.is_open
            assert inbox.flag_set(inbox.flag_set_numbers[0]) == {"\\Seen"}

        return Deferred.fromCoroutine(story())

    def test_a_file_put_there_by_another_program_is_announced(self):
        async def story() -> None:
            mail: Any = await self.store.open_account(ALICE)
            await mail.append("INBOX", [NewMessage(InlineContent(b"Subject: 1\r\n\r\n"))])
            inbox = await mail.open_mailbox("INBOX")
            told: Deferred[None] = Deferred()
            end = inbox.watch(lambda: None if told.called else told.callback(None))
            with open(f"{self.root}/new/1700000000.other", "wb") as file:
                file.write(b"Subject: 2\r\n\r\n")
            told.addTimeout(10, reactor)
            await told
            end()
            assert len(inbox.uids) == 2

        return Deferred.fromCoroutine(story())
