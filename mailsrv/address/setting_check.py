"""The checks of settings that hold domains or addresses; they name what is none, and what would be right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import Attribute

from mailsrv.address.domain import parse_domain
from mailsrv.address.mailbox import AddressError
from mailsrv.address.path import parse_mailbox

Value = str | tuple[str, ...]


def are_addresses(example: str) -> Callable[[object, Attribute[Any], Value], None]:
    """For a field with one address or several; ``example`` is shown to who writes none."""

    def check(_record: object, attribute: Attribute[Any], value: Value) -> None:
        _check_each(parse_mailbox, value, attribute, f"an address such as {example}")

    return check


def are_domains(_record: object, attribute: Attribute[Any], value: Value) -> None:
    """For a field with one domain or several."""
    _check_each(parse_domain, value, attribute, "a domain such as example.test")


def is_domain_or_empty(record: object, attribute: Attribute[Any], value: str) -> None:
    """For a field with one domain, or none."""
    if value:
        are_domains(record, attribute, value)


def _check_each(parse: Callable[[str], object], value: Value, attribute: Attribute[Any], expected: str) -> None:
    for text in (value,) if isinstance(value, str) else value:
        try:
            parse(text)
        except AddressError as error:
            raise ValueError(f"{text!r}: expected {expected}", attribute) from error
