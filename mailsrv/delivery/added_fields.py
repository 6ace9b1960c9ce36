"""Fields that a MESSAGE filter adds to a message that is complete: above everything but the Return-Path.

A message in memory is joined anew. One in a file is written anew, in pieces: the first file was
synced and may not be changed (its checksum is known), and nobody has been told of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from mailsrv.errors import Unavailable
from mailsrv.interfaces.content import Content, FileContent, InlineContent, ISpool, ISpoolWriter
from mailsrv.interfaces.filter import AddHeader
from mailsrv.message import format_field

PIECE_OCTETS = 262144

RunInThread = Callable[..., Deferred[Any]]
"""Like ``twisted.internet.threads.deferToThread``: a function and its arguments."""


def format_added(headers: tuple[AddHeader, ...]) -> bytes:
    """The fields as octets. The pipeline has checked them."""
    return b"".join(format_field(header.name.encode("ascii"), header.value.encode()) for header in headers)


async def with_fields(
    content: Content, fields: bytes, position: int, spool: ISpool, run_in_thread: RunInThread
) -> Content:
    """The content with ``fields`` put in at ``position``. Takes ``content`` over, also where it fails."""
    if isinstance(content, InlineContent):
        return InlineContent(content.octets[:position] + fields + content.octets[position:])
    try:
        return await copy_with_fields(content, fields, position, spool, run_in_thread)
    finally:
        spool.discard(content)


async def copy_with_fields(
    content: Content, fields: bytes, position: int, spool: ISpool, run_in_thread: RunInThread
) -> Content:
    """A second content with ``fields`` put in at ``position``; ``content`` stays its owner's."""
    if isinstance(content, InlineContent):
        return InlineContent(content.octets[:position] + fields + content.octets[position:])
    writer = spool.begin()
    try:
        await _rewrite(content, fields, position, writer, run_in_thread)
    except OSError as error:
        writer.abort()
        raise Unavailable(cause=f"spool file: {error}") from error
    except BaseException:
        writer.abort()
        raise
    return await writer.finish()


async def _rewrite(
    content: FileContent, fields: bytes, position: int, writer: ISpoolWriter, run_in_thread: RunInThread
) -> None:
    offset = 0
    while offset < content.size:
        count = position if offset < position else PIECE_OCTETS
        octets = await run_in_thread(read_piece, content.path, offset, count)
        if not octets:
            raise OSError("the file is shorter than it was")
        offset += len(octets)
        pause = writer.write(octets + fields if offset == position else octets)
        if pause is not None:
            await pause


def read_piece(path: str, offset: int, count: int) -> bytes:
    """For threads."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(count)
