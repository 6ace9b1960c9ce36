"""The pipeline: order, finality, atomic answers, lost filters (R-FILT-1)."""

import pytest
from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailsrv.address import Address
from mailsrv.filters.function import filter_function
from mailsrv.filters.pipeline import NO_OBJECTION
from mailsrv.filters.settings import OnFailure
from mailsrv.interfaces.filter import (
    Accept,
    AddHeader,
    Defer,
    Discard,
    IFilter,
    Phase,
    Redirect,
    Reject,
)
from mailsrv.status import EnhancedStatus
from mailsrv.testing.filters import ask, message_view, pipeline_of, session_view, transaction_view

BOB = Address("bob", "example.test")


@implementer(IFilter)
@frozen
class Says:
    """Answers the same to everything."""

    answer: object
    name: str = "says"
    phases: frozenset = frozenset(Phase)

    def ask(self, phase, session, transaction, message):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class PipelineTests(SynchronousTestCase):
    def decide(self, phase, *filters, clock=None, **settings):
        pipeline = pipeline_of(*filters, clock=clock, **settings)
        return Deferred.fromCoroutine(pipeline.ask(phase, session_view(), transaction_view(), message_view()))

    def decided(self, phase, *filters, **settings):
        return self.successResultOf(self.decide(phase, *filters, **settings))

    def test_without_filters_there_is_no_objection_and_nobody_wants_anything(self):
        assert self.decided(Phase.RCPT) is NO_OBJECTION
        assert not pipeline_of().wants(Phase.RCPT)

    def test_a_filter_is_asked_only_in_its_phases(self):
        only_mail = Says(Reject(), phases=frozenset({Phase.MAIL}))
        pipeline = pipeline_of(only_mail)
        assert pipeline.wants(Phase.MAIL)
        assert not pipeline.wants(Phase.RCPT)
        assert self.decided(Phase.RCPT, only_mail).refusal is None

    def test_the_first_refusal_ends_the_asking(self):
        asked = []

        @filter_function(phase="rcpt")
        def second(phase):
            asked.append(phase)

        decision = self.decided(Phase.RCPT, Says(Reject("No")), second)
        assert decision.refusal.text == "No"
        assert str(decision.refusal.status) == "5.7.1"
        assert not asked
        assert [str(note) for note in decision.notes] == ["says@rcpt=reject (No)"]

    def test_reject_is_permanent_and_defer_temporary_whatever_status_was_given(self):
        status = EnhancedStatus(2, 7, 26)
        assert str(self.decided(Phase.MAIL, Says(Reject(status=status))).refusal.status) == "5.7.26"
        assert str(self.decided(Phase.MAIL, Says(Defer(status=status))).refusal.status) == "4.7.26"

    def test_texts_for_the_peer_are_one_line_of_ascii(self):
        assert self.decided(Phase.MAIL, Says(Reject("a\r\n250 b\u20ac"))).refusal.text == "a 250 b"
        assert self.decided(Phase.MAIL, Says(Reject("\r\n"))).refusal.text == "Refused by policy"

    def test_edits_of_several_filters_add_up_and_the_last_redirect_stands(self):
        decision = self.decided(
            Phase.MESSAGE,
            Says([AddHeader("X-A", "1"), Redirect((BOB,))]),
            Says([Redirect((Address("eve", "example.test"),)), AddHeader("X-B", "2")]),
        )
        assert [header.name for header in decision.headers] == ["X-A", "X-B"]
        assert decision.redirect == (Address("eve", "example.test"),)

    def test_discard_ends_the_asking_and_what_follows_in_the_answer_means_nothing(self):
        decision = self.decided(Phase.MESSAGE, Says([Discard("test"), Redirect((BOB,))]), Says(Reject()))
        assert decision.discard
        assert decision.redirect is None
        assert decision.refusal is None

    def test_r_filt_1_an_answer_with_one_unusable_verdict_is_lost_as_a_whole(self):
        for bad in (
            AddHeader("X-A", "1\r\nBcc: x"),
            AddHeader("X A", "1"),
            AddHeader("X-A", "\ud800"),
            "yes",
            Redirect(()),
        ):
            answer = [AddHeader("X-Good", "1"), bad]
            decision = self.decided(Phase.MESSAGE, Says(answer))
            assert str(decision.refusal.status) == "4.7.1", bad
            assert decision.headers == ()
            accepted = self.decided(Phase.MESSAGE, Says(answer), on_failure=OnFailure.ACCEPT)
            assert accepted == NO_OBJECTION
        self.flushLoggedErrors()

    def test_phases_without_a_message_take_no_edits(self):
        for phase in (Phase.CONNECT, Phase.HELO):
            assert self.decided(phase, Says(AddHeader("X-A", "1"))).refusal is not None
            assert self.decided(phase, Says(Discard())).refusal is not None
        assert self.decided(Phase.MAIL, Says(Redirect((BOB,)))).refusal is not None
        self.flushLoggedErrors()

    def test_r_filt_1_a_filter_that_raises_defers_by_default_and_the_peer_reads_nothing_of_it(self):
        decision = self.decided(Phase.RCPT, Says(RuntimeError("secret path /x")))
        assert decision.refusal.is_temporary
        assert "secret" not in decision.refusal.text
        assert len(self.flushLoggedErrors(RuntimeError)) == 1

    def test_r_filt_1_a_filter_that_raises_may_be_passed_over_and_the_next_is_asked(self):
        decision = self.decided(Phase.RCPT, Says(RuntimeError()), Says(Reject("No")), on_failure=OnFailure.ACCEPT)
        assert decision.refusal.text == "No"
        self.flushLoggedErrors(RuntimeError)

    def test_r_filt_1_a_late_filter_is_lost_after_its_timeout(self):
        clock = Clock()
        pending = self.decide(Phase.RCPT, Says(Deferred()), clock=clock)
        clock.advance(29)
        self.assertNoResult(pending)
        clock.advance(2)
        assert self.successResultOf(pending).refusal.is_temporary
        pending = self.decide(Phase.MESSAGE, Says(Deferred()), clock=clock)
        clock.advance(59)
        self.assertNoResult(pending)
        clock.advance(2)
        assert self.successResultOf(pending).refusal.is_temporary
        self.flushLoggedErrors()
        assert not clock.getDelayedCalls()

    def test_an_answer_in_time_leaves_no_timer(self):
        clock = Clock()
        answer: Deferred = Deferred()
        pending = self.decide(Phase.RCPT, Says(answer), clock=clock)
        answer.callback(Accept())
        assert self.successResultOf(pending) == NO_OBJECTION
        assert not clock.getDelayedCalls()

    def test_a_loss_is_logged_with_the_filter_and_the_transaction(self):
        with capturedLogs() as events:
            self.decided(Phase.RCPT, Says(RuntimeError()))
        self.flushLoggedErrors()
        (event,) = [event for event in events if event.get("filter") == "says"]
        assert (event["phase"], event["policy"], event["transaction_id"]) == ("rcpt", "defer", "t1")

    def test_a_class_may_say_async_def_ask(self):
        @implementer(IFilter)
        class Slow:
            name = "slow"
            phases = frozenset({Phase.RCPT})

            async def ask(self, phase, session, transaction, message):  # type: ignore[override]
                return Reject("No")

        assert self.decided(Phase.RCPT, Slow()).refusal.text == "No"


