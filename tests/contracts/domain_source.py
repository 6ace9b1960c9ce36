"""What every source of domains does. A subclass gives ``make_source`` and fills the directory behind it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from zope.interface.verify import verifyObject

from mailsrv.address import parse_domain
from mailsrv.errors import Unavailable
from mailsrv.interfaces.domain_source import IDomainSource

# A test case only once it is mixed into one: the contract by itself is not run.
if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as Base
else:
    Base = object


class DomainSourceContract(Base):
    """Two domains, ``one.test`` and ``two.test``, and ``other.test``, another name of the first."""

    def make_source(self) -> Any:
        raise NotImplementedError

    def break_source(self) -> None:
        raise NotImplementedError

    def empty_source(self) -> None:
        raise NotImplementedError

    def setUp(self) -> None:
        self.source = self.make_source()

    def found(self) -> Any:
        return self.successResultOf(self.source.find_domains())

    def test_provides_the_interface(self) -> None:
        verifyObject(IDomainSource, self.source)

    def test_all_are_told_in_order_and_canonical(self) -> None:
        told = [(each.name, each.main) for each in self.found()]
        assert told == [("one.test", "one.test"), ("other.test", "one.test"), ("two.test", "two.test")]
        for each in self.found():
            assert parse_domain(each.name) == each.name
            assert each.origin

    def test_the_same_is_told_again_alike(self) -> None:
        assert tuple(self.found()) == tuple(self.found())

    def test_who_is_down_is_unavailable(self) -> None:
        self.break_source()
        self.failureResultOf(self.source.find_domains(), Unavailable)

    def test_none_at_all_is_unavailable_too(self) -> None:
        self.empty_source()
        self.failureResultOf(self.source.find_domains(), Unavailable)

    def test_bounds_and_keys_are_told(self) -> None:
        assert self.source.seconds > 0
        assert self.source.limit > 0
        assert re.search(r"\A[0-9a-f]{8,64}\Z", self.source.key)
