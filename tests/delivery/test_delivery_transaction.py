"""From MAIL to the journal: trace fields, one record, quota, refusals, aborts."""

import os

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.address import Address
from mailsrv.delivery.header_section import HeaderHold
from mailsrv.delivery.transaction_id import TransactionIds
from mailsrv.errors import InsufficientStorage, MailError, Unavailable
from mailsrv.interfaces.content import FileContent
from mailsrv.interfaces.delivery import Accepted, Refused
from mailsrv.interfaces.mailbox import OverQuota

from .conftest import ALICE, BOB, FULL, SENDER, STAFF, Account, make_house

MESSAGE = (
    b"From: <alice@example.test>\r\nSubject: hello\r\nMessage-ID: <1@example.net>\r\n"
    b"Date: Sun, 09 Sep 2001 01:46:40 +0000\r\n\r\nHello\r\n"
)


class Deliveries(SynchronousTestCase):
    def start(self, house, *recipients, reverse_path=SENDER, account=None, **options):
        transaction = self.successResultOf(house.begin(reverse_path, account, **options))
        for recipient in recipients or (ALICE,):
            self.successResultOf(transaction.add_recipient(recipient))
        self.successResultOf(transaction.begin_content())
        return transaction

    def deliver(self, house, *recipients, content=MESSAGE, pieces=None, **options):
        transaction = self.start(house, *recipients, **options)
        for piece in pieces or [content]:
            transaction.write(piece)
        return transaction.finish()

    def refusal(self, *arguments, **options):
        return self.failureResultOf(self.deliver(*arguments, **options), MailError).value


class TraceTests(Deliveries):
    def test_what_was_received_stands_below_our_trace_fields_as_it_came(self):
        house = make_house()
        (outcome,) = self.successResultOf(self.deliver(house))
        (stored,) = house.inbox()
        assert stored == (
            b"Return-Path: <sender@example.net>\r\n"
            b"Received: from client.example.net ([192.0.2.7])\r\n"
            b"\tby mail.example.test with ESMTP\r\n"
            b"\tid " + outcome.transaction_id.encode() + b"\r\n"
            b"\tfor <alice@example.test>;\r\n"
            b"\tSun, 09 Sep 2001 01:46:40 +0000\r\n" + MESSAGE
        )
        assert house.spool.open_writers == 0

    def test_received_names_a_recipient_only_where_there_is_one(self):
        house = make_house()
        self.successResultOf(self.deliver(house, ALICE, BOB))
        assert b"\tfor " not in house.content()
        house = make_house()
        self.successResultOf(self.deliver(house, ALICE, ALICE))
        assert b"\tfor <alice@example.test>" in house.content()

    def test_rfc_3848_keywords(self):
        tls = {"tls_version": "TLSv1.3", "tls_cipher": "TLS_AES_256_GCM_SHA384"}
        cases: list = [
            ("mx", {"is_extended": False}, None, b"with SMTP\r\n"),
            ("mx", tls, None, b"with ESMTPS (using TLSv1.3 with TLS_AES_256_GCM_SHA384)\r\n"),
            ("submission", tls, Account(ALICE), b"with ESMTPSA (using"),
            ("submission", {}, Account(ALICE), b"with ESMTPA\r\n"),
            ("lmtp", {"client_address": ""}, None, b"with LMTP\r\n"),
        ]
        for service, session, account, expected in cases:
            house = make_house(service)
            reverse_path = ALICE if account else SENDER
            self.successResultOf(
                self.deliver(house, reverse_path=reverse_path, account=account, session=house.session(**session))
            )
            assert expected in house.content(), expected
        house = make_house()
        self.successResultOf(self.deliver(house, is_smtputf8=True))
        assert b"with UTF8SMTP\r\n" in house.content()

    def test_the_null_reverse_path_and_older_return_paths(self):
        house = make_house()
        self.successResultOf(
            self.deliver(house, reverse_path=None, content=b"Return-Path: <x@y.example>\r\n" + MESSAGE)
        )
        assert house.content().startswith(b"Return-Path: <>\r\nReceived: ")
        assert house.content().endswith(b"Return-Path: <x@y.example>\r\n" + MESSAGE)

    def test_submission_completes_date_and_message_id(self):
        house = make_house("submission")
        bare = b"From: alice@example.test\r\n\r\nHello\r\n"
        with capturedLogs() as events:
            self.successResultOf(self.deliver(house, reverse_path=ALICE, account=Account(ALICE), content=bare))
        header, _, _ = house.content().partition(b"\r\n\r\n")
        assert b"\r\nDate: Sun, 09 Sep 2001 01:46:40 +0000\r\n" in header
        assert b"\r\nMessage-ID: <" in header
        assert events[-1]["message_id"].endswith("@mail.example.test>")
        for service, account in (("submission", Account(ALICE)), ("mx", None)):
            house = make_house(service)
            content = MESSAGE if account else bare
            self.successResultOf(self.deliver(house, reverse_path=ALICE, account=account, content=content))
            assert house.content().endswith(b"+0000\r\n" + content)

    def test_a_first_line_that_is_a_continuation_does_not_become_part_of_our_fields(self):
        house = make_house()
        self.successResultOf(self.deliver(house, content=b" evil\r\n\r\nbody\r\n"))
        assert house.content().endswith(b"+0000\r\n\r\n evil\r\n\r\nbody\r\n")

    def test_messages_without_header_end_or_without_anything(self):
        for content in (b"", b"\r\n", b"\r\nbody\r\n", b"Subject: only\r\n", b"no header at all\r\n"):
            house = make_house()
            self.successResultOf(self.deliver(house, content=content))
            assert house.content().endswith(b"+0000\r\n" + content)

    def test_hops_are_limited(self):
        hops = b"Received: by a.example\r\n" * 50
        self.successResultOf(self.deliver(make_house(), content=hops + MESSAGE))
        house = make_house()
        error = self.refusal(house, content=b"received: by b.example\r\n" + hops + MESSAGE)
        assert str(error.status) == "5.4.6"
        assert house.spool.open_writers == 0
        assert not house.journal.records


