"""What can be adjusted about how much one user may send."""

from __future__ import annotations

from attrs import field, frozen, validators


@frozen
class SubmissionSettings:
    """What one user may send, over all connections: a stolen account does no more harm than that.

    Of each limit a user may use all at once after a quiet time, and then so much again evenly over the
    hour or the day.
    """

    messages_per_hour: int = field(
        default=300, validator=validators.ge(0), metadata={"help": "Messages a user may send in an hour; 0: any."}
    )
    messages_per_day: int = field(
        default=1500, validator=validators.ge(0), metadata={"help": "Messages a user may send in a day; 0: any."}
    )
    recipients_per_hour: int = field(
        default=1000,
        validator=validators.ge(0),
        metadata={"help": "Recipients, of all messages together, a user may send to in an hour; 0: any."},
    )
    recipients_per_day: int = field(
        default=3000,
        validator=validators.ge(0),
        metadata={"help": "Recipients, of all messages together, a user may send to in a day; 0: any."},
    )
    unlimited_users: tuple[str, ...] = field(
        default=(),
        metadata={"help": "Users without these limits.", "example": ["newsletter@example.test"]},
    )
    users_remembered: int = field(
        default=20_000,
        validator=[validators.ge(1), validators.le(10_000_000)],
        metadata={
            "help": "Users whose use of the limits is remembered, in a file of 768 octets each; past that those are "
            "forgotten who have used the least."
        },
    )
