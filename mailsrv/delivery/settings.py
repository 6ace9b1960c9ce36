"""What can be adjusted about taking messages in."""

from __future__ import annotations

import ipaddress
from typing import Any

from attrs import Attribute, field, frozen, validators

from mailsrv.address import AddressError, parse_domain


def _networks(record: object, attribute: Attribute[Any], value: tuple[str, ...]) -> None:
    for text in value:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise ValueError(f"expected networks such as 192.0.2.0/24 ({error})") from error


def _domain_or_none(record: object, attribute: Attribute[Any], value: str) -> None:
    try:
        if value:
            parse_domain(value)
    except AddressError as error:
        raise ValueError(f"{value!r} is no domain") from error


@frozen
class DeliverySettings:
    """Limits and checks on the way from the session to the journal."""

    hop_limit: int = field(
        default=50,
        metadata={"help": "A message with more Received fields than this is going round in circles (554 5.4.6)."},
    )
    header_limit_octets: int = field(
        default=262144,
        metadata={
            "help": "A header section is held back up to this size; what comes after it counts as body.",
            "unit": "octets",
        },
    )
    accounts_per_message: int = field(
        default=20_000,
        validator=validators.ge(1),
        metadata={
            "help": "Accounts and addresses elsewhere one message may go to, aliases resolved; more recipients get "
            "452 4.5.3."
        },
    )
    alias_targets: int = field(
        default=20_000,
        validator=validators.ge(1),
        metadata={
            "help": "Addresses that the aliases and lists behind one recipient may name together; mail for what leads "
            "to more waits (451)."
        },
    )
    forwarders_per_message: int = field(
        default=20,
        validator=validators.ge(1),
        metadata={
            "help": "Addresses of ours that forward one message elsewhere, each with a copy of its own; more "
            "recipients get 452 4.5.3."
        },
    )
    check_from_field: bool = field(
        default=True,
        metadata={"help": "Submission: every address in From must belong to the user, not only the envelope sender."},
    )
    believe_list_senders: bool = field(
        default=False,
        metadata={
            "help": "Lists that are for members or for those they name: whether addresses elsewhere count as who the "
            "envelope sender says they are. Anybody can write that."
        },
    )
    relay_networks: tuple[str, ...] = field(
        default=(),
        validator=_networks,
        metadata={
            "help": "Networks whose clients may send mail anywhere under any name, without a log-in: printers, an "
            "old application. At an MX they do so like anybody; at a submission listener they need not log in.",
            "example": ["192.0.2.0/28"],
        },
    )
    srs: bool = field(
        default=True,
        metadata={
            "help": "Rewrite the envelope sender of mail that is forwarded elsewhere (SRS), so that it passes SPF "
            "there and bounces come back through here."
        },
    )
    srs_domain: str = field(
        default="",
        validator=_domain_or_none,
        metadata={
            "help": "The domain of rewritten senders, one of [[domain]]; empty: that of the address that forwards.",
            "example": "example.test",
        },
    )
    srs_days: int = field(
        default=21,
        validator=[validators.ge(2), validators.le(500)],
        metadata={"help": "How long a bounce to a rewritten sender is taken.", "unit": "days"},
    )
    srs_rotation_days: int = field(
        default=90,
        validator=validators.ge(1),
        metadata={
            "help": "How old the secret of rewritten senders grows before a start makes a new one.",
            "unit": "days",
        },
    )


@frozen
class SendmailSettings:
    """``[sendmail]``: mail of programs on this machine, by mailsrv-sendmail."""

    spool_dir: str = field(
        default="",
        metadata={
            "help": "Where it leaves mail while the server is down; made with mode 1733, everybody must be able to get "
            "there. Empty: sendmail-spool in state_dir, which only the server's own user can reach.",
            "example": "/var/spool/mailsrv",
        },
    )
    trusted_users: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Users of this machine who may send under any name, beside root and the server's own user.",
            "example": ["www-data"],
        },
    )
    pickup_seconds: float = field(
        default=15.0,
        validator=validators.gt(0),
        metadata={"help": "How often the server looks for mail that was left.", "unit": "seconds"},
    )
    pickup_messages: int = field(
        default=100,
        validator=validators.ge(1),
        metadata={"help": "Messages it takes in one go."},
    )
    message_octets: int = field(
        default=52_428_800,
        validator=validators.ge(1024),
        metadata={"help": "A larger message is refused by the command.", "unit": "octets"},
    )
    max_age_seconds: float = field(
        default=432_000.0,
        validator=validators.gt(0),
        metadata={"help": "What could not be taken for so long goes back to who sent it.", "unit": "seconds"},
    )
