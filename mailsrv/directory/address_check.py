"""The check of settings that hold addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import Attribute

from mailsrv.address import AddressError, parse_mailbox


def are_addresses(example: str) -> Callable[[object, Attribute[Any], str | tuple[str, ...]], None]:
    """For a field with one address or several; ``example`` is shown to who writes none."""

    def check(record: object, attribute: Attribute[Any], value: str | tuple[str, ...]) -> None:
        for text in (value,) if isinstance(value, str) else value:
            try:
                parse_mailbox(text)
            except AddressError as error:
                raise ValueError(f"{text!r}: expected an address such as {example}", attribute) from error

    return check
