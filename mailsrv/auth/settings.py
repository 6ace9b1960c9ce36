"""Everything adjustable about log-ins."""

from __future__ import annotations

import enum
from typing import Any

from attrs import Attribute, field, frozen, validators

from mailsrv.wire.networks import NetworkSet


def _networks(record: object, attribute: Attribute[Any], value: tuple[str, ...]) -> None:
    try:
        NetworkSet(value)
    except ValueError as error:
        raise ValueError(f"{error}: expected networks such as 192.0.2.0/24", attribute) from error


class ScramUse(enum.Enum):
    """Whether SCRAM is offered."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


@frozen
class AuthSettings:
    """``[auth]``: who may log in how, and how guessing is slowed down."""

    plaintext_networks: tuple[str, ...] = field(
        default=(),
        validator=_networks,
        metadata={"help": "Networks from which log-ins without TLS are allowed.", "example": ("127.0.0.1/32",)},
    )
    default_domain: str = field(
        default="",
        metadata={"help": "The domain of users who log in without one.", "example": "example.test"},
    )
    scram: ScramUse = field(
        default=ScramUse.AUTO,
        metadata={
            "help": "auto: log-in by SCRAM is offered as soon as every user has keys for it (passwords set before "
            "there were keys have to be set again); on: as soon as one user has, and others' clients may choose "
            "what cannot work for them; off: never."
        },
    )
    cache_seconds: float = field(
        default=60.0,
        validator=validators.ge(0),
        metadata={
            "help": "How long a verified log-in is remembered: clients that connect often cost no hash; 0: not.",
            "unit": "s",
        },
    )
    cache_entries: int = field(
        default=10_000, validator=validators.ge(0), metadata={"help": "How many verified log-ins are remembered."}
    )
    failure_delay_seconds: float = field(
        default=2.0,
        validator=validators.ge(0),
        metadata={"help": "Delay of the answer to a first failed log-in; it doubles with each failure.", "unit": "s"},
    )
    failure_delay_limit_seconds: float = field(
        default=15.0,
        validator=validators.ge(0),
        metadata={"help": "The delay grows no further than this.", "unit": "s"},
    )
    failure_decay_seconds: float = field(
        default=120.0,
        validator=validators.gt(0),
        metadata={"help": "After this time without a failure the delay halves.", "unit": "s"},
    )
    failures_per_user: int = field(
        default=10,
        validator=validators.ge(1),
        metadata={
            "help": "Different wrong passwords for one user from one network in an hour; then log-ins are refused."
        },
    )
    failures_per_network: int = field(
        default=50,
        validator=validators.ge(1),
        metadata={
            "help": "Different failed log-ins from one network in a day; then log-ins from it are refused, "
            "unless somebody logged in from it lately."
        },
    )
    success_memory_seconds: float = field(
        default=86_400.0,
        validator=validators.ge(0),
        metadata={"help": "How long a successful log-in keeps its network from being refused as a whole.", "unit": "s"},
    )
    throttle_entries: int = field(
        default=20_000,
        validator=validators.ge(1),
        metadata={"help": "How many users, networks, and pairs of both are remembered; the oldest are forgotten."},
    )
