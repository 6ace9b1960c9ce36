"""A delivery that was put aside, tried again because the administrator says so."""

from __future__ import annotations

import os

from attrs import frozen

from mailsrv.errors import MailError
from mailsrv.interfaces.content import FileContent
from mailsrv.interfaces.journal import Applied, IApplier
from mailsrv.journal.checkpoint import Checkpoints
from mailsrv.journal.stages import Stages
from mailsrv.journal.stuck import StuckFolder


@frozen
class RetriedDelivery:
    """What ``retry_stuck`` did with one of them."""

    name: str
    is_delivered: bool
    error: str = ""


def retry_stuck(
    name: str, stuck: StuckFolder, stages: Stages, checkpoints: Checkpoints, applier: IApplier
) -> RetriedDelivery:
    """Deliver it under its old key; its file goes when the mail is durable in the mailbox. In the apply thread."""
    pending = stuck.load(name, stages.slot.spool_directory)
    if pending is None:
        return RetriedDelivery(name, False, "no such file, or it is damaged")
    begun = checkpoints.failures
    try:
        (answer,) = applier.apply([pending])
        if not isinstance(answer, Applied):
            return RetriedDelivery(name, False, answer.error.text)
        try:
            checkpoints.sync(applier.take_touched(), begun=begun)
        except (OSError, MailError) as error:
            applier.checkpoint_failed([pending.key])
            stages.keeper.other_sync_failed()
            text = error.text if isinstance(error, MailError) else os.strerror(error.errno or 0)
            return RetriedDelivery(name, False, text)
        stuck.remove(name)
    finally:
        if isinstance(pending.message.content, FileContent):
            stages.slot.remove_spool_file(pending.message.content.path)
    return RetriedDelivery(name, True)
