"""What can be adjusted about how much one user may send."""

from __future__ import annotations

from attrs import frozen

from mailsrv.setting import setting


@frozen
class SubmissionSettings:
    """What one user may send, over all connections: a stolen account does no more harm than that.

    Of each limit a user may use all at once after a quiet time, and then so much again evenly over the
    hour or the day.
    """

    messages_per_hour: int = setting(300, "Messages a user may send in an hour; 0: any.", at_least=0)
    messages_per_day: int = setting(1500, "Messages a user may send in a day; 0: any.", at_least=0)
    recipients_per_hour: int = setting(
        1000, "Recipients, of all messages together, a user may send to in an hour; 0: any.", at_least=0
    )
    recipients_per_day: int = setting(
        3000, "Recipients, of all messages together, a user may send to in a day; 0: any.", at_least=0
    )
    unlimited_users: tuple[str, ...] = setting((), "Users without these limits.", example=["newsletter@example.test"])
    users_remembered: int = setting(
        20_000,
        "Users whose use of the limits is remembered, in a file of 768 octets each; past that those are "
        "forgotten who have used the least.",
        at_least=1,
        at_most=10_000_000,
    )