class FilterFunctionTests(SynchronousTestCase):
    def test_a_function_takes_the_views_it_names(self):
        seen: dict = {}

        @filter_function(phase=["helo", Phase.RCPT])
        def look_around(transaction, phase):
            """Sees."""
            seen.update(transaction=transaction, phase=phase)

        verifyObject(IFilter, look_around)
        assert look_around.name == "look-around"
        assert look_around.description == "Sees."
        assert look_around.phases == {Phase.HELO, Phase.RCPT}
        transaction = transaction_view(recipient=BOB)
        assert ask(look_around, Phase.RCPT, transaction=transaction) == NO_OBJECTION
        assert seen == {"transaction": transaction, "phase": Phase.RCPT}

    def test_a_function_may_be_async(self):
        waits: Deferred = Deferred()

        @filter_function(phase="rcpt", name="slow")
        async def anything():
            await waits
            return Reject("No")

        pending = Deferred.fromCoroutine(pipeline_of(anything).ask(Phase.RCPT, session_view(), transaction_view()))
        self.assertNoResult(pending)
        waits.callback(None)
        refusal = self.successResultOf(pending).refusal
        assert refusal is not None
        assert refusal.text == "No"
        with pytest.raises(AssertionError, match="slow"):
            ask(Says(Deferred(), name="slow"), Phase.RCPT)

    def test_a_decorated_function_can_still_be_called(self):
        @filter_function(phase="message")
        def big(message):
            return Reject("Too big") if message.size_octets > 10 else None

        assert big(message_view()) == Reject("Too big")

    def test_mistakes_show_at_import(self):
        with pytest.raises(ValueError, match="rctp"):
            filter_function(phase="rctp")
        with pytest.raises(TypeError, match="envelope"):
            filter_function(phase="rcpt")(lambda envelope: None)
