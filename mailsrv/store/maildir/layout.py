"""The folders of a mailbox and of an account: making, listing, cleaning, removing.

A mailbox's own file ``mailsrv-mailbox`` repeats what a lost index could not be rebuilt without:
its UIDVALIDITY and special use.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence

from attrs import frozen
from twisted.logger import Logger

from mailsrv.disk import IDisk, opened
from mailsrv.store.maildir.filename import CUR, NEW, OUR_MARK, base_of, readable_name

_log = Logger()

TMP = "tmp"
IDENTITY = "mailsrv-mailbox"
MAILDIRFOLDER = "maildirfolder"
"""Marks a Maildir++ folder for other programs."""


@frozen
class Identity:
    """What ``mailsrv-mailbox`` holds."""

    uid_validity: int
    special_use: str = ""


def join(root: str, directory: str) -> str:
    """The path of a mailbox; ``directory`` is "" for INBOX."""
    return f"{root}/{directory}" if directory else root


def make_missing(disk: IDisk, path: str) -> list[str]:
    """``path`` with its parents, unsynced; the directories whose contents changed."""
    missing = []
    at = path
    while at not in ("", "/") and disk.status(at) is None:
        missing.append(at)
        at = os.path.dirname(at)
    for one in reversed(missing):
        with contextlib.suppress(FileExistsError):
            disk.make_directory(one)
    return [os.path.dirname(one) for one in reversed(missing)]


def make_mailbox(disk: IDisk, path: str, identity: Identity, *, is_inbox: bool) -> list[str]:
    """cur, new and tmp, unsynced; the directories whose contents changed."""
    changed = make_missing(disk, path)
    for part in (CUR, NEW, TMP):
        with contextlib.suppress(FileExistsError):
            disk.make_directory(f"{path}/{part}")
    if not is_inbox:
        with contextlib.suppress(FileExistsError):
            disk.create(f"{path}/{MAILDIRFOLDER}").close()
    write_identity(disk, path, identity)
    return [*changed, path]


def is_begun(disk: IDisk, path: str) -> bool:
    """Whether a mailbox is there, if only in part: a power cut may take any of its folders."""
    return any(disk.status(f"{path}/{part}") is not None for part in (CUR, NEW))


def is_complete(disk: IDisk, path: str) -> bool:
    """Whether nothing is left to make."""
    return all(disk.status(f"{path}/{part}") is not None for part in (CUR, NEW, TMP))


def write_identity(disk: IDisk, path: str, identity: Identity) -> None:
    """Replace ``mailsrv-mailbox``, unsynced."""
    temporary = f"{path}/{IDENTITY}.new"
    with opened(disk.open_or_create(temporary)) as file:
        file.truncate(0)
        file.write(0, [f"1 {identity.uid_validity} {identity.special_use}\n".encode()])
    disk.rename(temporary, f"{path}/{IDENTITY}")


def read_identity(disk: IDisk, path: str) -> Identity | None:
    """What ``mailsrv-mailbox`` holds; None where it is missing or not ours."""
    try:
        with opened(disk.open(f"{path}/{IDENTITY}")) as file:
            words = file.read(0, 200).decode("ascii", "replace").split()
    except OSError:
        return None
    if len(words) < 2 or words[0] != "1" or not words[1].isdigit() or not 0 < int(words[1]) < 1 << 32:
        return None
    return Identity(int(words[1]), words[2] if len(words) > 2 else "")


def list_messages(disk: IDisk, path: str) -> dict[str, str]:
    """Every message: base → ``new/name`` or ``cur/name``. Missing folders are empty."""
    found: dict[str, str] = {}
    for part in (NEW, CUR):
        try:
            entries = disk.list_directory(f"{path}/{part}")
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            name = entry.name
            # While a program moves a file from new to cur a listing may show both: cur is later.
            if name[0] != "." and not entry.is_directory:
                found[name.partition(":")[0]] = f"{part}/{name}"
    return found


def list_readable_messages(disk: IDisk, path: str) -> dict[str, str]:
    """The same list for the index, which keeps UTF-8 only: files with other names get names it can keep."""
    readable: dict[str, str] = {}
    for base, file in list_messages(disk, path).items():
        name = readable_name(file)
        if name == file:
            readable[base] = file
            continue
        try:
            if disk.status(f"{path}/{name}") is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
            disk.rename(f"{path}/{file}", f"{path}/{name}")
        except OSError as error:
            _log.warn("{path}/{name} cannot be renamed and is left out: {error}", path=path, name=name, error=error)
        else:
            readable[base_of(name)] = name
    return readable


def modified_times(disk: IDisk, path: str) -> tuple[int, int]:
    """Mtime of new and cur in nanoseconds, 0 where missing."""
    new, cur = disk.status(f"{path}/{NEW}"), disk.status(f"{path}/{CUR}")
    return new.modified_ns if new else 0, cur.modified_ns if cur else 0


def clean_temporary(disk: IDisk, path: str, before_ns: int) -> int:
    """Remove our files in tmp whose last change lies before ``before_ns``; how many."""
    removed = 0
    directory = f"{path}/{TMP}"
    try:
        entries: Sequence[str] = [entry.name for entry in disk.list_directory(directory) if OUR_MARK in entry.name]
    except (FileNotFoundError, NotADirectoryError):
        return 0
    for name in entries:
        status = disk.status(f"{directory}/{name}")
        if status is not None and not status.is_directory and status.changed_ns < before_ns:
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(f"{directory}/{name}")
                removed += 1
    return removed


def remove_mailbox(disk: IDisk, path: str) -> None:
    """The folder with its messages. Other folders in it, which Maildir++ does not make, keep it in place."""
    for part in (CUR, NEW, TMP):
        _remove_files(disk, f"{path}/{part}")
        with contextlib.suppress(OSError):
            disk.remove_directory(f"{path}/{part}")
    _remove_files(disk, path)
    with contextlib.suppress(OSError):
        disk.remove_directory(path)


def _remove_files(disk: IDisk, path: str) -> None:
    try:
        entries = disk.list_directory(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if not entry.is_directory:
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(f"{path}/{entry.name}")


def find_file(disk: IDisk, path: str, file: str) -> str | None:
    """Where the message recorded as ``file`` stands now, whatever its flags; None where it is gone."""
    return list_messages(disk, path).get(base_of(file))
