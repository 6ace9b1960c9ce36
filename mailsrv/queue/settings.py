"""What can be adjusted about the queue (RELIABILITY section 2 gives the defaults)."""

from __future__ import annotations

from attrs import Factory, frozen

from mailsrv.setting import setting


def _seconds(default: float, text: str) -> float:
    value: float = setting(default, text, above=0, unit="seconds")
    return value


def _count(default: int, text: str) -> int:
    value: int = setting(default, text, at_least=1)
    return value


@frozen
class RetrySettings:
    """When a recipient is tried again, and for how long."""

    first_seconds: float = _seconds(300.0, "Time until the second attempt; it doubles with each further one.")
    longest_seconds: float = _seconds(14_400.0, "The longest time between two attempts.")
    jitter: float = setting(
        0.1,
        "Part of that time by which it varies at random, so that mail does not come back in waves.",
        at_least=0,
        below=1,
    )
    max_age_seconds: float = _seconds(432_000.0, "Mail that could not be delivered for so long goes back (5 days).")
    bounce_max_age_seconds: float = _seconds(
        172_800.0, "The same for mail with the null reverse-path, notices of failure first of all (2 days)."
    )
    delay_notice_seconds: float = _seconds(
        14_400.0,
        "After so long the sender is told once that the mail still waits: users of this server, and whoever asked "
        "for it (NOTIFY=DELAY).",
    )


@frozen
class ScheduleSettings:
    """Who is served when. The numbers hold for each worker process."""

    max_attempts: int = _count(1000, "Delivery attempts at the same time, all destinations together.")
    max_stalled_attempts: int = _count(
        2000, "Attempts beyond those that have been running for longer than stalled_after_seconds."
    )
    stalled_after_seconds: float = _seconds(
        5.0, "An attempt that takes longer no longer keeps others from starting: its destination is slow."
    )
    first_concurrency: int = _count(2, "Attempts at the same time for a destination nothing is known of.")
    max_concurrency: int = _count(10, "Attempts at the same time for one destination that takes mail well.")
    first_probe_seconds: float = _seconds(
        300.0, "A destination where nobody answers is asked again after this time; it doubles with each failure."
    )
    longest_probe_seconds: float = _seconds(3600.0, "The longest time between two such attempts.")
    review_seconds: float = _seconds(
        1800.0, "How often mail that waits for such a destination is looked through for what is too old."
    )
    recipients_per_transaction: int = _count(50, "Recipients of one message that go to a destination together.")
    max_leased: int = _count(5000, "Messages taken from the queue and not yet settled.")
    remembered_destinations: int = _count(
        10_000, "Destinations without mail whose concurrency and failures are remembered."
    )
    resync_seconds: float = _seconds(
        600.0, "How often a worker asks the queue for all that waits, whatever it has been told meanwhile."
    )
    store_retry_seconds: float = _seconds(5.0, "After trouble with the queue's disk it is tried again so much later.")
    stop_seconds: float = _seconds(30.0, "How long a worker that stops waits for attempts under way.")


@frozen
class NoticeSettings:
    """Notices to senders (delivery status notifications)."""

    returned_octets: int = setting(
        51_200, "A larger message comes back as its header section only, and that up to this size.", at_least=0
    )
    double_bounces: bool = setting(
        True, "Tell the postmaster of notices that could not be delivered; else they are only logged."
    )


@frozen
class StorageSettings:
    """How the queue keeps mail on disk."""

    max_octets: int = setting(
        50 * 1024**3, "With so much mail in the queue, new mail for other hosts gets 452.", at_least=1, unit="octets"
    )
    free_space_floor: int = setting(
        200 * 1024**2, "Below this much free disk, new mail for other hosts gets 452.", at_least=0, unit="octets"
    )
    memory_octets: int = setting(
        64 * 1024**2,
        "Fresh mail a worker keeps in memory; what is beyond gets a file at once.",
        at_least=0,
        unit="octets",
    )
    history_days: float = setting(
        7.0, "How long `mailsrvctl queue show` still knows a message that left.", at_least=0, unit="days"
    )
    history_messages: int = setting(100_000, "No more than so many messages that left are remembered.", at_least=0)
    events_per_message: int = _count(64, "Attempts and commands that are remembered of a message, the latest.")
    lease_seconds: float = _seconds(
        1800.0, "Mail a worker took and said nothing more of is given to others after this time: a last resort."
    )
    gather_seconds: float = setting(
        0.01,
        "While much mail leaves, how long results gather to be written and synced together.",
        at_least=0,
        unit="seconds",
    )
    poll_seconds: float = _seconds(1.0, "How often a worker looks for what others have put into the queue.")
    busy_seconds: float = _seconds(30.0, "How long a worker waits for another one that is writing.")


@frozen
class QueueSettings:
    """The durable queue and its schedule."""

    max_messages: int = setting(
        1_000_000, "With so many messages in the queue, new ones for other hosts get 452.", at_least=1
    )
    retry: RetrySettings = setting(Factory(RetrySettings), "When mail is tried again, and how long.")
    schedule: ScheduleSettings = setting(Factory(ScheduleSettings), "Who is served when.")
    notices: NoticeSettings = setting(Factory(NoticeSettings), "What senders are told.")
    storage: StorageSettings = setting(Factory(StorageSettings), "How mail is kept on disk.")
