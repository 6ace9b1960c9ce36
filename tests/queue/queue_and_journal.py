"""Journal and queue of one process on a real disk, without threads."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from mailsrv.disk import RealDisk
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.journal import Applied, DeliveryKey, JournaledMessage, JournalRecord, PendingDelivery
from mailsrv.journal import JournalSettings
from mailsrv.queue.split_applier import SplitApplier
from tests.journal.rig import Rig
from tests.queue.queue_setting import CONTENT, NOW, QueueSetting

SETTINGS = JournalSettings(
    segment_octets=64 * 1024, inline_limit=2048, free_space_floor=0, free_space_floor_percent=0.0, spool_threads=1
)


class NoMailboxes:
    """Nothing here is for users of ours."""

    def apply(self, deliveries: Sequence[PendingDelivery[Any]]) -> Sequence[Applied]:
        raise AssertionError("a local delivery")

    def take_touched(self) -> Collection[str]:
        return ()

    def checkpoint_failed(self, keys: Collection[DeliveryKey]) -> None: ...


class Server:
    """Journal and queue of one process; another one on the same folder is its next start."""

    def __init__(self, folder: Path, run_id: bytes, settings: JournalSettings = SETTINGS) -> None:
        self.queue = QueueSetting(folder, run_id=run_id, journal_directory=str(folder / "journal"))
        applier: Any = SplitApplier(NoMailboxes(), self.queue.store.applier)  # type: ignore[arg-type]
        self.rig = Rig(RealDisk(), settings, applier, str(folder / "journal"))
        self.queue.store.live_segments = self.rig.journal.live_segments
        self.rig.start()
        self.queue.start()

    def accept(self, *deliveries: Any, content: bytes = CONTENT) -> None:
        assert self.commit(*deliveries, content=content) == [None]

    def commit(self, *deliveries: Any, content: bytes = CONTENT) -> list[object]:
        """What the journal says to a message: [None], or a Failure."""
        made = InlineContent(content)
        if len(content) > SETTINGS.inline_limit:
            spooled = self.rig.spool(content)
            self.rig.pump()
            [made] = spooled
        result: list[object] = []
        record = JournalRecord((JournaledMessage(made, deliveries, int(NOW)),), "T1")
        self.rig.journal.commit(record).addBoth(result.append)
        self.rig.pump()
        self.queue.pump()
        return result

    def checkpoint(self) -> None:
        for _ in range(3):
            self.rig.tick(100)

    def die(self) -> None:
        """As a kill: only the locks go."""
        held = self.queue.store._seats._held
        assert held is not None
        os.close(held[0])
        self.rig.slot.close()
