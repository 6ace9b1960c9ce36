"""Mail for thousands, with turns for others in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.task import Clock

from mailsrv.address import Address
from mailsrv.delivery.quota import TARGETS_IN_ONE_GO, Reservations
from mailsrv.delivery.recipients import Found, RecipientPolicy, Service
from mailsrv.directory.domains import LocalDomains
from mailsrv.directory.list_settings import ListSettings
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.directory.resolution import LocalRecipient
from mailsrv.directory.resolve import AddressResolver
from mailsrv.directory.settings import DomainSettings
from mailsrv.interfaces.delivery import Accepted
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.rights import Posters
from mailsrv.routing.rules import TransportRules
from tests.delivery.conftest import ALICE, Account


class Store:
    def __init__(self) -> None:
        self.held = 0

    def reserve_quota(self, account: Address, octets: int, limit: int | None) -> Deferred[Any]:
        self.held += 1

        def give_back() -> None:
            self.held -= 1

        return succeed(give_back)


class Steps:
    """How many addresses each step of the reactor handles: it hashes them, a fifth of a microsecond each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._in_step = self.most = 0
        hash_address = Address.__hash__

        def counted(address: Address) -> int:
            self._in_step += 1
            return hash_address(address)

        monkeypatch.setattr(Address, "__hash__", counted)

    def watch(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        self._clock, call_later = clock, clock.callLater

        def call_in_step(delay: float, function: Callable[..., object], *arguments: Any) -> Any:
            return call_later(delay, self._measure, function, *arguments)

        monkeypatch.setattr(clock, "callLater", call_in_step)

    def run_in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Which is not the reactor's."""
        before = self._in_step
        done = execute(function, *arguments)
        self._in_step = before
        return done

    def _measure(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self._in_step = 0
        answer = function(*arguments)
        self.most = max(self.most, self._in_step)
        return answer

    def run(self, function: Callable[..., Deferred[Any]], *arguments: Any) -> Any:
        """The first step and all that come of it; what came of it in the end."""
        ended: list[Any] = []
        self._measure(function, *arguments).addBoth(ended.append)
        self._clock.advance(0)
        return ended[0]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_no_step_of_a_message_to_thousands_goes_through_all_of_them(house_factory, monkeypatch, elsewhere):
    members = 10_000
    everybody = Address("everybody", "example.test")
    routes = [{"to": "*", "via": "mx"}] if elsewhere else None
    rule = ListSettings(str(everybody), Posters.MEMBERS)
    steps = Steps(monkeypatch)
    house = house_factory("submission", apply=False, routes=routes, lists=(rule,), run_in_thread=steps.run_in_thread)
    steps.watch(house.clock, monkeypatch)
    targets = [Address(f"u{number}", "example.org" if elsewhere else "example.test") for number in range(members)]
    for target in targets:
        house.directory.add_user(target, "x")
    house.directory.add_alias(everybody, [ALICE, *targets])
    transaction = steps.run(house.begin, ALICE, Account(ALICE))
    assert steps.run(transaction.add_recipient, everybody) is None
    assert steps.run(transaction.begin_content) is None
    transaction.write(b"From: alice@example.test\r\n\r\nhello\r\n")
    (outcome,) = steps.run(transaction.finish)
    assert isinstance(outcome, Accepted)
    (record,) = house.journal.records
    (message, *_) = record.messages
    assert len(message.deliveries) == (2 if elsewhere else members + 1)
    assert steps.most < members / 5


def test_a_message_to_thousands_leaves_the_reactor_to_others():
    store: Any = Store()
    clock = Clock()
    reservations = Reservations(store, clock)
    targets = [LocalRecipient(DirectoryUser(Address(f"u{number}", "example.test"))) for number in range(10_000)]
    ended: list[Any] = []
    Deferred.fromCoroutine(reservations.reserve(targets, 100)).addBoth(ended.append)
    assert store.held < TARGETS_IN_ONE_GO
    assert not ended
    clock.advance(0)
    assert (ended, store.held) == ([None], 10_000)
    reservations.release()
    reservations.release()
    assert 0 < store.held < 10_000
    clock.advance(0)
    assert store.held == 0


def test_the_way_to_thousands_elsewhere_leaves_the_reactor_to_others():
    directory = MemoryDirectory()
    members = [Address(f"u{number}", "example.org") for number in range(1000)]
    everybody = Address("everybody", "example.test")
    directory.add_alias(everybody, members)
    turns: list[Deferred[None]] = []

    def take_turns() -> Deferred[None]:
        turns.append(Deferred())
        return turns[-1]

    resolver = AddressResolver(LocalDomains([DomainSettings("example.test")]), directory)
    policy = RecipientPolicy(Service.SUBMISSION, resolver, TransportRules([], ["example.test"]), take_turns=take_turns)
    found: list[Found] = []
    Deferred.fromCoroutine(policy.find(everybody, may_relay=True)).addCallback(found.append)
    for turn in turns:
        assert not found
        turn.callback(None)
    assert len(turns) == len(members) // TARGETS_IN_ONE_GO
    assert [target.address for target in found[0].onward] == members
