"""The queue's runner: when it tries, what it writes down, and what it does in trouble and at the stop."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from mailsrv.errors import InsufficientStorage, Unavailable
from mailsrv.interfaces.envelope import DeliverBy
from mailsrv.interfaces.queue import OnwardRecipient
from mailsrv.queue.settings import ScheduleSettings
from tests.queue.queue_rig import ALICE, START, STEADY, Rig, bob, declined, mx, taken, unreachable


def test_fresh_mail_starts_at_once():
    rig = Rig().start()
    rig.send()
    assert rig.agent.addresses == ["bob@example.org"]
    assert rig.endings == [("bob@example.org", "delivered")]
    assert rig.clock.seconds() == START


def test_r_q_2_nothing_is_sent_before_the_runner_is_started():
    """The journal of another process may hold what has become of it."""
    rig = Rig()
    rig.send(bob())
    rig.advance(3600)
    assert rig.agent.consignments == []
    rig.start()
    rig.advance(1)
    assert len(rig.agent.consignments) == 1


def test_what_waits_at_the_start_is_served():
    rig = Rig()
    rig.send(bob("a.example"), bob("b.example"))
    rig.start()
    assert sorted(rig.agent.addresses) == ["bob@a.example", "bob@b.example"]


def test_retries_double_up_to_four_hours_and_end_with_a_notice_after_five_days():
    times: list[float] = []
    rig = Rig()

    def answer(consignment):
        times.append(rig.clock.seconds() - START)
        return declined(consignment)

    rig.agent.answer = answer
    rig.start()
    rig.send()
    rig.advance(6 * 86_400)
    assert [after - before for before, after in itertools.pairwise(times)][:8] == [
        300, 600, 1200, 2400, 4800, 9600, 14_400, 14_400,
    ]  # fmt: skip
    assert times[-1] == 432_000
    assert rig.endings == [("bob@example.org", "expired")]
    ((to, text),) = rig.notices_sent
    assert to == "alice@example.test"
    assert "Status: 4.4.7" in text
    assert "Diagnostic-Code: smtp; 450 4.2.1 No" in text


def test_a_refusal_becomes_one_notice_for_all_recipients_of_the_round():
    rig = Rig(answer=lambda consignment: declined(consignment, "5.1.1")).start()
    rig.send(bob(), bob(name="carol"))
    ((to, text),) = rig.notices_sent
    assert to == "alice@example.test"
    assert text.count("Final-Recipient:") == 2
    assert sorted(rig.endings) == [("bob@example.org", "bounced"), ("carol@example.org", "bounced")]


def test_the_null_reverse_path_lives_two_days_and_tells_only_the_postmaster():
    rig = Rig(answer=declined).start()
    rig.send(reverse_path=None)
    rig.advance(172_799)
    assert rig.endings == []
    rig.advance(2)
    assert rig.endings == [("bob@example.org", "expired")]
    assert [to for to, _ in rig.notices_sent] == ["postmaster@example.test"]


def test_users_are_told_once_that_mail_is_delayed():
    rig = Rig(answer=declined).start()
    rig.send(account="alice@example.test")
    rig.advance(14_399)
    assert rig.notices_sent == []
    rig.advance(2)
    ((to, text),) = rig.notices_sent
    assert to == "alice@example.test"
    assert "Action: delayed" in text
    assert "Will-Retry-Until:" in text
    rig.advance(86_400)
    assert len(rig.notices_sent) == 1


def test_strangers_are_not_told_of_delays():
    rig = Rig(answer=declined).start()
    rig.send()
    rig.advance(86_400)
    assert rig.notices_sent == []


def test_mail_is_held_until_its_time():
    rig = Rig().start()
    rig.send(hold_until=int(START) + 3600)
    assert rig.agent.addresses == []
    rig.advance(3599)
    assert rig.agent.addresses == []
    rig.advance(2)
    assert rig.agent.addresses == ["bob@example.org"]


def test_deliver_by_in_mode_r_goes_back_at_its_deadline_without_another_attempt():
    rig = Rig(answer=declined).start()
    rig.send(deliver_by=DeliverBy(int(START) + 1000, must_return=True))
    rig.advance(999)
    attempts = len(rig.agent.consignments)
    rig.advance(1)
    assert len(rig.agent.consignments) == attempts == 3
    ((_, text),) = rig.notices_sent
    assert "Status: 5.4.7" in text
    assert "Deliver-By-Date:" in text


def test_deliver_by_in_mode_n_tells_at_its_deadline_and_travels_on():
    rig = Rig(answer=declined).start()
    rig.send(deliver_by=DeliverBy(int(START) + 1000))
    rig.advance(1001)
    ((_, text),) = rig.notices_sent
    assert "Action: delayed" in text
    rig.agent.answer = taken
    rig.advance(7200)
    assert rig.endings == [("bob@example.org", "delivered")]


def test_a_dead_destination_costs_one_attempt_an_interval_however_much_waits():
    rig = Rig(answer=unreachable)
    for number in range(50):
        rig.send(bob(name=f"bob{number}"))
    rig.start()
    rig.advance(1)
    assert len(rig.agent.consignments) == 1
    rig.advance(300)
    assert len(rig.agent.consignments) == 2
    rig.advance(600)
    assert len(rig.agent.consignments) == 3
    rig.agent.answer = taken
    rig.advance(1200)
    assert len(rig.endings) >= 47
    rig.advance(4 * 3600)
    assert len(rig.endings) == 50


def test_mail_behind_a_dead_destination_gets_its_delay_notice_and_its_end():
    rig = Rig(answer=unreachable)
    for number in range(5):
        rig.send(bob(name=f"bob{number}"), account="alice@example.test")
    rig.start()
    rig.advance(14_400 + 1801)
    assert sum("Action: delayed" in text for _, text in rig.notices_sent) == 5
    rig.advance(432_000)
    assert sum("Action: failed" in text for _, text in rig.notices_sent) == 5
    assert len(rig.endings) == 5
    assert len(rig.agent.consignments) < 200


def test_other_destinations_do_not_wait_for_a_dead_one():
    rig = Rig(answer=lambda c: unreachable(c) if c.destination == mx("dead.example") else taken(c)).start()
    rig.send(bob("dead.example"))
    rig.send(bob("live.example"))
    assert rig.endings == [("bob@live.example", "delivered")]


def test_r_dur_6_trouble_with_the_store_loses_no_result_and_starts_nothing():
    rig = Rig()
    rig.send(bob("a.example"))
    rig.disk.failure = Unavailable()
    rig.start()
    assert rig.agent.addresses == ["bob@a.example"]
    rig.send(bob("b.example"))
    rig.advance(60)
    assert rig.agent.addresses == ["bob@a.example"]
    rig.disk.failure = None
    rig.advance(6)
    assert rig.agent.addresses == ["bob@a.example", "bob@b.example"]
    assert len(rig.endings) == 2


def test_no_room_for_a_notice_keeps_the_recipient_and_lets_other_mail_leave():
    rig = Rig(answer=lambda c: declined(c, "5.1.1") if c.destination == mx("no.example") else taken(c)).start()
    rig.send(bob("no.example"))
    assert len(rig.notices_sent) == 1
    rig.send(bob("no.example", "carol"), bob("yes.example"))
    rig.journal_disk.failure = InsufficientStorage()
    rig.advance(1)
    assert ("bob@yes.example", "delivered") in rig.endings
    rig.journal_disk.failure = None
    rig.advance(10)
    assert ("carol@no.example", "bounced") in rig.endings
    assert len(rig.notices_sent) == 2


def test_a_bounce_waits_for_room_and_is_not_tried_again_meanwhile():
    rig = Rig()
    rig.send(bob())
    rig.agent.answer = lambda c: declined(c, "5.1.1")
    rig.journal_disk.failure = InsufficientStorage()
    rig.start()
    rig.advance(600)
    assert len(rig.agent.consignments) == 1
    assert rig.endings == []
    rig.journal_disk.failure = None
    rig.advance(6)
    assert rig.endings == [("bob@example.org", "bounced")]


def test_a_store_that_cannot_be_read_is_asked_again():
    rig = Rig()
    rig.send()
    rig.store.failure = Unavailable()
    rig.start()
    rig.advance(20)
    rig.store.failure = None
    rig.advance(6)
    assert rig.endings == [("bob@example.org", "delivered")]


def test_an_agent_that_raises_is_like_a_temporary_refusal():
    rig = Rig()

    def broken(consignment):
        raise RuntimeError("a bug")

    rig.agent.answer = broken
    rig.start()
    rig.send()
    rig.agent.answer = taken
    rig.advance(301)
    assert rig.endings == [("bob@example.org", "delivered")]


def test_the_stop_waits_for_attempts_and_gives_the_rest_back():
    rig = Rig(evolve(STEADY, schedule=ScheduleSettings(first_concurrency=1)))
    for number in range(4):
        rig.send(bob(name=f"bob{number}"))
    running: list[Deferred] = []

    def slow(consignment):
        running.append(Deferred())
        return running[-1]

    rig.agent.answer = slow
    rig.start()
    assert len(rig.store.leased) == 2
    stopped: list[None] = []
    rig.runner.stopService().addCallback(stopped.append)
    assert len(rig.store.leased) == 1
    assert stopped == []
    running[0].callback(taken(rig.agent.consignments[0]))
    assert stopped == [None]
    assert rig.store.leased == set()
    assert len(rig.endings) == 1
    assert not rig.clock.calls


def test_the_stop_ends_within_its_bound():
    rig = Rig(answer=lambda consignment: Deferred()).start()
    rig.send()
    stopped: list[None] = []
    rig.runner.stopService().addCallback(stopped.append)
    rig.advance(29)
    assert stopped == []
    rig.advance(4)
    assert stopped == [None]
    assert rig.store.leased == set()
    assert not rig.clock.calls


def test_recipients_of_one_destination_travel_together_up_to_a_bound():
    rig = Rig(evolve(STEADY, schedule=ScheduleSettings(recipients_per_transaction=3))).start()
    rig.send(*(bob(name=f"bob{number}") for number in range(7)))
    assert [len(consignment.recipients) for consignment in rig.agent.consignments] == [3, 3, 1]


def test_priority_goes_first():
    rig = Rig(evolve(STEADY, schedule=ScheduleSettings(first_concurrency=1, max_concurrency=1)))
    for priority in (0, 5, -3, 9):
        rig.send(bob(name=f"p{priority}"), priority=priority)
    rig.start()
    assert [address.split("@")[0] for address in rig.agent.addresses] == ["p9", "p5", "p0", "p-3"]


@pytest.mark.parametrize(
    ("answer", "status"), [(taken, "sent"), (declined, "deferred"), (lambda c: declined(c, "5.0.0"), "bounced")]
)
def test_every_end_of_an_attempt_is_a_line_of_the_log(answer, status):
    events: list[Any] = []
    observer = implementer(ILogObserver)(lambda event: events.append(event))
    globalLogPublisher.addObserver(observer)
    try:
        rig = Rig(answer=answer).start()
        rig.clock.advance(0)
        rig.send(OnwardRecipient(bob(), mx()), reverse_path=ALICE)
    finally:
        globalLogPublisher.removeObserver(observer)
    (line,) = [event for event in events if "status" in event]
    assert line["status"] == status
    assert line["transaction_id"] == "N0001"
    assert line["recipient"] == "bob@example.org"
    assert line["destination"] == "mx:example.org"
    assert line["host"] == "mx.example.org"
