"""Mailboxes of others: who asks for the rights, by the rules of the policy that holds now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mailsrv.app.storage import Storage
from mailsrv.directory.mailbox_rights import MailboxRights
from mailsrv.sharing.rights_watch import FindShared, RightsWatch
from mailsrv.sharing.settings import SharingSettings


def make_rights_watch(
    settings: SharingSettings, storage: Storage, rights: Callable[[], MailboxRights], clock: Any
) -> RightsWatch:
    """``rights`` answers with those of the policy in force."""

    def find() -> FindShared | None:
        held = rights()
        return held.find if held.has_rules else None

    return RightsWatch(settings, storage.store, find, clock, discard=storage.journal.spool.discard)
