"""What can be adjusted about handing mail on to other hosts."""

from __future__ import annotations

from attrs import field, frozen, validators


@frozen
class RelaySettings:
    """Connections to the next hop."""

    connect_timeout: float = field(
        default=30.0,
        validator=validators.gt(0.0),
        metadata={"help": "How long a connection to one address may take to open.", "unit": "seconds"},
    )
