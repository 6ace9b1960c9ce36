"""What every queue store does, whatever it is made of. Run over each by mixing it into a test case.

A subclass gives ``make_queue``: a :class:`QueueUnderTest` over an empty folder. Whatever threads a store has are
stepped by ``result`` and ``apply``.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailsrv.address import Address
from mailsrv.interfaces.envelope import BodyType, DeliverBy, EnvelopeParameters, Notify, ReturnContent
from mailsrv.interfaces.journal import Delivery
from mailsrv.interfaces.queue import (
    Consignment,
    Delivered,
    Destination,
    DestinationState,
    Ending,
    Finished,
    IQueueStore,
    OnwardDelivery,
    OnwardRecipient,
    Postponed,
    QueueSettlement,
    Transport,
)

ALICE = Address("alice", "example.test")
A, B = Destination(Transport.MX, "a.example"), Destination(Transport.MX, "b.example")
BODY = b"From: alice@example.test\r\nSubject: one\r\n\r\nHello\r\n"
CONTENT = b"Return-Path: <alice@example.test>\r\n" + BODY


class QueueUnderTest(Protocol):
    """A store with its surroundings."""

    now: float
    """Seconds since the epoch; the test moves it."""

    @property
    def store(self) -> IQueueStore: ...

    def apply(self, *deliveries: Delivery, content: bytes = CONTENT) -> None:
        """A journal record with these deliveries is applied."""

    def result(self, deferred: Deferred[Any]) -> Any:
        """What it fires with, once its threads have done their work."""

    def restart(self) -> None:
        """The process ends without a word, and a new one starts over what is on disk."""

    def close(self) -> None:
        """The end of the test."""


def onward(*recipients: OnwardRecipient | str, sender: Address | None = ALICE, **more: Any) -> OnwardDelivery:
    """Mail for ``name`` at destination A."""
    return OnwardDelivery(
        sender,
        tuple(
            OnwardRecipient(Address(each, A.target), A) if isinstance(each, str) else each
            for each in recipients or ("bob",)
        ),
        **more,
    )


class QueueStoreContract(SynchronousTestCase):
    """The tests."""

    queue: Any

    def make_queue(self, directory: Path) -> QueueUnderTest:
        raise NotImplementedError

    def setUp(self):
        if type(self) is QueueStoreContract:
            raise NotImplementedError
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.queue = self.make_queue(Path(self.directory.name))
        self.addCleanup(self.queue.close)

    def take(self, destination: Destination = A, messages: int = 100, recipients: int = 50) -> Sequence[Consignment]:
        taken: Sequence[Consignment] = self.queue.result(
            self.queue.store.take(destination, self.queue.now, messages, recipients)
        )
        return taken

    def settle(self, consignment: Consignment, *settlements: Any) -> None:
        self.queue.result(self.queue.store.settle(consignment.entry, settlements))

    def names(self, *arguments: Any, **more: Any) -> list[str]:
        return [each.address.local_part for one in self.take(*arguments, **more) for each in one.recipients]

    def state(self, destination: Destination = A) -> DestinationState:
        state: DestinationState = self.queue.result(self.queue.store.state(destination))
        return state

    def test_it_provides_the_interface(self):
        verifyObject(IQueueStore, self.queue.store)

    def test_an_empty_queue(self):
        assert list(self.queue.result(self.queue.store.destinations())) == []
        assert self.state() == DestinationState(A, 0, math.inf)
        assert list(self.take()) == []
        assert self.queue.store.check_acceptance(1000, 1) is None

    def test_what_went_in_comes_out_as_it_was(self):
        parameters = EnvelopeParameters(
            BodyType.EIGHT_BIT,
            is_smtputf8=True,
            return_content=ReturnContent.HEADERS,
            envelope_id="QQ 1",
            requires_tls=True,
            priority=3,
            deliver_by=DeliverBy(int(self.queue.now) + 1000, must_return=True, is_traced=True),
        )
        recipient = OnwardRecipient(
            Address("böb", "a.example"), A, Notify.SUCCESS | Notify.DELAY, "utf-8;böb@x.example"
        )
        self.queue.apply(onward(recipient, parameters=parameters, account="alice@example.test"))
        (consignment,) = self.take()
        entry, (queued,) = consignment.entry, consignment.recipients
        assert consignment.destination == A
        assert (entry.reverse_path, entry.parameters, entry.account) == (ALICE, parameters, "alice@example.test")
        assert entry.size == len(BODY)
        assert abs(entry.accepted_at - self.queue.now) < 2
        assert (queued.address, queued.notify) == (recipient.address, recipient.notify)
        assert queued.original_recipient == "utf-8;böb@x.example"
        assert (queued.attempts, queued.last_reply, queued.is_delay_told) == (0, "", False)

    def test_the_content_goes_out_without_our_return_path(self):
        self.queue.apply(onward())
        (consignment,) = self.take()
        content = self.queue.result(self.queue.store.open_content(consignment.entry))
        assert content.size == len(BODY)
        assert self.queue.result(content.read(0, 1000)) == BODY
        assert self.queue.result(content.read(6, 5)) == BODY[6:11]
        content.close()

    def test_the_null_reverse_path(self):
        self.queue.apply(onward(sender=None))
        (consignment,) = self.take()
        assert consignment.entry.reverse_path is None

    def test_what_is_leased_is_not_given_again(self):
        self.queue.apply(onward("bob", "carol"))
        assert sorted(self.names()) == ["bob", "carol"]
        assert self.names() == []
        assert self.state().next_due == math.inf

    def test_what_is_given_back_is_due_as_before(self):
        self.queue.apply(onward())
        (consignment,) = self.take()
        self.queue.store.give_back(consignment)
        assert self.state().next_due <= self.queue.now
        (again,) = self.take()
        assert again.recipients[0].attempts == 0

    def test_what_is_delivered_is_gone(self):
        self.queue.apply(onward("bob", "carol"))
        (consignment,) = self.take()
        self.settle(consignment, *(Delivered(each.id, "250 Ok") for each in consignment.recipients))
        self.queue.restart()
        assert self.names() == []
        assert not any(state.waiting for state in self.queue.result(self.queue.store.destinations()))

    def test_what_is_finished_is_gone(self):
        self.queue.apply(onward())
        (consignment,) = self.take()
        self.settle(consignment, Finished(consignment.recipients[0].id, Ending.BOUNCED, "550"))
        self.queue.restart()
        assert self.names() == []

    def test_what_is_postponed_waits_and_remembers_why(self):
        self.queue.apply(onward())
        (consignment,) = self.take()
        until = self.queue.now + 300
        self.settle(consignment, Postponed(consignment.recipients[0].id, until, "450 4.2.1 No", is_delay_told=True))
        assert self.names() == []
        assert self.state().next_due == until
        self.queue.restart()
        self.queue.now = until
        (again,) = self.take()
        (queued,) = again.recipients
        assert (queued.attempts, queued.last_reply, queued.is_delay_told) == (1, "450 4.2.1 No", True)

    def test_a_postponement_that_was_no_attempt_is_not_counted(self):
        self.queue.apply(onward())
        (consignment,) = self.take()
        self.settle(consignment, Postponed(consignment.recipients[0].id, self.queue.now, is_attempt=False))
        (again,) = self.take()
        assert again.recipients[0].attempts == 0

    def test_a_postponement_may_change_the_destination(self):
        self.queue.apply(onward())
        (consignment,) = self.take()
        self.settle(consignment, Postponed(consignment.recipients[0].id, self.queue.now, destination=B))
        assert self.names(A) == []
        assert self.names(B) == ["bob"]

    def test_recipients_of_a_message_end_one_by_one(self):
        self.queue.apply(onward("bob", "carol", "dora"))
        (consignment,) = self.take()
        first, second, third = consignment.recipients
        self.settle(consignment, Delivered(first.id), Postponed(second.id, self.queue.now))
        assert self.names() == [second.address.local_part]
        self.settle(consignment, Finished(third.id, Ending.DROPPED))
        assert self.state().waiting == 0

    def test_a_journaled_settlement_ends_recipients_once(self):
        self.queue.apply(onward("bob", "carol"))
        (consignment,) = self.take()
        first, second = consignment.recipients
        for _ in range(2):
            self.queue.apply(QueueSettlement(consignment.entry.id, (first.id,), Ending.BOUNCED, "550"), content=b"")
        self.settle(consignment, Postponed(second.id, self.queue.now))
        assert self.names() == [second.address.local_part]

    def test_a_settlement_for_who_has_ended_does_nothing(self):
        self.queue.apply(onward())
        (consignment,) = self.take()
        recipient = consignment.recipients[0]
        self.queue.apply(QueueSettlement(consignment.entry.id, (recipient.id,), Ending.BOUNCED), content=b"")
        self.settle(consignment, Postponed(recipient.id, self.queue.now))
        assert self.names() == []

    def test_bounds_of_a_take(self):
        for number in range(3):
            self.queue.apply(onward(*(f"r{number}{index}" for index in range(5))))
        first = self.take(messages=2, recipients=3)
        assert [len(each.recipients) for each in first] == [3, 3]
        rest = self.take()
        assert sorted(len(each.recipients) for each in rest) == [2, 2, 5]

    def test_only_what_is_for_the_destination_is_taken(self):
        self.queue.apply(onward("bob", OnwardRecipient(Address("carol", "b.example"), B)))
        assert self.names(B) == ["carol"]
        assert self.names(A) == ["bob"]

    def test_the_highest_priority_goes_first(self):
        for priority in (0, 9, -9, 4):
            self.queue.apply(onward(f"p{priority}", parameters=EnvelopeParameters(priority=priority)))
        assert self.names() == ["p9", "p4", "p0", "p-9"]

    def test_senders_take_turns(self):
        for number in range(20):
            self.queue.apply(onward(f"many{number}", sender=Address("many", "example.test")))
        self.queue.apply(onward("one", sender=Address("one", "example.test")))
        assert "one" in self.names(messages=2)

    def test_oldest_first(self):
        for name in ("first", "second", "third"):
            self.queue.apply(onward(name))
            self.queue.now += 1
        assert self.names() == ["first", "second", "third"]

    def test_held_mail_is_not_due_before_its_time(self):
        until = int(self.queue.now) + 3600
        self.queue.apply(onward(parameters=EnvelopeParameters(hold_until=until)))
        assert self.names() == []
        assert self.state().next_due == until
        self.queue.now = float(until)
        assert self.names() == ["bob"]

    def test_all_that_waits_is_told_at_the_start(self):
        self.queue.apply(onward("bob", "carol", OnwardRecipient(Address("dora", "b.example"), B)))
        self.queue.restart()
        states = self.queue.result(self.queue.store.destinations())
        assert {state.destination: state.waiting for state in states} == {A: 2, B: 1}
        assert all(state.next_due <= self.queue.now for state in states)

    def test_leases_end_with_the_process_that_had_them(self):
        self.queue.apply(onward())
        assert self.names() == ["bob"]
        self.queue.restart()
        assert self.names() == ["bob"]

    def test_a_restart_forgets_nothing(self):
        self.queue.apply(onward("bob", "carol"))
        (consignment,) = self.take()
        self.settle(consignment, Delivered(consignment.recipients[0].id))
        self.queue.restart()
        (again,) = self.take()
        assert again.recipients == consignment.recipients[1:]
        assert again.entry == consignment.entry
