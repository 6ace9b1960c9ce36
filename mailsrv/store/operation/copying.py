"""COPY and MOVE by hard links, in the order that survives a crash (DESIGN 5.6).

Links are made and their directories synced, the commit names them, and only then are the sources
of a MOVE unlinked. Octets that no checkpoint has synced yet are synced first: the journal would restore
the source alone, and not even that after a MOVE has left a tombstone for its key. A copy that was
never committed is a file with the name of a copy: the next
scan removes it, for its octets are in the source.
"""

# ruff: noqa: S608 (only names of columns and numbers of ours are put into statements; values are bound)

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Callable, Collection, Sequence
from functools import partial

import apsw
from attrs import frozen

from mailsrv.disk import opened
from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.mailbox import CopiedMessages, OverQuota, Uid
from mailsrv.store.index.connection import open_connection
from mailsrv.store.index.rows import SUMMARY_COLUMNS, UID_MASK, MailboxRow, MessageRow, SummaryRow, mailbox_by_id
from mailsrv.store.index.transaction import Transaction
from mailsrv.store.mailbox_name import canonical_name
from mailsrv.store.maildir import filename, keywords, layout
from mailsrv.store.operation.selection import read_messages, selected

_CANNOT_LINK = frozenset({errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP})
_CHUNK = 1 << 20
_SYNCED_ONE_BY_ONE = 16
"""More messages are synced all at once, with whatever else the file system owes: one by one, thousands take minutes."""
_SUMMARY = f"SELECT {SUMMARY_COLUMNS} FROM summary WHERE id = ?"
_numbers = itertools.count()
_process = os.urandom(8)


def usage(connection: apsw.Connection) -> tuple[int, int]:
    """Octets and messages of the account."""
    found = connection.execute("SELECT total(octets), total(messages) FROM mailbox").fetchone()
    return (int(found[0]), int(found[1])) if found is not None else (0, 0)


def check_quota(
    connection: apsw.Connection, octets: int, messages: int, octet_limit: int | None, message_limit: int | None
) -> None:
    """Raise OverQuota where so much more would not fit."""
    if octet_limit is None and message_limit is None:
        return
    used_octets, used_messages = usage(connection)
    if octet_limit is not None and used_octets + octets > octet_limit:
        raise OverQuota
    if message_limit is not None and used_messages + messages > message_limit:
        raise OverQuota


def copy(
    transaction: Transaction,
    mailbox_id: int,
    uids: Sequence[int],
    destination: str,
    *,
    is_move: bool,
    octet_limit: int | None = None,
    message_limit: int | None = None,
    live_segments: Callable[[], Collection[bytes]] | None = None,
) -> CopiedMessages:
    """All or none; a source whose file another program removed is passed over. Raises NoSuchMailbox, OverQuota.

    ``live_segments`` names the journal segments whose deliveries may still be unsynced; None: all may be.
    """
    source = transaction.mailbox_by_id(mailbox_id)
    target = transaction.mailbox(canonical_name(destination))
    messages = selected(transaction, source, uids)
    if not is_move:
        _check_room(transaction, messages, octet_limit, message_limit)
    return copy_rows(transaction, source, target, messages, is_move=is_move, live_segments=live_segments)


@frozen
class Elsewhere:
    """A mailbox of another account."""

    index_path: str
    root: str
    mailbox_id: int
    uid_validity: int


def copy_from(
    transaction: Transaction,
    source: Elsewhere,
    uids: Sequence[int],
    destination: str,
    *,
    octet_limit: int | None = None,
    message_limit: int | None = None,
    live_segments: Callable[[], Collection[bytes]] | None = None,
) -> CopiedMessages:
    """As :func:`copy`, into the account of the transaction from another one.

    The other index is read by a connection of our own: to wait for that account's locks while holding ours could
    last for ever, should somebody copy the other way. Its damage is no damage of ours: it is Unavailable.
    """
    target = transaction.mailbox(canonical_name(destination))
    with contextlib.ExitStack() as stack:
        try:
            connection = open_connection(source.index_path, transaction.settings.busy_seconds)
            stack.callback(connection.close)
            connection.execute("BEGIN")
            row = mailbox_by_id(connection, source.mailbox_id)
            if row is None or row.uid_validity != source.uid_validity:
                return CopiedMessages(target.uid_validity, [], [])
            messages = read_messages(connection, row, uids)
        except apsw.Error as error:
            raise Unavailable(cause=f"{source.index_path}: {error}") from error

        def summary_of(message: MessageRow) -> SummaryRow:
            try:
                return read_summary(connection, message)
            except apsw.Error as error:
                raise Unavailable(cause=f"{source.index_path}: {error}") from error

        _check_room(transaction, messages, octet_limit, message_limit)
        path = layout.join(source.root, row.directory)
        copied, made = _copy_into(
            transaction, path, target, messages, summary_of=summary_of, live_segments=live_segments, is_elsewhere=True
        )
    return CopiedMessages(target.uid_validity, [Uid(message.id & UID_MASK) for message in copied], made)


def read_summary(connection: apsw.Connection, message: MessageRow) -> SummaryRow:
    """What is known of a message; every one has a row."""
    found = connection.execute(_SUMMARY, (message.id,)).fetchone()
    if found is None:
        raise apsw.CorruptError(f"message {message.id} has no summary")
    return SummaryRow(*found)


def _check_room(
    transaction: Transaction, messages: Sequence[MessageRow], octet_limit: int | None, message_limit: int | None
) -> None:
    transaction.flush()
    octets = sum(message.size for message in messages)
    check_quota(transaction.connection, octets, len(messages), octet_limit, message_limit)


