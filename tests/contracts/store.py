"""What every mail store does, whatever it is made of. Run over each by mixing it into a test case.

A subclass gives ``make_store``; every Deferred must have fired by the time it is looked at, so a
store with threads is given threads that run at once.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailsrv.address import Address
from mailsrv.interfaces.content import FileContent, IContent, InlineContent
from mailsrv.interfaces.mailbox import (
    DATE_OF_NONE,
    FlagOperation,
    IAccountMailboxes,
    IMailbox,
    IMailStore,
    InvalidMailboxName,
    LimitReached,
    MailboxExists,
    MailboxInUse,
    NewMessage,
    NoSuchMailbox,
    OverQuota,
    SpecialUse,
)
from mailsrv.store.settings import StoreSettings

T = TypeVar("T")

ALICE = Address("alice", "example.test")
BOB = Address("bob", "example.test")

PLAIN = b"From: a@example.test\r\nSubject: one\r\nDate: Sat, 21 Nov 2026 10:00:00 +0100\r\n\r\nHello\r\n"
SEEN = frozenset({"\\Seen"})
DELETED = frozenset({"\\Deleted"})


def numbered(number: int) -> bytes:
    """A message of its own."""
    return b"From: a@example.test\r\nSubject: n%d\r\n\r\nBody %d\r\n" % (number, number)


class StoreContract(SynchronousTestCase):
    """The tests. ``store`` is made for each."""

    store: Any

    def make_store(self, settings: StoreSettings) -> Any:
        raise NotImplementedError

    def setUp(self):
        if type(self) is StoreContract:
            raise self.skipTest("the contract itself")
        self.folder = Path(tempfile.mkdtemp(dir=self.mktemp_parent()))
        self.store = self.make_store(StoreSettings(path=str(self.folder / "{domain}" / "{local}")))
        self.mail = self.open(ALICE)

    def mktemp_parent(self) -> str:
        folder = tempfile.TemporaryDirectory(prefix="mailsrv-store-")
        self.addCleanup(folder.cleanup)
        return folder.name

    # Small words for long calls.

    def done(self, deferred: Deferred[T]) -> T:
        return self.successResultOf(deferred)

    def fails(self, kind: type[Exception], deferred: Deferred[Any]) -> Any:
        return self.failureResultOf(deferred, kind).value

    def open(self, account: Address) -> Any:
        return self.done(self.store.open_account(account))

    def select(self, name: str = "INBOX", mail: Any = None) -> Any:
        return self.done((mail or self.mail).open_mailbox(name))

    def append(self, name: str = "INBOX", *octets: bytes, flags: frozenset[str] = frozenset(), **kw: Any) -> list[int]:
        messages = [NewMessage(InlineContent(one), flags, **kw) for one in octets or (PLAIN,)]
        return list(self.done(self.mail.append(name, messages)).uids)

    def octets_of(self, mailbox: Any, *uids: int) -> list[bytes | None]:
        opened = self.done(mailbox.contents(list(uids)))
        found = []
        for one in opened:
            found.append(None if one is None else self.done(one.read(0, one.size)))
            if one is not None:
                one.close()
        return found

    def flags_of(self, mailbox: Any) -> dict[int, frozenset[str]]:
        return {
            uid: mailbox.flag_set(number) for uid, number in zip(mailbox.uids, mailbox.flag_set_numbers, strict=True)
        }

    def names(self) -> list[str]:
        return [info.name for info in self.done(self.mail.list_mailboxes()) if info.is_selectable]

    # The interfaces

    def test_the_interfaces_are_provided(self):
        verifyObject(IMailStore, self.store)
        verifyObject(IAccountMailboxes, self.mail)
        mailbox = self.select()
        verifyObject(IMailbox, mailbox)
        [uid] = self.append()
        [content] = self.done(mailbox.contents([uid]))
        verifyObject(IContent, content)
        content.close()
        content.close()

    # The list of mailboxes

    def test_a_new_account_has_mailboxes_with_special_uses(self):
        infos = self.done(self.mail.list_mailboxes())
        assert [(info.name, info.special_use) for info in infos] == [
            ("INBOX", None),
            ("Archive", SpecialUse.ARCHIVE),
            ("Drafts", SpecialUse.DRAFTS),
            ("Junk", SpecialUse.JUNK),
            ("Sent", SpecialUse.SENT),
            ("Trash", SpecialUse.TRASH),
        ]
        assert all(info.is_subscribed and info.is_selectable and info.exists for info in infos)

    def test_create_makes_a_mailbox_and_names_its_parents(self):
        self.done(self.mail.create("Projects/2026/mailsrv", SpecialUse.ARCHIVE))
        infos = {info.name: info for info in self.done(self.mail.list_mailboxes())}
        assert not infos["Projects"].is_selectable
        assert infos["Projects/2026"].mailbox_id == 0
        assert infos["Projects/2026/mailsrv"].is_selectable
        assert infos["Projects/2026/mailsrv"].special_use is SpecialUse.ARCHIVE
        self.done(self.mail.create("Projects"))
        assert "Projects" in self.names()

    def test_create_of_a_name_in_use_fails(self):
        self.fails(MailboxExists, self.mail.create("Sent"))
        self.fails(MailboxExists, self.mail.create("inbox"))

    def test_r_path_1_names_that_cannot_be_held_are_refused(self):
        for name in ("", "a//b", "/a", "a/", "a\x00b", "a\nb", "a\x7fb", "a\x85b", "x" * 256, "é" * 128, "\ud800"):
            self.fails(InvalidMailboxName, self.mail.create(name))
        self.fails(InvalidMailboxName, self.mail.create("/".join("a" * 21)))

    def test_r_path_1_odd_names_are_held_apart(self):
        odd = [
            "..",
            ".",
            "a.b",
            "a/b",
            "%2E",
            "~root",
            "Entwürfe & Co",
            "日本語",
            "new",
            "cur",
            "&-",
            "&AC4-",
            "INBOX/x",
            " ",
        ]
        for name in odd:
            self.done(self.mail.create(name))
            self.append(name, b"Subject: " + name.encode() + b"\r\n\r\n")
        assert set(odd) <= set(self.names())
        for name in odd:
            mailbox = self.select(name)
            assert self.octets_of(mailbox, *mailbox.uids) == [b"Subject: " + name.encode() + b"\r\n\r\n"]

    def test_inbox_is_the_same_in_any_case(self):
        self.append("inBox")
        assert self.select("INBOX").name == "INBOX"
        assert len(self.select("inbox").uids) == 1

    def test_delete_removes_messages_and_tells_who_has_it_open(self):
        self.done(self.mail.create("Old"))
        self.append("Old")
        mailbox = self.select("Old")
        told = []
        mailbox.watch(lambda: told.append(mailbox.is_gone))
        self.done(self.mail.delete("Old"))
        assert told[-1:] == [True]
        self.fails(NoSuchMailbox, self.mail.open_mailbox("Old"))
        self.fails(NoSuchMailbox, self.mail.delete("Old"))
        assert self.done(self.mail.quota()).messages == 0

    def test_a_mailbox_made_again_has_a_greater_uid_validity(self):
        validities = []
        for _ in range(4):
            self.done(self.mail.create("Again"))
            validities.append(self.done(self.mail.status("Again")).uid_validity)
            self.done(self.mail.delete("Again"))
        assert validities == sorted(set(validities))

    def test_delete_with_children_leaves_the_name(self):
        self.done(self.mail.create("A"))
        self.done(self.mail.create("A/b"))
        self.done(self.mail.delete("A"))
        infos = {info.name: info for info in self.done(self.mail.list_mailboxes())}
        assert not infos["A"].is_selectable
        assert infos["A/b"].is_selectable
        self.fails(MailboxInUse, self.mail.delete("A"))

    def test_inbox_cannot_be_deleted(self):
        self.fails(MailboxInUse, self.mail.delete("Inbox"))

    def test_rename_takes_children_subscriptions_and_open_mailboxes_along(self):
        self.done(self.mail.create("A"))
        self.done(self.mail.create("A/b"))
        self.done(self.mail.subscribe("A/b", subscribed=True))
        [uid] = self.append("A/b")
        mailbox = self.select("A/b")
        self.done(self.mail.rename("A", "Z/y"))
        assert mailbox.name == "Z/y/b"
        assert not mailbox.is_gone
        assert self.octets_of(mailbox, uid) == [PLAIN]
        infos = {info.name: info for info in self.done(self.mail.list_mailboxes())}
        assert infos["Z/y/b"].is_subscribed
        assert "A" not in infos
        assert infos["Z/y/b"].mailbox_id == mailbox.mailbox_id

    def test_rename_that_cannot_be(self):
        self.done(self.mail.create("A"))
        self.done(self.mail.create("B"))
        self.fails(MailboxExists, self.mail.rename("A", "B"))
        self.fails(NoSuchMailbox, self.mail.rename("C", "D"))
        self.fails(InvalidMailboxName, self.mail.rename("A", "A/b"))
        self.fails(InvalidMailboxName, self.mail.rename("A", "x//y"))

    def test_rename_of_inbox_moves_its_messages(self):
        self.append("INBOX", numbered(1), numbered(2), flags=SEEN)
        inbox = self.select()
        next_before = inbox.uid_next
        self.done(self.mail.rename("INBOX", "Old mail"))
        assert list(inbox.uids) == []
        assert inbox.uid_next >= next_before
        moved = self.select("Old mail")
        assert self.octets_of(moved, *moved.uids) == [numbered(1), numbered(2)]
        assert set(self.flags_of(moved).values()) == {SEEN}
        assert "INBOX" in self.names()

    def test_subscriptions_outlive_mailboxes(self):
        self.done(self.mail.subscribe("Ghost", subscribed=True))
        infos = {info.name: info for info in self.done(self.mail.list_mailboxes())}
        assert not infos["Ghost"].exists
        assert infos["Ghost"].is_subscribed
        self.done(self.mail.subscribe("Ghost", subscribed=False))
        assert "Ghost" not in [info.name for info in self.done(self.mail.list_mailboxes())]

    def test_listeners_hear_of_the_list(self):
        heard = []
        end = self.mail.listen(lambda: heard.append(1))
        self.done(self.mail.create("New"))
        assert len(heard) == 1
        end()
        self.done(self.mail.delete("New"))
        assert len(heard) == 1

    def test_r_lim_2_the_number_of_mailboxes_is_limited_and_recovers(self):
        store = self.make_store(StoreSettings(path=str(self.folder / "few" / "{domain}" / "{local}"), mailbox_count=7))
        mail = self.done(store.open_account(ALICE))
        self.done(mail.create("Seventh"))
        self.fails(LimitReached, mail.create("Eighth"))
        self.done(mail.delete("Seventh"))
        self.done(mail.create("Eighth"))

    # Messages

    def test_append_gives_ascending_uids_and_keeps_everything(self):
        mailbox = self.select()
        assert self.append("INBOX", PLAIN, numbered(2), internal_date=1000, date_offset_minutes=60) == [1, 2]
        assert list(mailbox.uids) == [1, 2]
        assert mailbox.uid_next == 3
        first, second = self.done(mailbox.summaries([2, 1]))
        assert (first.uid, first.size_octets, first.internal_date) == (1, len(PLAIN), 1000)
        assert first.date_offset_minutes == 60
        assert first.header_octets == PLAIN.index(b"\r\n\r\n") + 4
        assert b'"one"' in first.imap_envelope
        assert second.body_structure.startswith(b"(")
        assert self.octets_of(mailbox, 2, 1, 99) == [numbered(2), PLAIN, None]

    def test_internal_dates_are_told_with_the_day_in_their_own_zone(self):
        moments = [(0, 0), (86_399, 60), (86_400, -60), (-1, 0), (10**9, 0)]
        for seconds, zone in moments:
            self.append("INBOX", PLAIN, internal_date=seconds, date_offset_minutes=zone)
        mailbox = self.select()
        dates = self.done(mailbox.internal_dates([1, 2, 3, 4]))
        assert list(dates.seconds) == [0, 86_399, 86_400, -1]
        assert list(dates.days) == [0, 1, 0, -1]
        assert list(self.done(mailbox.internal_dates([5])).seconds) == [10**9]
        self.append("INBOX", PLAIN, internal_date=7)
        self.done(mailbox.delete_messages([2]))
        assert list(self.done(mailbox.internal_dates([1, 2, 3, 6, 99])).seconds) == [
            0,
            self.done(mailbox.internal_dates([2])).seconds[0],
            86_400,
            7,
            DATE_OF_NONE,
        ]
        assert list(self.done(mailbox.internal_dates(mailbox.uids)).days) == [0, 0, -1, 11_574, 0]

    def test_append_of_a_file(self):
        path = self.folder / "spooled"
        path.write_bytes(PLAIN)
        content = FileContent(str(path), len(PLAIN), b"")
        self.done(self.mail.append("INBOX", [NewMessage(content, SEEN)]))
        mailbox = self.select()
        assert self.octets_of(mailbox, 1) == [PLAIN]
        assert self.flags_of(mailbox) == {1: SEEN}

    def test_append_to_a_mailbox_that_is_not_there(self):
        self.fails(NoSuchMailbox, self.mail.append("Nowhere", [NewMessage(InlineContent(PLAIN))]))

    def test_content_is_read_in_pieces(self):
        mailbox = self.select()
        [uid] = self.append("INBOX", numbered(7))
        [content] = self.done(mailbox.contents([uid]))
        assert content.size == len(numbered(7))
        pieces = [self.done(content.read(offset, 5)) for offset in range(0, content.size, 5)]
        assert b"".join(pieces) == numbered(7)
        assert self.done(content.read(content.size, 5)) == b""
        content.close()

    def test_status_counts(self):
        self.append("INBOX", PLAIN, numbered(1))
        self.append("INBOX", numbered(2), flags=SEEN | DELETED)
        status = self.done(self.mail.status("INBOX"))
        assert (status.messages, status.unseen, status.deleted) == (3, 2, 1)
        assert status.size_octets == len(PLAIN) + len(numbered(1)) + len(numbered(2))
        assert status.uid_next == 4
        assert status.recent == 3
        self.done(self.select().claim_recent())
        assert self.done(self.mail.status("INBOX")).recent == 0
        self.fails(NoSuchMailbox, self.mail.status("Nowhere"))

    def test_recent_is_told_once(self):
        mailbox = self.select()
        self.append("INBOX", numbered(1), numbered(2))
        assert self.done(mailbox.claim_recent()) == 1
        assert self.done(mailbox.claim_recent()) == 3
        self.append()
        assert self.done(mailbox.claim_recent()) == 3

    # Flags

    def test_store_adds_removes_and_replaces(self):
        mailbox = self.select()
        self.append("INBOX", numbered(1), numbered(2), flags=frozenset({"\\Flagged", "work"}))
        stored = self.done(mailbox.store_flags([1, 2, 9], FlagOperation.ADD, frozenset({"\\Seen", "$Forwarded"})))
        assert list(stored.changed) == [1, 2]
        expected = frozenset({"\\Flagged", "\\Seen", "$Forwarded", "work"})
        assert self.flags_of(mailbox) == {1: expected, 2: expected}
        self.done(mailbox.store_flags([1], FlagOperation.REMOVE, frozenset({"WORK", "\\Seen"})))
        assert self.flags_of(mailbox)[1] == frozenset({"\\Flagged", "$Forwarded"})
        self.done(mailbox.store_flags([2], FlagOperation.REPLACE, frozenset({"\\Draft"})))
        assert self.flags_of(mailbox)[2] == frozenset({"\\Draft"})
        assert {"work", "$Forwarded"} <= mailbox.keywords()

    def test_mod_sequences_rise_and_tell_what_changed(self):
        mailbox = self.select()
        self.append("INBOX", numbered(1), numbered(2), numbered(3))
        before = mailbox.highest_mod_seq
        stored = self.done(mailbox.store_flags([2], FlagOperation.ADD, SEEN))
        assert stored.mod_seq > before
        assert mailbox.mod_seqs[1] == stored.mod_seq
        assert list(mailbox.changed_since(before)) == [2]
        assert list(mailbox.changed_since(stored.mod_seq)) == []
        assert list(mailbox.changed_since(0)) == [1, 2, 3]
        again = self.done(mailbox.store_flags([2], FlagOperation.ADD, SEEN))
        assert list(again.changed) == []
        assert mailbox.mod_seqs[1] == stored.mod_seq
        assert self.done(self.mail.status("INBOX")).highest_mod_seq == mailbox.highest_mod_seq

    def test_unchangedsince_keeps_from_overwriting(self):
        mailbox = self.select()
        self.append("INBOX", numbered(1), numbered(2))
        known = mailbox.highest_mod_seq
        self.done(mailbox.store_flags([1], FlagOperation.ADD, SEEN))
        stored = self.done(mailbox.store_flags([1, 2], FlagOperation.ADD, DELETED, known))
        assert (list(stored.changed), list(stored.modified)) == ([2], [1])
        assert self.flags_of(mailbox) == {1: SEEN, 2: DELETED}

    def test_r_lim_2_keywords_are_limited(self):
        mailbox = self.select()
        self.append()
        self.done(mailbox.store_flags([1], FlagOperation.ADD, frozenset({"k" * 50})))
        self.fails(LimitReached, mailbox.store_flags([1], FlagOperation.ADD, frozenset({"k" * 51})))
        many = frozenset(f"k{number}" for number in range(199))
        self.done(mailbox.store_flags([1], FlagOperation.ADD, many))
        self.fails(LimitReached, mailbox.store_flags([1], FlagOperation.ADD, frozenset({"one-more"})))
        self.done(mailbox.store_flags([1], FlagOperation.REPLACE, frozenset({"k1"})))

    # Removal

    def test_expunge_removes_what_is_deleted(self):
        mailbox = self.select()
        self.append("INBOX", numbered(1), numbered(2), numbered(3))
        self.done(mailbox.store_flags([1, 3], FlagOperation.ADD, DELETED))
        held = mailbox.uids
        before = mailbox.highest_mod_seq
        assert list(self.done(mailbox.expunge([1, 2]))) == [1]
        assert list(mailbox.uids) == [2, 3]
        assert list(held) == [1, 2, 3]
        assert mailbox.highest_mod_seq > before
        assert list(self.done(mailbox.expunge())) == [3]
        assert list(self.done(mailbox.expunge())) == []
        assert self.octets_of(mailbox, 1, 2, 3) == [None, numbered(2), None]

    def test_pop3_deletes_whatever_the_flags(self):
        mailbox = self.select()
        self.append("INBOX", numbered(1), numbered(2))
        assert list(self.done(mailbox.delete_messages([2, 5]))) == [2]
        assert list(mailbox.uids) == [1]

    def test_a_uid_is_never_given_twice(self):
        mailbox = self.select()
        self.append("INBOX", numbered(1), numbered(2))
        self.done(mailbox.delete_messages([1, 2]))
        assert self.append() == [3]
        assert list(mailbox.uids) == [3]

    def test_arrays_are_appended_to_in_place(self):
        mailbox = self.select()
        self.append()
        held, told = mailbox.uids, []
        end = mailbox.watch(lambda: told.append(len(mailbox.uids)))
        self.append()
        assert mailbox.uids is held
        assert told == [2]
        end()
        self.append()
        assert told == [2]

    # COPY and MOVE

    def test_copy_keeps_flags_dates_and_octets(self):
        self.append(
            "INBOX", numbered(1), numbered(2), flags=SEEN | {"work"}, internal_date=777, date_offset_minutes=-300
        )
        inbox, archive = self.select(), self.select("Archive")
        copied = self.done(inbox.copy([2, 1, 9], "Archive"))
        assert (list(copied.source), list(copied.destination)) == ([1, 2], [1, 2])
        assert copied.uid_validity == archive.uid_validity
        assert self.octets_of(archive, 1, 2) == [numbered(1), numbered(2)]
        assert self.flags_of(archive) == self.flags_of(inbox)
        sources, copies = self.done(inbox.summaries([1, 2])), self.done(archive.summaries([1, 2]))
        assert sources == copies
        assert copies[0].internal_date == 777
        self.done(inbox.delete_messages([1, 2]))
        assert self.octets_of(archive, 1, 2) == [numbered(1), numbered(2)]

    def test_copy_within_a_mailbox(self):
        self.append()
        inbox = self.select()
        assert list(self.done(inbox.copy([1], "INBOX")).destination) == [2]
        assert self.octets_of(inbox, 1, 2) == [PLAIN, PLAIN]

    def test_copy_to_nowhere_copies_nothing(self):
        self.append()
        self.fails(NoSuchMailbox, self.select().copy([1], "Nowhere"))

    def test_move_takes_them_away(self):
        self.append("INBOX", numbered(1), numbered(2), numbered(3))
        inbox, trash = self.select(), self.select("Trash")
        moved = self.done(inbox.move([1, 3], "Trash"))
        assert (list(moved.source), list(moved.destination)) == ([1, 3], [1, 2])
        assert list(inbox.uids) == [2]
        assert self.octets_of(trash, 1, 2) == [numbered(1), numbered(3)]
        assert self.octets_of(inbox, 1, 2, 3) == [None, numbered(2), None]
        assert self.done(self.mail.quota()).messages == 3

    def test_move_and_back_again(self):
        self.append()
        inbox, trash = self.select(), self.select("Trash")
        for _ in range(3):
            self.done(inbox.move(list(inbox.uids), "Trash"))
            self.done(trash.move(list(trash.uids), "INBOX"))
        assert self.octets_of(inbox, *inbox.uids) == [PLAIN]
        assert list(inbox.uids) == [4]

    # Quota and locks

    def test_quota_counts_and_refuses(self):
        self.done(self.store.open_account(ALICE, 3 * len(PLAIN)))
        self.append("INBOX", PLAIN, PLAIN)
        usage = self.done(self.mail.quota())
        assert (usage.octets, usage.octet_limit, usage.messages) == (2 * len(PLAIN), 3 * len(PLAIN), 2)
        self.fails(OverQuota, self.select().copy([1, 2], "Trash"))
        self.fails(OverQuota, self.mail.append("INBOX", [NewMessage(InlineContent(PLAIN))] * 2))
        self.done(self.select().move([1, 2], "Trash"))
        self.done(self.select("Trash").delete_messages([1]))
        self.append()
        assert self.done(self.mail.quota()).octets == 2 * len(PLAIN)

    def test_room_is_set_aside_and_given_back(self):
        give_back = self.done(self.store.reserve_quota(ALICE, 60, 100))
        self.fails(OverQuota, self.store.reserve_quota(ALICE, 60, 100))
        give_back()
        give_back()
        second = self.done(self.store.reserve_quota(ALICE, 60, 100))
        self.fails(OverQuota, self.store.reserve_quota(ALICE, 60, 100))
        second()
        self.done(self.store.reserve_quota(BOB, 60, 100))

    def test_the_maildrop_is_locked_once(self):
        unlock = self.done(self.mail.lock_maildrop())
        self.fails(MailboxInUse, self.open(ALICE).lock_maildrop())
        self.done(self.open(BOB).lock_maildrop())
        unlock()
        self.done(self.mail.lock_maildrop())

    def test_accounts_are_apart(self):
        self.append()
        assert len(self.select(mail=self.open(BOB)).uids) == 0

    def test_two_sessions_share_the_mailbox(self):
        one, other = self.select(), self.select(mail=self.open(ALICE))
        self.append()
        assert list(one.uids) == list(other.uids)
        one.close()
        self.done(other.store_flags([1], FlagOperation.ADD, SEEN))
        assert self.flags_of(other) == {1: SEEN}
        other.close()
        assert self.flags_of(self.select()) == {1: SEEN}

    # Between accounts

    def test_mailboxes_say_whose_they_are(self):
        assert self.select().account == ALICE
        assert self.select("INBOX", self.open(BOB)).account == BOB
        assert self.select().may_write

    def test_copies_between_accounts_keep_flags_dates_and_octets(self):
        self.append("INBOX", numbered(1), numbered(2), flags=frozenset({"\\Seen", "$Work"}), internal_date=1000)
        bob = self.open(BOB)
        self.done(bob.append("Sent", [NewMessage(InlineContent(PLAIN))]))
        copied = self.done(bob.copy_from(self.select(), [1, 2, 77], "Sent"))
        assert (list(copied.source), list(copied.destination)) == ([1, 2], [2, 3])
        sent = self.select("Sent", bob)
        assert copied.uid_validity == sent.uid_validity
        assert self.flags_of(sent)[3] == {"\\Seen", "$Work"}
        assert self.octets_of(sent, 2, 3) == [numbered(1), numbered(2)]
        assert list(self.done(sent.internal_dates([2])).seconds) == [1000]
        assert b"n1" in self.done(sent.summaries([2]))[0].imap_envelope
        assert list(self.select().uids) == [1, 2]
        self.done(self.select().delete_messages([1, 2]))
        assert self.octets_of(sent, 2, 3) == [numbered(1), numbered(2)]

    def test_copies_between_accounts_are_all_or_none(self):
        self.append("INBOX", numbered(1), numbered(2))
        self.fails(NoSuchMailbox, self.open(BOB).copy_from(self.select(), [1], "Nowhere"))
        bob = self.done(self.store.open_account(BOB, len(numbered(1)) + 1))
        self.fails(OverQuota, bob.copy_from(self.select(), [1, 2], "INBOX"))
        assert self.done(bob.status("INBOX")).messages == 0
        assert list(self.done(bob.copy_from(self.select(), [2], "INBOX")).destination) == [1]

    def test_copies_from_a_mailbox_that_is_gone_are_none(self):
        self.done(self.mail.create("Old"))
        self.append("Old", numbered(1))
        old = self.select("Old")
        self.done(self.mail.delete("Old"))
        copied = self.done(self.open(BOB).copy_from(old, [1], "INBOX"))
        assert not copied.source
        assert not copied.destination

    def test_there_is_one_quota_root(self):
        assert self.mail.quota_root("INBOX") == ""
        self.fails(NoSuchMailbox, self.mail.quota("other"))
