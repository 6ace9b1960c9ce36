"""The steps from an address to accounts, for who wants to know why (``mailsrvctl route``)."""

from __future__ import annotations

import enum
from collections.abc import Callable

from attrs import frozen

from mailsrv.address import Address


class StepKind(enum.Enum):
    """What happened on the way from an address to accounts."""

    DOMAIN = "domain"
    ALIAS = "alias"
    AGAIN = "again"
    """Met before: not followed a second time."""
    USER = "user"
    SUBADDRESS = "subaddress"
    CARRIED = "carried"
    FORWARD = "forward"
    OWNER = "owner"
    POSTMASTER = "postmaster"
    CATCH_ALL = "catch-all"
    NOBODY = "nobody"


@frozen
class Step:
    """One step, for who wants to know why."""

    kind: StepKind
    address: Address
    """What was looked at."""
    result: tuple[str, ...] = ()
    """What it led to."""


Listener = Callable[[Step], None]
