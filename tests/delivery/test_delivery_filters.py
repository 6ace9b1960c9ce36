"""Filters on the way to the journal (R-FILT-1): every phase, every verdict, lost filters."""

import os

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.filters.function import filter_function
from mailsrv.filters.settings import OnFailure
from mailsrv.interfaces.delivery import Accepted
from mailsrv.interfaces.filter import AddHeader, Defer, Discard, Redirect, Reject
from mailsrv.testing.filters import pipeline_of

from .conftest import ALICE, BOB, SENDER, Account, make_house

MESSAGE = b"From: <x@example.net>\r\nSubject: hello\r\n\r\nHello\r\n"


def says(phase, answer, seen=None):
    @filter_function(phase=phase, name="says")
    def function(session, transaction, message):
        if seen is not None:
            seen.append((session, transaction, message))
        if isinstance(answer, Exception):
            raise answer
        return answer

    return function


class FilterPhases(SynchronousTestCase):
    def start(self, house, *recipients):
        transaction = self.successResultOf(house.begin())
        for recipient in recipients or (ALICE,):
            self.successResultOf(transaction.add_recipient(recipient))
        self.successResultOf(transaction.begin_content())
        return transaction

    def deliver(self, house, *recipients, content=MESSAGE):
        transaction = self.start(house, *recipients)
        transaction.write(content)
        return transaction.finish()

    def refused(self, deferred):
        return self.failureResultOf(deferred, MailError).value

    def test_connect_and_helo_refuse_the_session(self):
        house = make_house(filters=[says(["connect", "helo"], Reject("Go away"))])
        assert str(self.refused(house.receiver.connected(house.session()))) == "5.7.1 Go away (filter says)"
        assert self.refused(house.receiver.greeted(house.session())).text == "Go away"

    def test_mail_refuses_and_sees_the_parameters(self):
        seen: list = []
        house = make_house(filters=[says("mail", Defer("Later"), seen)])
        assert self.refused(house.begin(size=77, is_8bit=True)).is_temporary
        ((session, transaction, message),) = seen
        assert (transaction.reverse_path, transaction.size_declared, transaction.is_8bit) == (SENDER, 77, True)
        assert session.service == "mx"
        assert message is None

    def test_a_message_discarded_at_mail_is_accepted_and_goes_nowhere(self):
        house = make_house(filters=[says("mail", Discard("test"))])
        (outcome,) = self.successResultOf(self.deliver(house))
        assert isinstance(outcome, Accepted)
        assert not house.journal.records
        assert house.spool.open_writers == 0

    def test_rcpt_is_asked_only_about_recipients_we_would_take(self):
        seen: list = []
        house = make_house(filters=[says("rcpt", None, seen)])
        transaction = self.successResultOf(house.begin())
        self.refused(transaction.add_recipient(Address("nobody", "example.test")))
        assert not seen
        self.successResultOf(transaction.add_recipient(ALICE))
        self.successResultOf(transaction.add_recipient(BOB))
        assert [(each[1].recipient, each[1].recipients) for each in seen] == [(ALICE, ()), (BOB, (ALICE,))]

    def test_rcpt_refuses_one_discards_one_redirects_one(self):
        answers = {ALICE: Reject("No"), BOB: Discard(), Address("staff", "example.test"): Redirect((BOB,))}

        @filter_function(phase="rcpt")
        def choose(transaction):
            return answers.get(transaction.recipient)

        house = make_house(filters=[choose])
        transaction = self.successResultOf(house.begin())
        self.refused(transaction.add_recipient(ALICE))
        self.successResultOf(transaction.add_recipient(BOB))
        self.successResultOf(transaction.add_recipient(Address("staff", "example.test")))
        self.successResultOf(transaction.begin_content())
        transaction.write(MESSAGE)
        assert len(self.successResultOf(transaction.finish())) == 2
        (record,) = house.journal.records
        assert [(each.account, each.recipient) for each in record.messages[0].deliveries] == [
            (BOB, "staff@example.test")
        ]

    def test_only_discarded_recipients_need_no_journal(self):
        house = make_house(filters=[says("rcpt", Discard())])
        self.successResultOf(self.deliver(house))
        assert not house.journal.records
        assert house.spool.open_writers == 0

    def test_headers_refuses_at_the_end_of_data_and_sees_the_header_alone(self):
        seen: list = []
        house = make_house(filters=[says("headers", Reject("Bad subject"), seen)])
        transaction = self.start(house)
        assert transaction.write(MESSAGE) is None
        assert transaction.write(b"more\r\n") is None
        assert self.refused(transaction.finish()).text == "Bad subject"
        assert seen[0][2].header == b"From: <x@example.net>\r\nSubject: hello\r\n\r\n"
        assert seen[0][2].octets is None
        assert house.spool.open_writers == 0

    def test_headers_that_takes_its_time_pauses_the_peer(self):
        answer: Deferred = Deferred()
        house = make_house(filters=[says("headers", answer)])
        transaction = self.start(house)
        pause = transaction.write(MESSAGE)
        self.assertNoResult(pause)
        answer.callback(AddHeader("X-Seen", "yes"))
        self.successResultOf(pause)
        self.successResultOf(transaction.finish())
        assert house.content().endswith(MESSAGE)

    def test_an_abort_while_headers_is_asked(self):
        answer: Deferred = Deferred()
        house = make_house(filters=[says("headers", answer)])
        transaction = self.start(house)
        transaction.write(MESSAGE)
        transaction.abort()
        answer.callback(None)
        assert house.spool.open_writers == 0

    def test_added_fields_stand_between_return_path_and_received(self):
        filters = [says(phase, AddHeader(f"X-{phase}", "seen")) for phase in ("mail", "rcpt", "headers")]
        house = make_house(filters=filters)
        self.successResultOf(self.deliver(house))
        assert house.content().startswith(
            b"Return-Path: <sender@example.net>\r\nX-mail: seen\r\nX-rcpt: seen\r\nX-headers: seen\r\nReceived: "
        )

    def test_message_sees_everything_and_its_fields_come_in_front(self):
        seen: list = []
        house = make_house(filters=[says("message", [AddHeader("X-Spam", "no"), AddHeader("X-Late", "ü")], seen)])
        self.successResultOf(self.deliver(house))
        view = seen[0][2]
        assert view.octets.endswith(MESSAGE)
        assert view.size_octets == len(view.octets)
        assert view.header == view.octets[: -len(b"Hello\r\n")]
        return_path, rest = view.octets.split(b"\r\n", 1)
        assert house.content() == return_path + "\r\nX-Spam: no\r\nX-Late: ü\r\n".encode() + rest
        assert house.inbox()[0] == house.content()

    def test_fields_added_to_a_message_in_a_file(self):
        seen: list = []
        house = make_house(filters=[says("message", AddHeader("X-Spam", "no"), seen)], inline_limit=1000, apply=False)
        content = MESSAGE + b"y" * 600_000 + b"\r\n"
        self.successResultOf(self.deliver(house, content=content))
        view = seen[0][2]
        assert view.octets is None
        assert not os.path.exists(view.path)
        stored = house.content()
        assert stored.startswith(b"Return-Path: <sender@example.net>\r\nX-Spam: no\r\nReceived: ")
        assert stored.endswith(content)
        assert house.journal.records[0].messages[0].content.size == len(stored)
        os.unlink(house.journal.records[0].messages[0].content.path)

    def test_a_file_that_cannot_be_read_again_defers_and_leaves_nothing(self):
        seen: list = []

        @filter_function(phase="message")
        def remove(message):
            seen.append(message.path)
            os.unlink(message.path)
            return AddHeader("X-A", "b")

        house = make_house(filters=[remove], inline_limit=100)
        assert str(self.refused(self.deliver(house)).status) == "4.3.0"
        assert house.spool.open_writers == 0
        assert not os.path.exists(seen[0])

    def test_message_refuses_discards_redirects(self):
        house = make_house(filters=[says("message", Reject("Spam"))])
        assert self.refused(self.deliver(house)).text == "Spam"
        assert len(house.spool.discarded) == 1
        house = make_house(filters=[says("message", Discard("virus"))])
        self.successResultOf(self.deliver(house))
        assert not house.journal.records
        house = make_house(filters=[says("message", [Redirect((BOB,)), AddHeader("X-Was-For", "alice")])])
        (outcome,) = self.successResultOf(self.deliver(house))
        assert outcome.recipient == ALICE
        assert not house.inbox()
        assert b"\r\nX-Was-For: alice\r\n" in house.inbox(BOB)[0]

    def test_a_redirect_to_nobody_defers_instead_of_losing_mail(self):
        for target in (Address("nobody", "example.test"), Address("friend", "example.org")):
            for phase in ("rcpt", "message"):
                house = make_house(filters=[says(phase, Redirect((target,)))])
                if phase == "rcpt":
                    error = self.refused(self.successResultOf(house.begin()).add_recipient(ALICE))
                else:
                    error = self.refused(self.deliver(house))
                assert str(error.status) == "4.3.0"
                assert not house.journal.records

    def test_r_filt_1_a_lost_filter_defers_or_the_message_goes_on_with_its_original_octets(self):
        broken = says("message", RuntimeError("x"))
        house = make_house(filters=[broken])
        assert self.refused(self.deliver(house)).is_temporary
        house = make_house(filters=pipeline_of(broken, on_failure=OnFailure.ACCEPT))
        self.successResultOf(self.deliver(house))
        assert house.content().endswith(MESSAGE)
        self.flushLoggedErrors(RuntimeError)

    def test_r_filt_1_an_unusable_answer_changes_nothing(self):
        half_good = says("message", [AddHeader("X-Good", "1"), AddHeader("X-Bad", "1\nX-Worse: 2")])
        house = make_house(filters=pipeline_of(half_good, on_failure=OnFailure.ACCEPT))
        self.successResultOf(self.deliver(house))
        assert b"X-Good" not in house.content()
        self.flushLoggedErrors()

    def test_submission_filters_see_who_is_logged_in(self):
        seen: list = []
        house = make_house("submission", filters=[says("rcpt", None, seen)])
        transaction = self.successResultOf(house.begin(ALICE, Account(ALICE)))
        self.successResultOf(transaction.add_recipient(BOB))
        assert seen[0][0].account == ALICE
