"""Everything adjustable about the journal."""

from __future__ import annotations

from attrs import frozen

from mailsrv.setting import setting

MEBIBYTE = 1 << 20


@frozen
class JournalSettings:
    """Sizes, bounds and patience of the delivery journal and its spool."""

    segment_octets: int = setting(
        32 * MEBIBYTE, "Size of a journal segment, filled with zeros ahead.", at_least=8192, unit="octets"
    )
    most_segments: int = setting(
        16, "Segments a process may have; when all hold mail that is not yet stored, new mail gets 452.", at_least=3
    )
    inline_limit: int = setting(
        128 * 1024,
        "Messages up to this size are written into the journal, larger ones beside it.",
        at_least=0,
        unit="octets",
    )
    apply_wait: float = setting(
        0.25,
        "How long the answer to an accepted message waits for it to appear in the mailbox.",
        at_least=0.0,
        unit="seconds",
    )
    apply_ahead: int = setting(
        256,
        "While the store has no more than this many messages to catch up with, answers do not wait for it.",
        at_least=0,
    )
    apply_linger: float = setting(
        0.1, "How long a busy server gathers accepted mail before it stores it in one go.", at_least=0.0, unit="seconds"
    )
    linger_from: int = setting(8, "So many messages within that time mean that the server is busy.", at_least=1)
    apply_batch: int = setting(256, "Deliveries handed to the store at once.", at_least=1)
    backlog_octets: int = setting(
        128 * MEBIBYTE,
        "Accepted mail not yet in its mailboxes; beyond this, new mail gets 452.",
        at_least=1,
        unit="octets",
    )
    free_space_floor: int = setting(
        100 * MEBIBYTE, "Below this much free disk, new mail gets 452 (twice the largest message).", unit="octets"
    )
    free_space_floor_percent: float = setting(5.0, "The same as a share of the disk.", unit="percent")
    free_space_floor_most: int = setting(
        16 * 1024 * MEBIBYTE, "The share never asks for more than this, on large disks.", unit="octets"
    )
    checkpoint_interval: float = setting(
        60.0, "Mail is moved out of the journal for good at least this often.", above=0.0, unit="seconds"
    )
    retry_first: float = setting(
        1.0, "First pause after a delivery into a mailbox failed; it doubles.", above=0.0, unit="seconds"
    )
    retry_most: float = setting(60.0, "Longest such pause.", above=0.0, unit="seconds")
    stuck_after: int = setting(
        12, "After so many failures a delivery is put into the folder stuck/, with an alarm.", at_least=1
    )
    spool_buffer: int = setting(
        MEBIBYTE,
        "Octets of one large message waiting for the disk before its sender has to wait.",
        at_least=1,
        unit="octets",
    )
    spool_threads: int = setting(2, "Threads that write large messages.", at_least=1)
    most_slots: int = setting(64, "Processes that may have a journal in one state folder.", at_least=1)
    recovery_interval: float = setting(
        60.0, "How often the journals of ended processes are looked for.", above=0.0, unit="seconds"
    )
