"""``[[access]]``: who may log in to which service from where, by user, group and domain."""

from __future__ import annotations

import enum
from typing import Any

from attrs import Attribute, frozen

from mailsrv.address.setting_check import are_addresses, are_domains
from mailsrv.setting import required, setting
from mailsrv.wire.networks import NetworkSet

LOCAL = "local"
"""In place of a network: clients of Unix sockets."""


class LoginService(enum.Enum):
    """What one logs in to."""

    IMAP = "imap"
    POP3 = "pop3"
    SUBMISSION = "submission"


class AccessAction(enum.Enum):
    """What becomes of a log-in that a rule is about."""

    ALLOW = "allow"
    DENY = "deny"


def _are_groups(_record: object, attribute: Attribute[Any], value: tuple[str, ...]) -> None:
    if not all(text.strip() for text in value):
        raise ValueError("expected names of groups", attribute)


def _are_networks(_record: object, attribute: Attribute[Any], value: tuple[str, ...]) -> None:
    try:
        NetworkSet(text for text in value if text != LOCAL)
    except ValueError as error:
        raise ValueError(f"expected networks such as 192.0.2.0/24, or {LOCAL} ({error})", attribute) from error


@frozen
class AccessSettings:
    """One ``[[access]]``: a rule about log-ins. All that is set has to fit; of a list, one has to."""

    action: AccessAction = required(
        "What becomes of a log-in that fits. One that fits no rule is allowed.", example="deny"
    )
    users: tuple[str, ...] = setting(
        (),
        "Addresses of accounts; empty: anybody.",
        check=are_addresses("alice@example.test"),
        example=["alice@example.test"],
    )
    groups: tuple[str, ...] = setting(
        (), "Groups of the directory; empty: anybody.", check=_are_groups, example=["staff"]
    )
    domains: tuple[str, ...] = setting(
        (), "Domains of accounts; empty: any.", check=are_domains, example=["example.test"]
    )
    services: tuple[LoginService, ...] = setting((), "imap, pop3, submission; empty: any.", example=["pop3"])
    networks: tuple[str, ...] = setting(
        (),
        "Where the client is, as networks, or local for Unix sockets; empty: anywhere.",
        check=_are_networks,
        example=["192.0.2.0/24"],
    )
