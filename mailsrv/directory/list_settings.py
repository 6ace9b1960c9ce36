"""``[[list]]``: who may send to a list, and under its address, where no directory says it."""

from __future__ import annotations

from attrs import frozen

from mailsrv.address.setting_check import are_addresses
from mailsrv.interfaces.rights import Posters
from mailsrv.setting import required, setting

_addresses = are_addresses("staff@example.test")


@frozen
class ListSettings:
    """One ``[[list]]``: rules on an alias or a group, in place of what a directory says of the same address."""

    address: str = required(
        "The list's address, an alias or a group of a directory.", check=_addresses, example="staff@example.test"
    )
    post: Posters = required(
        "Who may send to it. users: who has logged in here; domain: users of the list's own domain; "
        "members: whom its mail reaches; named: those in posters. All but anybody have to log in: the sender of "
        "other mail proves nothing.",
        example="members",
    )
    posters: tuple[str, ...] = setting(
        (),
        "Who may besides: addresses of users, and of lists for those behind them.",
        check=_addresses,
        example=["press@example.test"],
    )
    refused: tuple[str, ...] = setting((), "Users who may not, whatever else is said.", check=_addresses)
    members_send_as: bool = setting(True, "Whether members may send mail under the list's address.")
    send_as: tuple[str, ...] = setting(
        (), "Who may besides, as in posters.", check=_addresses, example=["press@example.test"]
    )
