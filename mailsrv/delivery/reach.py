"""Whom a forward-path reaches, as sets.

Hashing thousands of addresses takes milliseconds; sets that were made once are counted, compared and joined at a
hundredth of that. So the sets of a long list are made in turns with everybody else, before they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from mailsrv.address import Address
from mailsrv.coroutines import next_turn
from mailsrv.delivery.quota import TARGETS_IN_ONE_GO
from mailsrv.delivery.recipients import Found, OnwardTarget
from mailsrv.directory.resolution import LocalRecipient


@frozen
class Reach:
    """What :class:`~mailsrv.delivery.recipients.Found` leads to."""

    addresses: set[Address]
    """Accounts here and addresses elsewhere."""
    forwarders: set[Address]
    """Addresses of ours that forward to those elsewhere."""


async def reach_of(found: Found, clock: IReactorTime) -> Reach:
    """Others have their turn between the parts of a long list."""
    reach = Reach(set(), set())
    if len(found.accounts) + len(found.onward) > TARGETS_IN_ONE_GO:
        # The step in which they were found has done enough.
        await next_turn(clock)
    for number, target in enumerate(_targets(found), 1):
        if number % TARGETS_IN_ONE_GO == 0:
            await next_turn(clock)
        if isinstance(target, LocalRecipient):
            reach.addresses.add(target.user.address)
            continue
        reach.addresses.add(target.address)
        if target.forwarder is not None:
            reach.forwarders.add(target.forwarder)
    return reach


def _targets(found: Found) -> Iterator[LocalRecipient | OnwardTarget]:
    yield from found.accounts
    yield from found.onward
