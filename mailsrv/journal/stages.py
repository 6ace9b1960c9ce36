"""The parts of an open journal, and the threads they work in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from mailsrv.journal.apply import ApplyItem, ApplyStage
from mailsrv.journal.commit import CommitItem, CommitStage
from mailsrv.journal.entry import Job
from mailsrv.journal.keeper import Keeper
from mailsrv.journal.slot import Slot
from mailsrv.journal.spool import SpoolJob
from mailsrv.journal.worker import IWorker


@frozen
class Stages:
    """What exists once the slot is there."""

    slot: Slot
    commit: CommitStage
    apply: ApplyStage
    keeper: Keeper


@frozen
class Threads:
    """What runs them; there from the beginning."""

    commit: IWorker[CommitItem]
    apply: IWorker[ApplyItem]
    keeper: IWorker[Job]
    spool: Sequence[IWorker[SpoolJob]]

    def all(self) -> Sequence[IWorker[Any]]:
        """To start or to stop them."""
        return [self.commit, self.apply, self.keeper, *self.spool]
