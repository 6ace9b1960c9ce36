"""From what clients send as user name to an address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.address import Address
from mailsrv.auth.names import parse_user_name


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("alice", "alice@example.test"),
        ("ALICE", "alice@example.test"),
        ("alice@Example.ORG", "alice@example.org"),
        ("Jos\u00e9", "jos\u00e9@example.test"),
        ("Jose\u0301", "jos\u00e9@example.test"),
        ("ａｌｉｃｅ", "alice@example.test"),
        ("alice@BÜCHER.test", "alice@xn--bcher-kva.test"),
        ("alice%example.org", "alice%example.org@example.test"),
        ("*()", '"*()"@example.test'),
    ],
)
def test_rfc_8265_names_that_mean_the_same(name: str, address: str):
    assert str(parse_user_name(name, "example.test")) == address


@pytest.mark.parametrize(
    "name",
    [
        "",
        "@",
        "@example.test",
        "alice@",
        "al ice",
        " alice",
        "alice ",
        "alice\u00a0",
        "alice\0",
        "alice\n",
        "ali\u200bce",
        "\u202ealice",
        "alice\ud800",
        "\ue000",
        "x" * 65,
        "alice@-bad-.test",
    ],
)
def test_r_inj_3_names_that_are_nobody(name: str):
    assert parse_user_name(name, "example.test") is None


def test_without_a_default_domain_a_bare_name_is_nobody():
    assert parse_user_name("alice") is None


@given(st.text(max_size=40))
def test_parsing_is_total_and_settles(name: str):
    address = parse_user_name(name, "example.test")
    if address is not None:
        again = parse_user_name(f"{address.local_part}@{address.domain}")
        assert again in {address, None}
        assert Address(address.local_part, address.domain) == address
