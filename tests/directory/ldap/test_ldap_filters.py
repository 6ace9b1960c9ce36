"""Filters and DNs: values stay values (R-INJ-3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ldap3.operation.search import compile_filter, parse_filter
from ldap3.utils.dn import parse_dn

from mailsrv.directory.ldap.filters import (
    all_of,
    any_of,
    check_template,
    configured,
    dn_from_template,
    equal,
    in_chain,
    is_attribute,
    negated,
    present,
)

values = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(value=values)
def test_r_inj_3_a_value_comes_out_of_a_filter_as_it_went_in(value):
    parsed = parse_filter(equal("uid", value).text, None, True, True, None, False).elements[0]
    assert parsed.assertion["attr"] == "uid"
    assert bytes(compile_filter(parsed)["equalityMatch"]["assertionValue"]) == value.encode()


@given(value=values)
def test_r_inj_3_a_value_is_one_value_of_a_dn(value):
    parts = parse_dn(dn_from_template("uid={local},dc=example", local=value))
    assert [name for name, _, _ in parts] == ["uid", "dc"]


@given(value=values)
def test_only_harmless_characters_are_left(value):
    inside = equal("uid", value).text.removeprefix("(uid=").removesuffix(")")
    assert not set(inside) & set("()*,=&|!<>~\0\"'#+; ")


def test_filters_are_joined():
    one, two = equal("a", "x"), present("b")
    assert any_of([one, two]).text == "(|(a=x)(b=*))"
    assert all_of([one, one]).text == "(a=x)"
    assert negated(two).text == "(!(b=*))"
    assert in_chain("memberOf", "cn=x").text == r"(memberOf:1.2.840.113556.1.4.1941:=cn\3dx)"
    for wrong in (lambda: any_of([]), lambda: equal("uid", ""), lambda: equal("u)(x", "y"), lambda: in_chain("a", "")):
        with pytest.raises(ValueError, match=r"."):
            wrong()


def test_what_administrators_write_is_checked():
    assert configured(" (&(a=b)(!(c=d))) ").text == "(&(a=b)(!(c=d)))"
    for wrong in ("", "a=b", "(a=b", "(a=b))", "((", "(&)x"):
        with pytest.raises(ValueError, match="no filter"):
            configured(wrong)
    check_template("uid={local},dc=x")
    for wrong in ("uid=alice,dc=x", "uid={user},dc=x", "{local}"):
        with pytest.raises(ValueError, match="expected a DN"):
            check_template(wrong)
    with pytest.raises(ValueError, match="no value"):
        dn_from_template("uid={local}", local="")
    assert is_attribute("userCertificate;binary")
    assert is_attribute("2.5.4.3")
    assert not is_attribute("uid)(x")