class JournalTests(Deliveries):
    def test_one_record_for_all_local_recipients_and_each_account_once(self):
        house = make_house()
        recipients = [ALICE, Address("both", "example.test"), Address("alice+x", "example.test"), ALICE]
        outcomes = self.successResultOf(self.deliver(house, *recipients))
        assert [(type(outcome), outcome.recipient) for outcome in outcomes] == [(Accepted, r) for r in recipients]
        (record,) = house.journal.records
        (message,) = record.messages
        assert [(each.account, each.recipient) for each in message.deliveries] == [
            (ALICE, "alice@example.test"),
            (BOB, "both@example.test"),
        ]
        assert (record.reverse_path, record.transaction_id) == ("sender@example.net", outcomes[0].transaction_id)
        assert message.internal_date == 1_000_000_000
        assert len(house.inbox()) == len(house.inbox(BOB)) == 1

    def test_no_room_is_told_before_the_content(self):
        house = make_house()
        transaction = self.successResultOf(house.begin(size=10))
        self.successResultOf(transaction.add_recipient(ALICE))
        house.journal.refusal = InsufficientStorage()
        error = self.failureResultOf(transaction.begin_content(), InsufficientStorage).value
        assert str(error.status) == "4.3.1"
        assert house.spool.open_writers == 0

    def test_a_commit_or_spool_that_fails_is_a_refusal_and_gives_the_room_back(self):
        house = make_house()
        house.journal.failure = InsufficientStorage()
        assert isinstance(self.refusal(house), InsufficientStorage)
        house.spool.failure = Unavailable()
        assert isinstance(self.refusal(house), Unavailable)
        assert house.store.account(ALICE).reserved_octets == 0
        assert not house.inbox()

    def test_a_bug_below_is_logged_and_answered_generally(self):
        house = make_house()
        transaction = self.start(house)
        house.store.reserve_quota = lambda *arguments: fail(RuntimeError("/secret"))
        transaction.write(MESSAGE)
        error = self.failureResultOf(transaction.finish(), MailError).value
        assert str(error.status) == "4.3.0"
        assert "secret" not in error.text
        assert len(self.flushLoggedErrors(RuntimeError)) == 1
        assert len(house.spool.discarded) == 1

    def test_large_content_is_a_file_that_the_journal_gets(self):
        house = make_house(inline_limit=1000, apply=False)
        pieces = [MESSAGE, *[b"y" * 500 + b"\r\n"] * 10]
        self.successResultOf(self.deliver(house, pieces=pieces))
        content = house.journal.records[0].messages[0].content
        assert isinstance(content, FileContent)
        assert house.content().endswith(b"".join(pieces))
        os.unlink(content.path)

    def test_back_pressure_of_the_spool_reaches_the_session(self):
        house = make_house()
        transaction = self.start(house)
        house.spool.pause = Deferred()
        assert transaction.write(MESSAGE) is house.spool.pause
        assert transaction.write(b"more\r\n") is house.spool.pause

    def test_reservations_hold_until_the_commit(self):
        house = make_house()
        house.journal.waiting = Deferred()
        waiting = house.journal.waiting
        finished = self.deliver(house)
        self.assertNoResult(finished)
        assert house.store.account(ALICE).reserved_octets > 0
        waiting.callback(None)
        self.successResultOf(finished)
        assert house.store.account(ALICE).reserved_octets == 0


