"""APPEND: messages of a session on their way through the journal, like any delivery.

What can be refused is refused before: a mailbox that is not there, keywords it cannot have, a quota. Files given
along are removed then.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import apsw
from twisted.internet.defer import Deferred, succeed

from mailsrv.interfaces.content import FileContent
from mailsrv.interfaces.journal import Applied, IJournal, JournaledMessage, JournalRecord, LocalDelivery
from mailsrv.interfaces.mailbox import AppendedMessages, NewMessage, NoSuchMailbox, Uid
from mailsrv.store.index.rows import mailbox_by_name
from mailsrv.store.mailbox_name import check_keywords
from mailsrv.store.operation.copying import check_quota
from mailsrv.store.view import stored_flags

if TYPE_CHECKING:
    from mailsrv.store.mailboxes import AccountMailboxes


async def append(owner: AccountMailboxes, journal: IJournal, name: str, messages: list[NewMessage]) -> AppendedMessages:
    """Into the mailbox of this canonical name; the session sees them when this is over."""
    try:
        uid_validity = await owner.index.read_in_place(partial(_check, owner, name=name, messages=messages))
    except BaseException:
        await _discard(owner, messages)
        raise
    if not messages:
        return AppendedMessages(uid_validity, [])
    now = int(time.time())
    record = JournalRecord(
        tuple(
            JournaledMessage(
                message.content,
                (LocalDelivery(owner.account, name, message.flags),),
                now if message.internal_date is None else message.internal_date,
                message.date_offset_minutes,
            )
            for message in messages
        )
    )
    give_back = owner.allowance.promise(sum(message.content.size for message in messages))
    try:
        applied: Sequence[Applied] = await journal.commit_and_note(record)
    finally:
        give_back()
    for mailbox in owner.open_mailboxes:
        if mailbox.name == name and mailbox.highest_mod_seq < applied[-1].mod_seq:
            await mailbox.refresh()
    return AppendedMessages(applied[0].uid_validity, [Uid(one.uid) for one in applied])


def _check(owner: AccountMailboxes, connection: apsw.Connection, *, name: str, messages: list[NewMessage]) -> int:
    row = mailbox_by_name(connection, name)
    if row is None:
        raise NoSuchMailbox
    octet_limit, message_limit = owner.allowance.room()
    check_quota(
        connection, sum(message.content.size for message in messages), len(messages), octet_limit, message_limit
    )
    known = frozenset(row.known_keywords())
    for message in messages:
        words = stored_flags(message.flags)[1]
        if words:
            check_keywords(words.split(" "), known, owner.settings)
    return row.uid_validity


def _discard(owner: AccountMailboxes, messages: list[NewMessage]) -> Deferred[None]:
    """Files given with an append that is refused are ours to remove."""
    paths = [message.content.path for message in messages if isinstance(message.content, FileContent)]

    def discard() -> None:
        for path in paths:
            try:
                owner.files.disk.unlink(path)
            except OSError:
                continue

    return owner.threads.run(discard) if paths else succeed(None)
