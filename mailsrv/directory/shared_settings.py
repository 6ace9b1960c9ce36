"""``[[shared]]``: whose mailboxes others may open, where no directory says it."""

from __future__ import annotations

from attrs import frozen

from mailsrv.address.setting_check import are_addresses
from mailsrv.setting import required, setting

_addresses = are_addresses("support@example.test")


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
