"""STORE, and the file names that follow it later."""

from __future__ import annotations

from collections.abc import Sequence

from mailsrv.interfaces.mailbox import FlagOperation, FlagsStored, ModSeq, Uid
from mailsrv.store.flag_change import changed_flags
from mailsrv.store.index.rows import UID_MASK
from mailsrv.store.index.transaction import Transaction
from mailsrv.store.mailbox_name import check_keywords
from mailsrv.store.maildir import filename, keywords, layout
from mailsrv.store.operation.selection import selected

_UPDATE = "UPDATE message SET flags = ?, keywords = ?, mod_seq = ? WHERE id = ?"


def store_flags(
    transaction: Transaction,
    mailbox_id: int,
    uids: Sequence[int],
    *,
    operation: FlagOperation,
    bits: int,
    words: str,
    unchanged_since: int | None,
) -> FlagsStored:
    """Change flags in the index. A message that has them already keeps its mod-sequence."""
    row = transaction.mailbox_by_id(mailbox_id)
    if words and operation is not FlagOperation.REMOVE:
        check_keywords(words.split(" "), frozenset(row.known_keywords()), transaction.settings)
    updates: list[tuple[int, str, int, int]] = []
    modified: list[Uid] = []
    for message in selected(transaction, row, uids):
        if unchanged_since is not None and message.mod_seq > unchanged_since:
            modified.append(Uid(message.id & UID_MASK))
            continue
        after = changed_flags((message.flags, message.keywords), operation, bits, words)
        if after == (message.flags, message.keywords):
            continue
        transaction.count_flags(row, message.flags, after[0])
        transaction.learn_keywords(row, after[1])
        updates.append((*after, transaction.mod_seq(row), message.id))
    transaction.connection.executemany(_UPDATE, updates)
    changed = [Uid(update[3] & UID_MASK) for update in updates]
    return FlagsStored(ModSeq(row.operation_mod_seq or row.mod_seq), changed, modified)


def rename_files(transaction: Transaction, mailbox_id: int, uids: Sequence[int]) -> None:
    """Let file names show the flags that the index has. Nothing is lost where this does not happen."""
    row = transaction.mailbox_by_id(mailbox_id)
    path = transaction.path(row)
    known = row.known_keywords()
    renamed = []
    for message in selected(transaction, row, uids):
        wanted = file_for(message.file, message.flags, keywords.letters_of(message.keywords, known))
        if wanted == message.file:
            continue
        transaction.will_write(row)
        try:
            transaction.disk.rename(f"{path}/{message.file}", f"{path}/{wanted}")
        except FileNotFoundError:
            continue
        renamed.append((wanted, message.id))
    transaction.connection.executemany("UPDATE message SET file = ? WHERE id = ?", renamed)


def file_for(file: str, bits: int, letters: str) -> str:
    """The name for these flags; what is in ``cur`` stays there."""
    if file.startswith(f"{filename.CUR}/"):
        return f"{filename.CUR}/{filename.base_of(file)}{filename.INFO}{filename.letters_of(bits)}{letters}"
    return filename.format_file(filename.base_of(file), bits, letters)


def locate(transaction: Transaction, mailbox_id: int, uid: int) -> str | None:
    """The path of a message whose recorded name is not there; the name found is recorded. None: it is gone."""
    row = transaction.mailbox_by_id(mailbox_id)
    messages = selected(transaction, row, [uid])
    if not messages:
        return None
    path = transaction.path(row)
    file = layout.find_file(transaction.disk, path, messages[0].file)
    if file is None:
        return None
    if file != messages[0].file:
        transaction.connection.execute("UPDATE message SET file = ? WHERE id = ?", (file, messages[0].id))
    return f"{path}/{file}"
