"""COPY and MOVE of a session on their way into a write transaction of the account they go to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from mailsrv.interfaces.mailbox import CopiedMessages, Uid
from mailsrv.store.operation import copying

if TYPE_CHECKING:
    from mailsrv.store.mailbox import StoredMailbox
    from mailsrv.store.mailboxes import AccountMailboxes


def copy_within(
    owner: AccountMailboxes, mailbox_id: int, uids: Sequence[Uid], destination: str, *, is_move: bool
) -> Deferred[CopiedMessages]:
    """To a mailbox of the same account."""
    octet_limit, message_limit = owner.allowance.room()
    return owner.write(
        partial(
            copying.copy,
            mailbox_id=mailbox_id,
            uids=list(uids),
            destination=destination,
            is_move=is_move,
            octet_limit=octet_limit,
            message_limit=message_limit,
            live_segments=owner.live_segments,
        )
    )


def copy_between(
    owner: AccountMailboxes, source: StoredMailbox, uids: Sequence[Uid], destination: str
) -> Deferred[CopiedMessages]:
    """From a mailbox of another account to one of ``owner``'s."""
    octet_limit, message_limit = owner.allowance.room()
    return owner.write(
        partial(
            copying.copy_from,
            source=source.place,
            uids=list(uids),
            destination=destination,
            octet_limit=octet_limit,
            message_limit=message_limit,
            live_segments=owner.live_segments,
        )
    )
