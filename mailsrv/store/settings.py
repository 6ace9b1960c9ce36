"""Everything adjustable about the store."""

from __future__ import annotations

import enum

from attrs import frozen

from mailsrv.setting import setting


class RepositoryType(enum.Enum):
    """How message octets are kept."""

    MAILDIR = "maildir"
    MEMORY = "memory"


@frozen
class StoreSettings:
    """The ``[store]`` table."""

    type: RepositoryType = setting(
        RepositoryType.MAILDIR, "How messages are kept; memory forgets everything at the end (for trying out)."
    )
    path: str = setting(
        "mail/{domain}/{local}",
        "Folder of an account's Maildir; {domain} and {local} stand for the parts of its address.",
        example="/var/mail/{domain}/{local}",
    )
    mailbox_name_octets: int = setting(255, "Longest mailbox name in octets of UTF-8.", unit="octets")
    mailbox_depth: int = setting(20, "Most levels a mailbox name may have.")
    mailbox_count: int = setting(1000, "Most mailboxes an account may have.")
    subscription_count: int = setting(2000, "Most subscriptions an account may have.")
    keyword_octets: int = setting(50, "Longest keyword.", unit="octets")
    keyword_count: int = setting(200, "Most different keywords a mailbox may have.")
    quota_octets: int | None = setting(None, "Quota of accounts for which the directory names none.", unit="octets")
    quota_messages: int | None = setting(None, "Most messages an account may hold.")
    open_accounts: int = setting(200, "Accounts whose index a worker keeps open; the longest unused is closed.")
    idle_close_seconds: float = setting(30.0, "An index nobody used for so long is closed.", unit="seconds")
    threads: int = setting(3, "Threads for disk work in each worker.")
    batch_operations: int = setting(64, "Most changes of an account that are committed together.")
    queued_operations: int = setting(10_000, "Most operations waiting for the disk in a worker; more are refused.")
    reservation: int = setting(256, "UIDs and mod-sequences reserved ahead by one durable commit.")
    recovery_jump: int = setting(1 << 20, "How far UIDs and mod-sequences jump after an index was lost or damaged.")
    load_octets: int = setting(4 * 1024 * 1024, "Octets of messages loaded whole by one reading step.", unit="octets")
    load_message_octets: int = setting(
        256 * 1024, "Messages up to this size are loaded whole when read.", unit="octets"
    )
    summary_cache_octets: int = setting(
        48 * 1024 * 1024, "Ready-made ENVELOPE and BODYSTRUCTURE kept in memory, in each worker.", unit="octets"
    )
    change_log_entries: int = setting(4096, "Changes of an open mailbox remembered for quick answers.")
    settle_seconds: float = setting(
        2.0, "A folder changed less than this ago is not believed to be unchanged (coarse time stamps).", unit="seconds"
    )
    poll_seconds: float = setting(
        60.0, "How often an open mailbox is checked though nothing announced a change.", unit="seconds"
    )
    temporary_file_hours: float = setting(36.0, "Age at which files left in tmp/ are removed.", unit="hours")
    busy_seconds: float = setting(5.0, "How long a writer waits for another worker's transaction.", unit="seconds")
    tombstones: int = setting(1000, "Expunged messages of an account remembered before the list is cleaned.")
    notice_backlog: int = setting(
        4096, "Change notices kept for a worker that does not read; more become one that says: anything."
    )