class QuotaTests(Deliveries):
    big = MESSAGE + b"z" * 300 + b"\r\n"

    def test_all_full_is_552_and_some_full_is_452(self):
        house = make_house()
        error = self.refusal(house, FULL, content=self.big)
        assert isinstance(error, OverQuota)
        assert not error.is_temporary
        error = self.refusal(house, FULL, ALICE, content=self.big)
        assert str(error.status) == "4.2.2"
        assert not house.journal.records
        assert len(house.spool.discarded) == 2
        assert house.store.account(ALICE).reserved_octets == 0

    def test_lmtp_tells_recipient_by_recipient_also_the_same_twice(self):
        house = make_house("lmtp")
        with capturedLogs() as events:
            outcomes = self.successResultOf(self.deliver(house, ALICE, FULL, BOB, FULL, content=self.big))
        assert [type(outcome) for outcome in outcomes] == [Accepted, Refused, Accepted, Refused]
        assert isinstance(outcomes[1].error, OverQuota)
        assert len(house.inbox()) == len(house.inbox(BOB)) == 1
        assert not house.inbox(FULL)
        assert "full@example.test: 5.2.2" in events[-1]["refused_recipients"][0]
        assert house.store.account(ALICE).reserved_octets == 0

    def test_lmtp_with_nobody_left_commits_nothing(self):
        house = make_house("lmtp")
        (outcome,) = self.successResultOf(self.deliver(house, FULL, content=self.big))
        assert isinstance(outcome, Refused)
        assert not house.journal.records
        assert len(house.spool.discarded) == 1

    def test_a_group_gets_a_message_whole_or_not_at_all(self):
        house = make_house("lmtp")
        group = Address("group", "example.test")
        house.directory.add_alias(group, [BOB, FULL])
        outcomes = self.successResultOf(self.deliver(house, group, ALICE, content=self.big))
        assert [type(outcome) for outcome in outcomes] == [Refused, Accepted]
        assert not house.inbox(BOB)


