"""Messages opened for reading, always with CRLF line ends (R-SIZE-1).

A file that another program stored with bare LF is never changed; it is converted while it is
read: in memory when it is loaded whole, into a nameless temporary file when it is large.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from mailsrv.disk import IDisk, IDiskFile
from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.mailbox import Uid, UnreadableMessage
from mailsrv.opened_content import LoadedContent, OpenedContent
from mailsrv.store.account import Account
from mailsrv.store.maildir import layout
from mailsrv.store.settings import StoreSettings
from mailsrv.store.threads import IThreads

_CHUNK = 1 << 20
_log = Logger()


class ChangedFile(OSError):
    """A file that has another size than the index knows."""


def with_crlf(octets: bytes) -> bytes:
    """Every line end as CRLF; lone CRs stay."""
    if octets.count(b"\n") == octets.count(b"\r\n"):
        return octets
    return octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def open_content(
    disk: IDisk, path: str, *, stored: int, size: int, temporary_directory: str, threads: IThreads, load_octets: int
) -> LoadedContent | OpenedContent:
    """Open a message; whole where it has at most ``load_octets``. In a thread.

    Raises FileNotFoundError, ChangedFile and other OSErrors.
    """
    file = disk.open(path)
    try:
        if file.size() != stored:
            raise ChangedFile(f"{path} has {file.size()} octets, not {stored}")
        if stored <= load_octets:
            octets = file.read(0, stored)
            if stored != size:
                octets = with_crlf(octets)
            file.close()
            return LoadedContent(octets)
        if stored != size:
            converted = _converted(disk, file, temporary_directory)
            file.close()
            return OpenedContent(converted, size, threads.run)
        return OpenedContent(file, size, threads.run)
    except BaseException:
        file.close()
        raise


def open_contents(
    files: Account, mailbox_id: int, uids: Sequence[int], *, settings: StoreSettings, threads: IThreads
) -> tuple[list[IContent | None], list[int]]:
    """What could be opened of a mailbox, and the places of those whose file was not there as it was. In a thread.

    Raises UnreadableMessage.
    """
    with files.reading() as reader:
        place = reader.execute("SELECT directory FROM mailbox WHERE id = ?", (mailbox_id,)).fetchone()
        if place is None:
            return [None] * len(uids), []
        rows = [
            reader.execute("SELECT file, stored, size FROM message WHERE id = ?", (mailbox_id << 32 | uid,)).fetchone()
            for uid in uids
        ]
    path = layout.join(files.root, place[0])
    opened: list[IContent | None] = []
    lost: list[int] = []
    budget = settings.load_octets
    try:
        for at, row in enumerate(rows):
            content: LoadedContent | OpenedContent | None = None
            if row is not None:
                file, stored, size = row
                load = min(settings.load_message_octets, budget)
                try:
                    content = open_content(
                        files.disk,
                        f"{path}/{file}",
                        stored=stored,
                        size=size,
                        temporary_directory=path,
                        threads=threads,
                        load_octets=load,
                    )
                except (FileNotFoundError, ChangedFile):
                    lost.append(at)
                except OSError as error:
                    # The path is in the error's text.
                    _log.error(
                        "message {uid} in {mailbox} of {account} cannot be read: {error}",
                        uid=uids[at],
                        mailbox=place[0],
                        account=files.name,
                        error=str(error),
                    )
                    raise UnreadableMessage(Uid(uids[at]), str(error)) from error
                else:
                    budget -= stored if content.octets is not None else 0
            opened.append(content)
    except BaseException:
        close_all(opened)
        raise
    return opened, lost


def _converted(disk: IDisk, file: IDiskFile, temporary_directory: str) -> IDiskFile:
    target = disk.create_temporary(temporary_directory)
    try:
        read = written = 0
        held = b""
        while chunk := file.read(read, _CHUNK):
            read += len(chunk)
            octets = held + chunk
            # A CR at the end may belong to an LF that the next piece begins with.
            held = b"\r" if octets.endswith(b"\r") else b""
            converted = with_crlf(octets[: len(octets) - len(held)])
            written += target.write(written, [converted])
        if held:
            target.write(written, [held])
    except BaseException:
        target.close()
        raise
    return target


def close_all(contents: Sequence[IContent | None]) -> None:
    """Close what was opened."""
    for content in contents:
        if content is not None:
            content.close()
