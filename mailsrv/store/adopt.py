"""Files of another program that become messages.

A message's structure is not looked at before somebody asks for it; its size is, for it depends on line ends:
``size`` counts CRLF, ``stored`` what is on disk (R-SIZE-1). A file with a name of ours that is shorter than its
name says was never whole (its octets were not synced when the power went), and of several attempts at one
delivery only the last can have been told of: neither is adopted.
"""

from __future__ import annotations

import errno

from twisted.logger import Logger

from mailsrv.disk import opened
from mailsrv.interfaces.journal import DeliveryKey
from mailsrv.store.index import reservation
from mailsrv.store.index.rows import UID_MASK, MailboxRow, MessageRow, SummaryRow
from mailsrv.store.index.transaction import Transaction
from mailsrv.store.maildir import filename, keywords

_log = Logger()
_CHUNK = 1 << 20


def adopt(transaction: Transaction, row: MailboxRow, files: list[str], *, keep_uids: bool = False) -> int:
    """Files (``new/…`` or ``cur/…``) become messages, in the order of their names; how many.

    With ``keep_uids`` (a rebuild) a file keeps the UID its name tells, if no other has it.
    """
    path = transaction.path(row)
    meanings = row.known_keywords()
    if not meanings:
        meanings = keywords.read_keywords(transaction.disk, path)
        row.keywords = " ".join(meanings)
    mod_seq = transaction.mod_seq(row)
    taken: set[int] = set()
    ordered = sorted(_last_attempts(files), key=_arrival)
    if keep_uids:
        ordered.sort(key=lambda file: filename.parse_base(filename.base_of(file)).uid or UID_MASK)
    else:
        _jump_over_known_uids(transaction, row, ordered)
    count = 0
    for file in ordered:
        base = filename.base_of(file)
        parts = filename.parse_base(base)
        try:
            sizes = _sizes(transaction, f"{path}/{file}", parts)
        except OSError as error:
            if error.errno == errno.ENOENT:
                continue
            _log.warn("{path} cannot be read and is left out: {error}", path=f"{path}/{file}", error=error)
            continue
        stored, size, modified = sizes
        if parts.token is not None and parts.stored_octets is not None and stored < parts.stored_octets:
            # What the journal still has comes again from there. The rest stays as it is for the administrator.
            _log.warn(
                "{path} is cut off and left out: {stored} of {expected} octets",
                path=f"{path}/{file}",
                stored=stored,
                expected=parts.stored_octets,
            )
            continue
        if keep_uids and parts.uid is not None and parts.uid not in taken:
            uid = parts.uid
            row.uid_next = max(row.uid_next, uid + 1)
        else:
            uid = transaction.take_uid(row)
        taken.add(uid)
        name = file if parts.uid == uid else _rename_with_uid(transaction, path, file, uid)
        info = filename.info_of(name)
        words = keywords.keywords_of(filename.keyword_letters(info), meanings)
        key = filename.key_of(parts.token)
        octets = key.to_octets() if key is not None else None
        if octets is not None and (known_file := _file_of_key(transaction, octets)) is not None:
            if keep_uids and filename.base_of(known_file) != base:
                # A rebuild: another attempt at a delivery that another mailbox has. The next scan removes it.
                continue
            octets = None
        elif octets is not None and _is_key_expunged(transaction, octets):
            octets = None
        message_id = row.first_id | uid
        date = _arrival(file)[0] if parts.token is not None else modified // 1_000_000_000
        transaction.add_message(
            row,
            MessageRow(message_id, mod_seq, filename.bits_of(info), words, size, stored, name, octets, ""),
            SummaryRow(message_id, size, date, 0, 0, None, None, None, None, -1, f"M{row.uid_validity:x}-{uid:x}"),
        )
        count += 1
    transaction.flush_messages()
    return count


def _jump_over_known_uids(transaction: Transaction, row: MailboxRow, files: list[str]) -> None:
    """A name of ours with a UID beyond the counter says that this index is older than the mail (a restored copy)."""
    told = [
        parts.uid
        for parts in (filename.parse_base(filename.base_of(file)) for file in files)
        if parts.token is not None and parts.uid is not None
    ]
    highest = max(told, default=0)
    if highest >= max(row.uid_next, row.uid_reserved):
        _log.warn("{path}: the index is older than the mail, UIDs jump ahead", path=transaction.path(row))
        reservation.jump(row, transaction.settings.recovery_jump, highest)
        row.operation_mod_seq = 0
        transaction.mod_seq(row)


def _last_attempts(files: list[str]) -> list[str]:
    """Of several files named for one delivery the one with the greatest UID: each attempt takes a later one."""
    chosen: dict[DeliveryKey, tuple[int, str]] = {}
    others = []
    for file in files:
        parts = filename.parse_base(filename.base_of(file))
        key = filename.key_of(parts.token)
        if key is None:
            others.append(file)
        else:
            chosen[key] = max(chosen.get(key, (0, "")), (parts.uid or 0, file))
    return [*others, *(file for _, file in chosen.values())]


def _file_of_key(transaction: Transaction, key: bytes) -> str | None:
    found = transaction.connection.execute("SELECT file FROM message WHERE delivery_key = ?", (key,)).fetchone()
    return found[0] if found is not None else None


def _is_key_expunged(transaction: Transaction, key: bytes) -> bool:
    found = transaction.connection.execute("SELECT 1 FROM tombstone WHERE delivery_key = ?", (key,)).fetchone()
    return found is not None


def _arrival(file: str) -> tuple[int, str]:
    base = filename.base_of(file)
    digits = base.partition(".")[0]
    return (int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 16 else 0, base)


def _sizes(transaction: Transaction, path: str, parts: filename.NameParts) -> tuple[int, int, int]:
    """Octets on disk, octets with CRLF, mtime in ns. A name that tells both is believed if the first is right."""
    status = transaction.disk.status(path)
    if status is None:
        raise FileNotFoundError(errno.ENOENT, "gone", path)
    if parts.size_octets is not None and parts.stored_octets == status.size:
        return status.size, parts.size_octets, status.modified_ns
    bare = 0
    offset = 0
    last = b""
    with opened(transaction.disk.open(path)) as file:
        while chunk := file.read(offset, _CHUNK):
            bare += chunk.count(b"\n") - chunk.count(b"\r\n")
            if last == b"\r" and chunk[:1] == b"\n":
                bare -= 1
            last = chunk[-1:]
            offset += len(chunk)
    return offset, offset + bare, status.modified_ns


def _rename_with_uid(transaction: Transaction, path: str, file: str, uid: int) -> str:
    """Give the name its ``U=``; the name as it then is."""
    directory, _, name = file.partition("/")
    base, colon, info = name.partition(":")
    renamed = f"{directory}/{filename.with_uid(base, uid)}{colon}{info}"
    try:
        transaction.disk.rename(f"{path}/{file}", f"{path}/{renamed}")
    except OSError:
        # A folder we may not write to, or a name that would be too long: only a lost index would miss it.
        return file
    return renamed