def copy_rows(
    transaction: Transaction,
    source: MailboxRow,
    target: MailboxRow,
    messages: list[MessageRow],
    *,
    is_move: bool,
    live_segments: Callable[[], Collection[bytes]] | None = None,
) -> CopiedMessages:
    """The copies, with flags, dates and what is known of their structure."""
    path = transaction.path(source)
    copied, made = _copy_into(
        transaction,
        path,
        target,
        messages,
        summary_of=partial(read_summary, transaction.connection),
        live_segments=live_segments,
    )
    if is_move and copied:
        transaction.remove_messages(source, copied, is_unlinked=False)
    return CopiedMessages(target.uid_validity, [Uid(message.id & UID_MASK) for message in copied], made)


def _copy_into(
    transaction: Transaction,
    source_path: str,
    target: MailboxRow,
    messages: list[MessageRow],
    *,
    summary_of: Callable[[MessageRow], SummaryRow],
    live_segments: Callable[[], Collection[bytes]] | None,
    is_elsewhere: bool = False,
) -> tuple[list[MessageRow], list[Uid]]:
    """What was copied and the UIDs it got.

    Octets that are not synced yet are, with the link; of another account (``is_elsewhere``) before it: a replay
    must have no reason to write the source anew, as this account's scans cannot see that a link is left over then.
    """
    unsynced = _unsynced(messages, live_segments)
    owed = unsynced
    if len(unsynced) > _SYNCED_ONE_BY_ONE and transaction.disk.sync_file_system(source_path):
        owed = frozenset()
    copied: list[MessageRow] = []
    made: list[Uid] = []
    if messages:
        transaction.will_write(target)
        mod_seq = transaction.mod_seq(target)
        known = _keywords_for(transaction, target, messages)
    for message in messages:
        uid = transaction.take_uid(target)
        file = _link(
            transaction,
            source_path,
            target,
            message,
            uid=uid,
            letters=keywords.letters_of(message.keywords, known),
            source_key=_source_key(message, is_unsynced=message.id in unsynced, is_elsewhere=is_elsewhere),
            is_synced_first=is_elsewhere and message.id in owed,
        )
        if file is None:
            continue
        if message.id in owed and not is_elsewhere:
            with opened(transaction.disk.open(f"{transaction.path(target)}/{file}")) as linked:
                linked.sync()
        new_id = target.first_id | uid
        transaction.add_message(
            target,
            message._replace(id=new_id, mod_seq=mod_seq, file=file, delivery_key=None),
            summary_of(message)._replace(id=new_id),
        )
        copied.append(message)
        made.append(Uid(uid))
    return copied, made


def _source_key(message: MessageRow, *, is_unsynced: bool, is_elsewhere: bool) -> bytes:
    if is_elsewhere:
        return filename.FROM_ELSEWHERE
    return (message.delivery_key or b"") if is_unsynced else b""


def _unsynced(messages: list[MessageRow], live_segments: Callable[[], Collection[bytes]] | None) -> frozenset[int]:
    """Ids of those whose octets may be on disk in the journal only."""
    keys = {message.id: message.delivery_key for message in messages if message.delivery_key is not None}
    if not keys or live_segments is None:
        return frozenset(keys)
    try:
        live = live_segments()
    except MailError:
        return frozenset(keys)
    return frozenset(message_id for message_id, key in keys.items() if key[:16] in live)


def _keywords_for(transaction: Transaction, target: MailboxRow, messages: list[MessageRow]) -> list[str]:
    for words in {message.keywords for message in messages}:
        transaction.learn_keywords(target, words)
    return target.known_keywords()


def _link(
    transaction: Transaction,
    source_path: str,
    target: MailboxRow,
    message: MessageRow,
    *,
    uid: int,
    letters: str,
    source_key: bytes,
    is_synced_first: bool,
) -> str | None:
    disk = transaction.disk
    # A replay writes the source anew: then no second link tells that it is there.
    token = filename.token_of("C", _process + next(_numbers).to_bytes(8, "big") + source_key)
    seconds = filename.base_of(message.file).partition(".")[0]
    base = filename.format_base(
        int(seconds) if seconds.isascii() and seconds.isdigit() else 0, token, message.stored, message.size, uid
    )
    file = filename.format_file(base, message.flags, letters)
    target_path = transaction.path(target)
    for attempt in range(3):
        try:
            if is_synced_first:
                with opened(disk.open(f"{source_path}/{message.file}")) as octets:
                    octets.sync()
            _link_or_copy(transaction, f"{source_path}/{message.file}", target_path, file)
        except FileNotFoundError:
            if attempt == 0 and not layout.is_complete(disk, target_path):
                transaction.make_mailbox(target)
                transaction.to_sync.update(transaction.touched)
                continue
            name = layout.find_file(disk, source_path, message.file)
            if name is None:
                return None
            message = message._replace(file=name)
        else:
            transaction.undo(f"{target_path}/{file}")
            transaction.to_sync.add(f"{target_path}/{file.partition('/')[0]}")
            return file
    return None


def _link_or_copy(transaction: Transaction, source: str, target_path: str, file: str) -> None:
    disk = transaction.disk
    try:
        disk.link(source, f"{target_path}/{file}")
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        temporary = f"{target_path}/{layout.TMP}/{filename.base_of(file)}"
        try:
            with opened(disk.open(source)) as old, opened(disk.create(temporary)) as new:
                offset = 0
                while chunk := old.read(offset, _CHUNK):
                    offset += new.write(offset, [chunk])
                new.sync()
            disk.rename(temporary, f"{target_path}/{file}")
        except OSError:
            # A full disk needs the room of what did not fit.
            with contextlib.suppress(OSError):
                disk.unlink(temporary)
            raise
