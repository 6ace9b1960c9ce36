"""Which transport rules name a domain of ours, with domains that come and go."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mailsrv.address import Address
from mailsrv.routing.local_names import LocalNames
from mailsrv.routing.pattern import parse_pattern
from mailsrv.routing.rules import TransportRules, find_contradictions
from mailsrv.routing.settings import RouteSettings
from mailsrv.routing.via import Action

LABELS = st.lists(st.sampled_from(["a", "b", "test", "xa"]), min_size=1, max_size=4).map(".".join)


@given(st.lists(LABELS, max_size=5), LABELS)
def test_a_rule_for_what_is_below_matches_as_the_endings_of_names_do(names, parent):
    assert LocalNames(names).may_match(parse_pattern(f"*.{parent}")) == any(
        name.endswith(f".{parent}") for name in names
    )
    assert LocalNames(names).may_match(parse_pattern(parent)) == (parent in names)
    assert LocalNames(names).may_match(parse_pattern(f"alice@{parent}")) == (parent in names)
    assert not LocalNames(names).may_match(parse_pattern("*"))


def test_a_domain_that_becomes_ours_is_local_and_rules_for_it_are_heeded():
    rules: Any = TransportRules(
        [RouteSettings(to="b.test", via="lmtp:unix:/x"), RouteSettings(to="*", via="smtp:hub.test:25")], ["a.test"]
    )
    stranger = Address("x", "c.test")
    assert not rules.has_local_rules
    assert rules.find(None, stranger).action is Action.SMTP
    rules.use_local_names(LocalNames(["a.test", "b.test", "c.test"]))
    assert rules.has_local_rules
    assert rules.find(None, stranger).action is Action.LOCAL
    assert rules.find(None, Address("x", "b.test")).action is Action.LMTP
    rules.use_local_names(LocalNames(["a.test"]))
    assert not rules.has_local_rules
    assert rules.find(None, stranger).action is Action.SMTP


def test_a_rule_for_a_domain_of_the_directory_is_no_contradiction():
    rule = RouteSettings(to="alice@b.test", via="local")
    assert find_contradictions([rule], ["a.test"])
    assert not find_contradictions([rule], ["a.test"], may_be_more=True)
