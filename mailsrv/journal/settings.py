"""Everything adjustable about the journal."""

from __future__ import annotations

from attrs import field, frozen, validators

MEBIBYTE = 1 << 20


@frozen
class JournalSettings:
    """Sizes, bounds and patience of the delivery journal and its spool."""

    segment_octets: int = field(
        default=32 * MEBIBYTE,
        validator=validators.ge(8192),
        metadata={"help": "Size of a journal segment, filled with zeros ahead.", "unit": "octets"},
    )
    most_segments: int = field(
        default=16,
        validator=validators.ge(3),
        metadata={"help": "Segments a process may have; when all hold mail that is not yet stored, new mail gets 452."},
    )
    inline_limit: int = field(
        default=128 * 1024,
        validator=validators.ge(0),
        metadata={
            "help": "Messages up to this size are written into the journal, larger ones beside it.",
            "unit": "octets",
        },
    )
    apply_wait: float = field(
        default=0.25,
        validator=validators.ge(0.0),
        metadata={
            "help": "How long the answer to an accepted message waits for it to appear in the mailbox.",
            "unit": "seconds",
        },
    )
    apply_ahead: int = field(
        default=256,
        validator=validators.ge(0),
        metadata={
            "help": "While the store has no more than this many messages to catch up with, answers do not wait for it."
        },
    )
    apply_linger: float = field(
        default=0.1,
        validator=validators.ge(0.0),
        metadata={
            "help": "How long a busy server gathers accepted mail before it stores it in one go.",
            "unit": "seconds",
        },
    )
    linger_from: int = field(
        default=8,
        validator=validators.ge(1),
        metadata={"help": "So many messages stored in one go mean that the server is busy."},
    )
    apply_batch: int = field(
        default=256, validator=validators.ge(1), metadata={"help": "Deliveries handed to the store at once."}
    )
    backlog_octets: int = field(
        default=128 * MEBIBYTE,
        validator=validators.ge(1),
        metadata={"help": "Accepted mail not yet in its mailboxes; beyond this, new mail gets 452.", "unit": "octets"},
    )
    free_space_floor: int = field(
        default=100 * MEBIBYTE,
        metadata={
            "help": "Below this much free disk, new mail gets 452 (twice the largest message).",
            "unit": "octets",
        },
    )
    free_space_floor_percent: float = field(
        default=5.0, metadata={"help": "The same as a share of the disk.", "unit": "percent"}
    )
    free_space_floor_most: int = field(
        default=16 * 1024 * MEBIBYTE,
        metadata={"help": "The share never asks for more than this, on large disks.", "unit": "octets"},
    )
    checkpoint_interval: float = field(
        default=60.0,
        validator=validators.gt(0.0),
        metadata={"help": "Mail is moved out of the journal for good at least this often.", "unit": "seconds"},
    )
    retry_first: float = field(
        default=1.0,
        validator=validators.gt(0.0),
        metadata={"help": "First pause after a delivery into a mailbox failed; it doubles.", "unit": "seconds"},
    )
    retry_most: float = field(
        default=60.0, validator=validators.gt(0.0), metadata={"help": "Longest such pause.", "unit": "seconds"}
    )
    stuck_after: int = field(
        default=12,
        validator=validators.ge(1),
        metadata={"help": "After so many failures a delivery is put into the folder stuck/, with an alarm."},
    )
    spool_buffer: int = field(
        default=MEBIBYTE,
        validator=validators.ge(1),
        metadata={
            "help": "Octets of one large message waiting for the disk before its sender has to wait.",
            "unit": "octets",
        },
    )
    spool_threads: int = field(
        default=2, validator=validators.ge(1), metadata={"help": "Threads that write large messages."}
    )
    most_slots: int = field(
        default=64,
        validator=validators.ge(1),
        metadata={"help": "Processes that may have a journal in one state folder."},
    )
    recovery_interval: float = field(
        default=60.0,
        validator=validators.gt(0.0),
        metadata={"help": "How often the journals of ended processes are looked for.", "unit": "seconds"},
    )
