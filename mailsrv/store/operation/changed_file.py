"""A message whose file is not what it was: another program wrote into it, or put another one under its name.

What a client was told of a UID holds for good (RFC 3501 2.3.1.1): the message of that UID is gone, and what the file
holds now is a new one, which keeps flags and date. The file gets a name that tells nothing of a delivery or a size.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from mailsrv.interfaces.journal import DeliveryKey
from mailsrv.interfaces.mailbox import Uid, UnreadableMessage
from mailsrv.store.adopt import adopt
from mailsrv.store.index.rows import UID_MASK, MailboxRow, MessageRow
from mailsrv.store.index.transaction import Transaction
from mailsrv.store.maildir import filename, keywords
from mailsrv.store.operation.selection import selected

_log = Logger()
_DATES = "SELECT internal_date, date_offset FROM summary WHERE id = ?"
_SET_DATES = "UPDATE summary SET internal_date = ?, date_offset = ? WHERE id = ?"


def take_as_new(
    transaction: Transaction, mailbox_id: int, uid: int, live_segments: Callable[[], frozenset[bytes]] | None
) -> None:
    """Make a new message of what stands in a message's file, where that has another size than the index knows.

    Raises UnreadableMessage where the journal still has the message as it was: a crash may have cut the file off, and
    a replay puts it back.
    """
    row = transaction.mailbox_by_id(mailbox_id)
    messages = selected(transaction, row, [uid])
    status = transaction.disk.status(f"{transaction.path(row)}/{messages[0].file}") if messages else None
    if status is None or status.size == messages[0].stored:
        return
    [message] = messages
    if message.delivery_key is not None and (
        live_segments is None or DeliveryKey.from_octets(message.delivery_key).segment_id in live_segments()
    ):
        cause = f"{message.file} has {status.size} octets, not {message.stored}"
        _log.error(
            "message {uid} in {mailbox} cannot be read yet: {cause}",
            uid=uid,
            mailbox=transaction.path(row),
            cause=cause,
        )
        raise UnreadableMessage(Uid(uid), cause)
    _log.warn(
        "{mailbox}: another program changed {file}, which is a new message now",
        mailbox=transaction.path(row),
        file=message.file,
    )
    _make_new(transaction, row, message)


def _make_new(transaction: Transaction, row: MailboxRow, message: MessageRow) -> None:
    connection, path = transaction.connection, transaction.path(row)
    dates = connection.execute(_DATES, (message.id,)).fetchall()
    transaction.will_write(row)
    transaction.remove_messages(row, [message], is_unlinked=True)
    file = filename.format_file(
        filename.changed_base(message.file, row.uid_validity, message.id & UID_MASK),
        message.flags,
        keywords.letters_of(message.keywords, row.known_keywords()),
    )
    transaction.disk.rename(f"{path}/{message.file}", f"{path}/{file}")
    # Should a crash undo this after the commit, a scan would take the old name for a file to be removed.
    for directory in {message.file[:3], file[:3]}:
        transaction.disk.sync_directory(f"{path}/{directory}")
    if adopt(transaction, row, [file]):
        new = row.first_id | (row.uid_next - 1)
        connection.executemany(_SET_DATES, [(*found, new) for found in dates])
    transaction.save(row)
