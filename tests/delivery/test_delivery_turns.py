"""Mail for thousands, with turns for others in between."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from mailsrv.address import Address
from mailsrv.delivery.quota import TARGETS_IN_ONE_GO, Reservations
from mailsrv.delivery.recipients import Found, RecipientPolicy, Service
from mailsrv.directory.domains import LocalDomains
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.directory.resolve import AddressResolver, LocalRecipient
from mailsrv.directory.settings import DomainSettings
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.routing.rules import TransportRules


class Store:
    def __init__(self) -> None:
        self.held = 0

    def reserve_quota(self, account: Address, octets: int, limit: int | None) -> Deferred[Any]:
        self.held += 1

        def give_back() -> None:
            self.held -= 1

        return succeed(give_back)


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
