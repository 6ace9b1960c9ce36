"""``[[shared]]``: whose mailboxes others may open, where no directory says it."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, frozen

from mailsrv.address import AddressError, parse_mailbox
from mailsrv.setting import required, setting


def _addresses(record: object, attribute: Attribute[Any], value: str | tuple[str, ...]) -> None:
    for text in (value,) if isinstance(value, str) else value:
        try:
            parse_mailbox(text)
        except AddressError as error:
            raise ValueError(f"{text!r}: expected an address such as support@example.test", attribute) from error


@frozen
class SharedSettings:
    """One ``[[shared]]``: beside what a directory says of the same account."""

    account: str = required("The user whose mailboxes are shared.", check=_addresses, example="support@example.test")
    readers: tuple[str, ...] = setting((), "Users who may read them.", check=_addresses, example=["alice@example.test"])
    writers: tuple[str, ...] = setting(
        (),
        "Users who may besides put mail in, change flags and remove mail.",
        check=_addresses,
        example=["bob@example.test"],
    )
