"""Domains of the settings beside those that directories list: who wins, who says so, what is not known."""

from __future__ import annotations

import pytest

from mailsrv.directory.domains import STATIC_ORIGIN, DomainTable, Knowledge, LocalDomains
from mailsrv.directory.settings import DomainSettings
from mailsrv.interfaces.domain_source import SuppliedDomain


def own(name: str) -> SuppliedDomain:
    return SuppliedDomain(name, name, f"at {name}")


def other(name: str, main: str) -> SuppliedDomain:
    return SuppliedDomain(name, main, f"at {name}")


def test_the_settings_win_over_a_directory_and_the_first_directory_over_the_second():
    ours = DomainSettings("a.test", aliases=("x.test",), catch_all="all@a.test")
    table = DomainTable([ours], [(own("a.test"), other("b.test", "c.test"), own("c.test")), (own("b.test"),)])
    assert table.found["a.test"] == ("a.test", ours)
    assert table.origin("a.test") == STATIC_ORIGIN
    assert table.found["b.test"][0] == "c.test"
    assert table.origin("b.test") == "at b.test"
    assert table.origin("nobody.test") == ""


def test_a_directory_may_give_a_domain_of_the_settings_another_name():
    ours = DomainSettings("a.test", aliases=("x.test",))
    table = DomainTable([ours], [(other("y.test", "a.test"), other("z.test", "x.test"))])
    assert table.found["y.test"] == table.found["z.test"] == ("a.test", ours)
    assert table.complaints == []


def test_names_of_names_are_followed_and_those_that_lead_nowhere_are_told():
    table = DomainTable((), [(own("a.test"), other("b.test", "c.test"), other("c.test", "a.test"))])
    assert table.found["b.test"][0] == "a.test"
    table = DomainTable((), [(other("b.test", "c.test"), other("c.test", "b.test"), other("d.test", "gone.test"))])
    assert not table.found
    assert len(table.complaints) == 3


def test_two_domains_of_the_settings_with_one_name_are_a_mistake():
    with pytest.raises(ValueError, match="named twice"):
        DomainTable([DomainSettings("a.test"), DomainSettings("b.test", aliases=("A.test",))])


def test_nothing_is_known_until_a_directory_has_told():
    domains = LocalDomains([DomainSettings("a.test")], supplied=True)
    assert domains.knowledge is Knowledge.NONE
    assert "a.test" in domains
    domains.use(DomainTable([DomainSettings("a.test")], [(own("b.test"),)]), Knowledge.ALL)
    assert "b.test" in domains
    assert domains.names == ("a.test", "b.test")
    assert domains.all_names == {"a.test": "a.test", "b.test": "b.test"}
    assert LocalDomains([DomainSettings("a.test")]).knowledge is Knowledge.ALL


def test_names_without_a_domain_are_of_the_first_of_the_settings_or_of_the_default():
    assert LocalDomains([DomainSettings("B.test")], default="a.test").primary == "b.test"
    domains = LocalDomains((), default="B.test", supplied=True)
    assert domains.primary == "b.test"
    domains.use(DomainTable((), [(own("a.test"), own("b.test"))]), Knowledge.ALL)
    assert domains.primary == "b.test"
    assert LocalDomains(()).primary == ""
