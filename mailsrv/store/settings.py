"""Everything adjustable about the store."""

from __future__ import annotations

import enum

from attrs import field, frozen


class RepositoryType(enum.Enum):
    """How message octets are kept."""

    MAILDIR = "maildir"
    MEMORY = "memory"


@frozen
class StoreSettings:
    """The ``[store]`` table."""

    type: RepositoryType = field(
        default=RepositoryType.MAILDIR,
        metadata={"help": "How messages are kept; memory forgets everything at the end (for trying out)."},
    )
    path: str = field(
        default="mail/{domain}/{local}",
        metadata={
            "help": "Folder of an account's Maildir; {domain} and {local} stand for the parts of its address.",
            "example": "/var/mail/{domain}/{local}",
        },
    )
    mailbox_name_octets: int = field(
        default=255, metadata={"help": "Longest mailbox name in octets of UTF-8.", "unit": "octets"}
    )
    mailbox_depth: int = field(default=20, metadata={"help": "Most levels a mailbox name may have."})
    mailbox_count: int = field(default=1000, metadata={"help": "Most mailboxes an account may have."})
    subscription_count: int = field(default=2000, metadata={"help": "Most subscriptions an account may have."})
    keyword_octets: int = field(default=50, metadata={"help": "Longest keyword.", "unit": "octets"})
    keyword_count: int = field(default=200, metadata={"help": "Most different keywords a mailbox may have."})
    quota_octets: int | None = field(
        default=None,
        metadata={"help": "Quota of accounts for which the directory names none.", "unit": "octets"},
    )
    quota_messages: int | None = field(default=None, metadata={"help": "Most messages an account may hold."})
    open_accounts: int = field(
        default=200,
        metadata={"help": "Accounts whose index a worker keeps open; the longest unused is closed."},
    )
    idle_close_seconds: float = field(
        default=30.0, metadata={"help": "An index nobody used for so long is closed.", "unit": "seconds"}
    )
    threads: int = field(default=3, metadata={"help": "Threads for disk work in each worker."})
    batch_operations: int = field(
        default=64, metadata={"help": "Most changes of an account that are committed together."}
    )
    queued_operations: int = field(
        default=10_000, metadata={"help": "Most operations waiting for the disk in a worker; more are refused."}
    )
    reservation: int = field(
        default=256, metadata={"help": "UIDs and mod-sequences reserved ahead by one durable commit."}
    )
    recovery_jump: int = field(
        default=1 << 20, metadata={"help": "How far UIDs and mod-sequences jump after an index was lost or damaged."}
    )
    load_octets: int = field(
        default=4 * 1024 * 1024,
        metadata={"help": "Octets of messages loaded whole by one reading step.", "unit": "octets"},
    )
    load_message_octets: int = field(
        default=256 * 1024,
        metadata={"help": "Messages up to this size are loaded whole when read.", "unit": "octets"},
    )
    summary_cache_octets: int = field(
        default=48 * 1024 * 1024,
        metadata={"help": "Ready-made ENVELOPE and BODYSTRUCTURE kept in memory, in each worker.", "unit": "octets"},
    )
    change_log_entries: int = field(
        default=4096, metadata={"help": "Changes of an open mailbox remembered for quick answers."}
    )
    settle_seconds: float = field(
        default=2.0,
        metadata={
            "help": "A folder changed less than this ago is not believed to be unchanged (coarse time stamps).",
            "unit": "seconds",
        },
    )
    poll_seconds: float = field(
        default=60.0,
        metadata={
            "help": "How often an open mailbox is checked though nothing announced a change.",
            "unit": "seconds",
        },
    )
    temporary_file_hours: float = field(
        default=36.0, metadata={"help": "Age at which files left in tmp/ are removed.", "unit": "hours"}
    )
    busy_seconds: float = field(
        default=5.0, metadata={"help": "How long a writer waits for another worker's transaction.", "unit": "seconds"}
    )
    tombstones: int = field(
        default=1000, metadata={"help": "Expunged messages of an account remembered before the list is cleaned."}
    )
    notice_backlog: int = field(
        default=4096,
        metadata={"help": "Change notices kept for a worker that does not read; more become one that says: anything."},
    )