class FromTests(Deliveries):
    def submit(self, header, **account):
        house = make_house("submission")
        return self.deliver(
            house, reverse_path=ALICE, account=Account(ALICE, **account), content=header + b"\r\n\r\nx\r\n"
        )

    def test_from_must_be_the_users_own(self):
        for good in (b"From: alice@example.test", b"FROM: Alice (x) <alice@example.test>"):
            self.successResultOf(self.submit(good))
        self.successResultOf(self.submit(b"From: a <alice@example.test>, <bob@example.test>", others=(BOB,)))

    def test_other_spellings_of_somebody_else_are_refused(self):
        for bad in (
            b"From: bob@example.test",
            b"From: alice@example.test, bob@example.test",
            b"From: <alice@example.test>\r\nFrom: bob@example.test",
            b"From: alice@example.test, friends: bob@example.test;",
            b"From: bob@",
            b"From: alice@example.test, not an address",
            b"From: alice@example.test, bob@exa mple.test",
            b"From:",
            b"Subject: none",
            b"From : bob@example.test",
            b"From:\r\n bob@example.test",
        ):
            error = self.failureResultOf(self.submit(bad), MailError).value
            assert str(error.status) == "5.7.1", bad

    def test_a_header_past_the_cap_is_no_way_around(self):
        house = make_house("submission", header_limit_octets=200)
        for first in (b"", b"From: alice@example.test\r\n"):
            content = first + b"X: " + b"y" * 300 + b"\r\nFrom: bob@example.test\r\n\r\n"
            error = self.refusal(house, reverse_path=ALICE, account=Account(ALICE), content=content)
            assert str(error.status) == "5.3.4"

    def test_a_directory_that_is_down_defers(self):
        house = make_house("submission")
        account = Account(ALICE)
        transaction = self.start(house, reverse_path=ALICE, account=account)
        account.is_down = True
        transaction.write(b"From: bob@example.test\r\n\r\n")
        error = self.failureResultOf(transaction.finish(), MailError).value
        assert str(error.status) == "4.3.0"

    def test_the_check_can_be_turned_off(self):
        house = make_house("submission", check_from_field=False)
        content = b"From: bob@example.test\r\n\r\n"
        self.successResultOf(self.deliver(house, reverse_path=ALICE, account=Account(ALICE), content=content))

    def test_content_that_comes_while_the_answer_is_awaited_is_kept_in_order(self):
        house = make_house("submission")
        account = Account(ALICE)
        transaction = self.start(house, reverse_path=ALICE, account=account)
        answer: Deferred = Deferred()
        account.may_send_as = lambda address: answer  # type: ignore[method-assign]
        pause = transaction.write(b"From: bob@example.test\r\n\r\none\r\n")
        self.assertNoResult(pause)
        assert transaction.write(b"two\r\n") is not None
        finished = transaction.finish()
        self.assertNoResult(finished)
        answer.callback(True)
        self.successResultOf(finished)
        assert house.content().endswith(b"\r\n\r\none\r\ntwo\r\n")


class AbortTests(Deliveries):
    def test_an_abort_at_any_point_before_the_journal_leaves_nothing(self):
        house = make_house()
        self.successResultOf(house.begin()).abort()
        transaction = self.start(house)
        transaction.abort()
        transaction.abort()
        transaction = self.start(house)
        transaction.write(MESSAGE)
        transaction.abort()
        assert transaction.write(b"late") is None
        assert house.spool.open_writers == 0
        assert not house.journal.records

    def test_a_connection_lost_while_quota_is_reserved(self):
        house = make_house()
        answer: Deferred = Deferred()
        released = []
        transaction = self.start(house)
        house.store.reserve_quota = lambda *arguments: answer
        transaction.write(MESSAGE)
        finished = transaction.finish()
        transaction.abort()
        answer.callback(lambda: released.append(True))
        self.failureResultOf(finished, MailError)
        assert released == [True]
        assert len(house.spool.discarded) == 1
        assert not house.journal.records

    def test_an_abort_after_the_commit_began_comes_too_late(self):
        house = make_house()
        waiting: Deferred = Deferred()
        house.journal.waiting = waiting
        transaction = self.start(house)
        transaction.write(MESSAGE)
        finished = transaction.finish()
        transaction.abort()
        waiting.callback(None)
        self.successResultOf(finished)
        assert len(house.inbox()) == 1

    def test_a_recipient_whose_answer_comes_after_the_abort(self):
        house = make_house()
        answer: Deferred = Deferred()
        house.directory.find_alias = lambda address: answer
        transaction = self.successResultOf(house.begin())
        pending = transaction.add_recipient(ALICE)
        transaction.abort()
        answer.callback(None)
        self.failureResultOf(pending, MailError)


