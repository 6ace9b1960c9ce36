"""``[[list]]``: who may send to a list, and under its address, where no directory says it."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, frozen

from mailsrv.address import AddressError, parse_mailbox
from mailsrv.interfaces.rights import Posters


def _addresses(record: object, attribute: Attribute[Any], value: str | tuple[str, ...]) -> None:
    for text in (value,) if isinstance(value, str) else value:
        try:
            parse_mailbox(text)
        except AddressError as error:
            raise ValueError(f"{text!r} is no address such as staff@example.test", attribute) from error


@frozen
class ListSettings:
    """One ``[[list]]``: rules on an alias or a group, in place of what a directory says of the same address."""

    address: str = field(
        validator=_addresses,
        metadata={"help": "The list's address, an alias or a group of a directory.", "example": "staff@example.test"},
    )
    post: Posters = field(
        metadata={
            "help": "Who may send to it. users: who has logged in here; domain: users of the list's own domain; "
            "members: whom its mail reaches; named: those in posters. All but anybody have to log in: the sender of "
            "other mail proves nothing.",
            "example": "members",
        },
    )
    posters: tuple[str, ...] = field(
        default=(),
        validator=_addresses,
        metadata={
            "help": "Who may besides: addresses of users, and of lists for those behind them.",
            "example": ["press@example.test"],
        },
    )
    refused: tuple[str, ...] = field(
        default=(), validator=_addresses, metadata={"help": "Users who may not, whatever else is said."}
    )
    members_send_as: bool = field(
        default=True, metadata={"help": "Whether members may send mail under the list's address."}
    )
    send_as: tuple[str, ...] = field(
        default=(),
        validator=_addresses,
        metadata={"help": "Who may besides, as in posters.", "example": ["press@example.test"]},
    )
