"""Room is reserved for thousands of accounts with turns for others in between."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from mailsrv.address import Address
from mailsrv.delivery.quota import TARGETS_IN_ONE_GO, Reservations
from mailsrv.directory.resolve import LocalRecipient
from mailsrv.interfaces.directory import DirectoryUser


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
    assert store.held == 0