class LogTests(Deliveries):
    def events(self, action):
        with capturedLogs() as events:
            action()
        return [event for event in events if "transaction_id" in event and "result" in event]

    def test_one_event_tells_all_of_an_accepted_message(self):
        house = make_house()
        (event,) = self.events(lambda: self.successResultOf(self.deliver(house, ALICE, BOB)))
        assert event["result"] == "accepted"
        assert event["recipients"] == ["alice@example.test", "bob@example.test"]
        assert event["reverse_path"] == "sender@example.net"
        assert event["message_id"] == "<1@example.net>"
        assert event["size_octets"] == len(house.content())
        assert event["client_address"] == "192.0.2.7"
        assert "Hello" not in str(event)

    def test_a_refusal_says_why_with_its_private_cause(self):
        house = make_house()
        house.journal.failure = Unavailable(cause="disk sda")
        (event,) = self.events(lambda: self.refusal(house))
        assert (event["result"], event["reason"]) == (
            "deferred",
            "4.3.0 Temporary failure, try again later (disk sda)",
        )

    def test_a_transaction_that_ends_at_rcpt_is_told_too(self):
        house = make_house()

        def go():
            transaction = self.successResultOf(house.begin())
            self.failureResultOf(transaction.add_recipient(Address("nobody", "example.test")), MailError)
            transaction.abort()

        (event,) = self.events(go)
        assert event["result"] == "abandoned"
        assert event["refused_recipients"] == ["nobody@example.test: 5.1.1 No such user here"]
        assert not self.events(lambda: self.successResultOf(house.begin()).abort())

    def test_a_sender_that_is_refused_is_told(self):
        house = make_house("submission")
        (event,) = self.events(lambda: self.failureResultOf(house.begin(BOB, Account(ALICE)), MailError))
        assert event["result"] == "refused"

    def test_a_message_id_cannot_forge_a_log_line(self):
        house = make_house()
        content = b"Message-ID: <\x1b[2Ja\xff@b>\r\n\r\n"
        (event,) = self.events(lambda: self.successResultOf(self.deliver(house, STAFF, content=content)))
        assert event["message_id"] == "<?[2Ja?@b>"


class SmallParts(SynchronousTestCase):
    def test_transaction_ids_ascend_and_are_short(self):
        now = [1e9]
        ids = TransactionIds(lambda: now[0])
        made = []
        for step in range(70_000):
            if step % 10_000 == 9_999:
                now[0] += -0.5 if step % 20_000 else 0.001
            made.append(ids.new())
        assert made == sorted(set(made))
        assert {len(each) for each in made} == {16}
        assert TransactionIds(lambda: 1e9).new() != TransactionIds(lambda: 1e9).new()


@hypothesis_settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([b"", b"\r\n", b"\r\nx", b"a: b\r\n\r\nbody\r\n\r\nmore", b"a: b\r\n", b"\r", b"a\r\n\rb\r\n\r\n"]),
    st.lists(st.integers(1, 5), max_size=30),
)
def test_the_header_section_ends_at_the_same_place_in_any_pieces(content, sizes):
    whole = HeaderHold(1000)
    if not whole.feed(content):
        whole.end()
    hold, position, is_complete, taken = HeaderHold(1000), 0, False, b""
    for size in [*sizes, *[1] * len(content)]:
        if is_complete or position >= len(content):
            break
        is_complete = hold.feed(content[position : position + size])
        position += size
    if not is_complete:
        hold.end()
    assert hold.header == whole.header
    taken = hold.take()
    assert content.startswith(taken)


def test_r_mime_1_a_header_without_end_in_single_octets_costs_linear_work():
    hold = HeaderHold(100_000)
    pieces = sum(1 for _ in iter(lambda: hold.feed(b"x"), True))
    assert pieces == 99_999
    assert hold.header_octets == 100_000
