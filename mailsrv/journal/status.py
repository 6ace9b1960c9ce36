"""A journal in numbers."""

from __future__ import annotations

from attrs import frozen

from mailsrv.journal.stages import Stages


@frozen
class JournalStatus:
    """For health and metrics."""

    is_running: bool
    live_segments: int
    unapplied_octets: int
    blocked_deliveries: int
    free_octets: int
    floor_octets: int
    failed_checkpoints: int


def status_of(stages: Stages | None, *, is_running: bool) -> JournalStatus:
    """Of this moment, from memory."""
    if stages is None:
        return JournalStatus(False, 0, 0, 0, 0, 0, 0)
    return JournalStatus(
        is_running,
        len(stages.slot.live),
        stages.slot.unapplied_octets,
        stages.apply.blocked_deliveries,
        stages.keeper.space.free_octets,
        stages.keeper.floor,
        stages.keeper.failed_checkpoints,
    )
