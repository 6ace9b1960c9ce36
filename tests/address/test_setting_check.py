"""What settings with domains, addresses and networks take, and what they say of all else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from mailsrv.address.setting_check import are_addresses, are_domains, is_domain_or_empty
from mailsrv.wire.networks import are_networks

address: Any = are_addresses("alice@example.test")


def refusal(check: Callable[..., None], value: object) -> str:
    @attrs.frozen
    class Record:
        field: Any = attrs.field(validator=check)

    try:
        Record(value)
    except ValueError as error:
        return str(error.args[0])
    return ""


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (are_domains, "example.test"),
        (are_domains, ("Example.TEST", "bücher.test", "[192.0.2.1]")),
        (are_domains, ()),
        (is_domain_or_empty, ""),
        (is_domain_or_empty, "example.test"),
        (address, "alice@example.test"),
        (address, ("alice@example.test", '"a b"@example.test')),
        (are_networks, None),
        (are_networks, ("192.0.2.0/24", "2001:db8::/32", "::1")),
    ],
)
def test_what_is_right_is_taken(check: Callable[..., None], value: object) -> None:
    assert refusal(check, value) == ""


@pytest.mark.parametrize(
    ("check", "value", "said"),
    [
        (are_domains, "", "'': expected a domain such as example.test"),
        (are_domains, ("example.test", "a b"), "'a b': expected a domain such as example.test"),
        (is_domain_or_empty, "a..b", "'a..b': expected a domain such as example.test"),
        (address, ("alice@example.test", "bob"), "'bob': expected an address such as alice@example.test"),
        (are_networks, ("192.0.2.1/24",), "expected networks such as 192.0.2.0/24 (192.0.2.1/24 has host bits set)"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(check: Callable[..., None], value: object, said: str) -> None:
    assert refusal(check, value) == said
