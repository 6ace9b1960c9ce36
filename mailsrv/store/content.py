"""Messages opened for reading, always with CRLF line ends (R-SIZE-1).

A file that another program stored with bare LF is never changed; it is converted while it is
read: in memory when it is loaded whole, into a nameless temporary file when it is large.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailsrv.disk import IDisk, IDiskFile
from mailsrv.interfaces.content import IContent
from mailsrv.opened_content import LoadedContent, OpenedContent
from mailsrv.store.threads import IThreads

_CHUNK = 1 << 20


def with_crlf(octets: bytes) -> bytes:
    """Every line end as CRLF; lone CRs stay."""
    if octets.count(b"\n") == octets.count(b"\r\n"):
        return octets
    return octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def open_content(
    disk: IDisk, path: str, *, stored: int, size: int, temporary_directory: str, threads: IThreads, load_octets: int
) -> LoadedContent | OpenedContent:
    """Open a message; whole where it has at most ``load_octets``. In a thread.

    Raises FileNotFoundError, and OSError where the file has not the size the index knows.
    """
    file = disk.open(path)
    try:
        if file.size() != stored:
            raise OSError(f"{path} has {file.size()} octets, not {stored}")
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
