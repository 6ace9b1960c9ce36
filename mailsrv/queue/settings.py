"""What can be adjusted about the queue (RELIABILITY section 2 gives the defaults)."""

from __future__ import annotations

from attrs import field, frozen, validators


@frozen
class QueueSettings:
    """The durable queue and its schedule."""

    max_messages: int = field(
        default=1_000_000,
        validator=validators.ge(1),
        metadata={"help": "With so many messages in the queue, new ones for other hosts get 452."},
    )
