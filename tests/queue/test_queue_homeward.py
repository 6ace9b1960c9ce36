"""Queued mail whose domain has become one of ours before it was carried away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, succeed

from mailsrv.address import Address
from mailsrv.interfaces.envelope import EnvelopeParameters
from mailsrv.interfaces.queue import (
    Consignment,
    Declined,
    Delivered,
    Destination,
    OnwardRecipient,
    QueuedRecipient,
    QueueEntry,
    Transport,
)
from mailsrv.queue.homeward import HomewardAgent
from mailsrv.queue.local_agent import LocalAgent
from mailsrv.queue.runner import QueueRunner
from mailsrv.routing.rules import TransportRules
from mailsrv.routing.settings import RouteSettings
from mailsrv.status import BAD_DOMAIN, ROUTING_LOOP, EnhancedStatus
from tests.queue.queue_rig import mx
from tests.queue.test_queue_local_agent import BOB, LocalRig

ACCEPTED = 1_000.0
Outcome = Callable[[int], Any]


def loop(recipient_id: int) -> Declined:
    return Declined(recipient_id, ROUTING_LOOP, "Mail for new.test loops back to this server")


class Agent:
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.asked: list[list[str]] = []
        self.is_stopped = False

    def attempt(self, consignment: Consignment) -> Deferred[Any]:
        self.asked.append([str(each.address) for each in consignment.recipients])
        return succeed([self.outcome(each.id) for each in consignment.recipients])

    def stop(self) -> Deferred[None]:
        self.is_stopped = True
        return succeed(None)


class House:
    """``heard_at``: when the directory told its domains last; None where there is no such directory."""

    def __init__(self, *own: str, routes: tuple[RouteSettings, ...] = (), heard_at: float | None = None) -> None:
        self.rules = TransportRules(routes, own)
        self.onward, self.local = Agent(loop), Agent(lambda number: Delivered(number, "here"))
        self.agent = HomewardAgent(
            self.onward,  # type: ignore[arg-type]
            self.local,  # type: ignore[arg-type]
            is_ours=self.rules.is_local,
            stays_here=lambda sender, recipient: not self.rules.find(sender, recipient).is_onward,
            may_be_ours=lambda since: heard_at is not None and heard_at <= since,
        )

    def send(self, *names: str, reverse_path: Address | None = None) -> list[Any]:
        entry = QueueEntry(1, "T1", reverse_path, EnvelopeParameters(), "", ACCEPTED, 10)
        recipients = tuple(
            QueuedRecipient(number, Address(name, "new.test")) for number, name in enumerate(names, start=1)
        )
        ended: list[Any] = []
        self.agent.attempt(Consignment(entry, Destination.parse("mx:new.test"), recipients)).addCallback(ended.extend)
        return ended


def test_mail_for_others_is_carried_on_and_a_loop_is_one_where_no_directory_has_domains():
    house = House("own.test")
    assert house.send("a", "b") == [loop(1), loop(2)]
    assert house.onward.asked == [["a@new.test", "b@new.test"]]
    assert house.local.asked == []


def test_mail_for_a_domain_that_is_ours_by_now_is_delivered_here():
    house = House("new.test")
    assert house.send("a", "b") == [Delivered(1, "here"), Delivered(2, "here")]
    assert house.onward.asked == []


def test_what_a_rule_leads_away_goes_on_and_outcomes_keep_their_order():
    house = House("new.test", routes=(RouteSettings(to="b@new.test", via="mx"),))
    assert house.send("a", "b", "c") == [Delivered(1, "here"), loop(2), Delivered(3, "here")]
    assert house.local.asked == [["a@new.test", "c@new.test"]]
    assert house.onward.asked == [["b@new.test"]]


def test_rules_about_senders_count_as_they_do_at_rcpt():
    rule = RouteSettings(to="new.test", sender="alice@own.test", via="mx")
    house = House("new.test", routes=(rule,))
    assert house.send("a", reverse_path=Address("alice", "own.test")) == [loop(1)]
    assert house.send("a", reverse_path=None) == [Delivered(1, "here")]


@pytest.mark.parametrize(("heard_at", "status"), [(ACCEPTED, EnhancedStatus(4, 4, 6)), (ACCEPTED + 1, ROUTING_LOOP)])
def test_a_loop_passes_until_the_directory_has_told_its_domains_after_the_message_came(heard_at, status):
    house = House(heard_at=heard_at)
    assert house.send("a") == [evolve(loop(1), status=status)]


def test_only_a_loop_of_our_own_finding_passes():
    house = House(heard_at=ACCEPTED)
    for outcome in (
        Declined(1, ROUTING_LOOP, "too many hops", "mx.elsewhere.test"),
        Declined(1, BAD_DOMAIN, "no such domain"),
        Delivered(1),
    ):
        house.onward.outcome = lambda _number, outcome=outcome: outcome  # type: ignore[misc]
        assert house.send("a") == [outcome]


def test_a_stop_waits_for_what_is_carried():
    house = House()
    house.agent.stop()
    assert house.onward.is_stopped


class HomewardRig(LocalRig):
    """Mail for example.test is carried to its MX hosts until ``own`` names the domain."""

    def __init__(self) -> None:
        self.own: set[str] = set()
        super().__init__()

    def make_runner(self) -> QueueRunner:
        local: Any = LocalAgent(
            self.store, self.journal, self.spool, self.notices, self._resolve, seconds=self.clock.seconds
        )
        onward: Any = self.agent
        home: Any = HomewardAgent(
            onward,
            local,
            is_ours=self.own.__contains__,
            stays_here=lambda sender, recipient: recipient.domain in self.own,
            may_be_ours=lambda since: not self.own,
        )
        return QueueRunner(
            self.settings,
            self.store,
            self.journal,
            {Transport.MX: home, Transport.LOCAL: local},
            self.notices,
            clock=self.clock,
            random=lambda: 0.5,
        )


def test_r_q_2_a_message_that_looped_waits_and_is_in_the_mailbox_once_when_the_domain_is_ours():
    rig = HomewardRig()
    rig.agent.answer = lambda consignment: [loop(each.id) for each in consignment.recipients]
    rig.start()
    nobody = Address("nobody", "example.test")
    rig.send(OnwardRecipient(BOB, mx("example.test")), OnwardRecipient(nobody, mx("example.test")))
    assert rig.endings == []
    rig.own.add("example.test")
    rig.advance(3600)
    assert rig.mailboxes.count("bob@example.test") == 1
    assert ("bob@example.test", "delivered") in rig.endings
    assert ("nobody@example.test", "bounced") in rig.endings
    assert rig.store.leased == set()
