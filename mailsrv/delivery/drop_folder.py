"""The folder in which ``mailsrv-sendmail`` leaves mail while the server is down.

Anybody may put files in, nobody but the server may list it (mode 1733): a name with 128 random bits is known to who
made it alone. Who a file is from is said by the file system (its owner), never by its content.

A file has its final name before it is written and ends in a checksum over all of it; it is synced before the
command says that it has the message. So a torn file is no message, and a whole one is never lost. Layout: a magic
line, then two strings each after its length (8 octets, big-endian): the envelope as JSON and the content; last
the BLAKE2b checksum. Content has CRLF line ends.

Everything here waits for the disk: for threads and commands.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Collection, Sequence

from attrs import field, frozen

from mailsrv.address import Address, AddressError, parse_mailbox
from mailsrv.disk import sync_directory
from mailsrv.interfaces.envelope import BodyType, Notify, RecipientParameters, ReturnContent
from mailsrv.wire.line_breaks import has_bare_line_break

MODE = 0o1733
CORRUPT = "corrupt"
"""The folder in it for what cannot be read. Never deleted."""
_SUFFIX = ".mail"
_MAGIC = b"mailsrv-drop 1\n"
_DIGEST_OCTETS = 32
_ENVELOPE_OCTETS = 4 * 1024 * 1024
TORN_SECONDS = 3600.0
"""A file that is not whole may still be written for so long."""
_SPARE_OCTETS = _ENVELOPE_OCTETS + 4096
# RFC 3461 4.4 and 4.2, as an SMTP session holds them to it.
_ENVELOPE_ID = re.compile(r"[ -~]{0,100}")
_ORIGINAL_RECIPIENT = re.compile(r"(?:[A-Za-z0-9-]{1,40};[^;].{0,498})?")
_NOTIFY = frozenset(range(int(Notify.NEVER) + 1))
"""Any of the three others together, or NEVER alone."""


class DropError(Exception):
    """A file that is no message of ours."""


@frozen
class DroppedMessage:
    """What the command was told."""

    sender: Address | None
    recipients: tuple[tuple[Address, RecipientParameters], ...]
    content: bytes = field(repr=False)
    body: BodyType = BodyType.SEVEN_BIT
    is_smtputf8: bool = False
    return_content: ReturnContent | None = None
    envelope_id: str = ""


@frozen
class DroppedFile:
    """A whole file, and whose it is."""

    name: str
    uid: int
    modified: float
    message: DroppedMessage


def make_drop_folder(path: str) -> None:
    """Make it, and the folder for what is corrupt; the mode of one that exists is the administrator's."""
    is_new = not os.path.isdir(path)
    if is_new:
        os.makedirs(path, mode=0o755, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(os.path.join(path, CORRUPT), 0o700)
    if is_new:
        # Last: from now on others can put things here, and the name was to be ours.
        os.chmod(path, MODE)


def drop(path: str, message: DroppedMessage) -> str:
    """Leave a message; its file's name. It is synced. Raises OSError, and has then left nothing."""
    octets = _encode(message)
    name = f"{time.time_ns():016x}-{secrets.token_hex(16)}{_SUFFIX}"
    full = os.path.join(path, name)
    descriptor = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        # The server is another user. Nobody else knows the name.
        os.fchmod(descriptor, 0o644)
        view = memoryview(octets)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(full)
        raise
    finally:
        os.close(descriptor)
    _sync_folder(path)
    return name


def _sync_folder(path: str) -> None:
    """As far as we may: the file was synced under its final name already."""
    with contextlib.suppress(PermissionError):
        sync_directory(path)


def remove(path: str, name: str) -> None:
    """Durably. A file that is gone is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(path, name))
    _sync_folder(path)


def put_aside(path: str, name: str) -> bool:
    """Move a file into ``corrupt/``; False where it cannot be had out of the way.

    Strangers make what stands here: a folder of theirs cannot be moved into another, nor anything over one that
    was. Such a thing stays, under a name that is not looked at.
    """
    source = os.path.join(path, name)
    for target in (os.path.join(CORRUPT, name), f"{CORRUPT}-{secrets.token_hex(16)}"):
        try:
            os.rename(source, os.path.join(path, target))
        except FileNotFoundError:
            if not os.path.lexists(source):
                break
        except OSError:
            continue
        else:
            break
    else:
        return False
    with contextlib.suppress(OSError):
        _sync_folder(path)
    return True


@frozen
class Found:
    """One look into the folder."""

    files: tuple[DroppedFile, ...] = ()
    corrupt: tuple[tuple[str, str], ...] = ()
    """Names with the reason; put aside already."""
    stuck: tuple[str, ...] = ()
    """Those of the corrupt that cannot be put aside."""
    torn: tuple[str, ...] = ()
    """Names of files that may still be written."""
    waiting: int = 0
    """How many more there are."""
    gone: frozenset[str] = frozenset()
    """Those of ``without`` that are not there any more."""


def look(path: str, *, without: Collection[str], most: int, octets: int, message_octets: int, now: float) -> Found:
    """The oldest files, at most ``most`` with about ``octets`` together. Raises OSError for the folder itself."""
    listed = [name for name in os.listdir(path) if name.endswith(_SUFFIX)]
    gone = frozenset(without).difference(listed)
    names = sorted(name for name in listed if name not in without)
    files: list[DroppedFile] = []
    corrupt: list[tuple[str, str]] = []
    stuck: list[str] = []
    torn: list[str] = []
    total = taken = 0
    for name in names:
        if taken >= most or total >= octets:
            break
        taken += 1
        try:
            found = _read(path, name, message_octets, now)
        except DropError as error:
            corrupt.append((name, str(error)))
            if not put_aside(path, name):
                stuck.append(name)
        except FileNotFoundError:
            continue
        else:
            if isinstance(found, DroppedFile):
                files.append(found)
                total += len(found.message.content)
            else:
                torn.append(name)
                total += found
    return Found(tuple(files), tuple(corrupt), tuple(stuck), tuple(torn), len(names) - taken, gone)


def _read(path: str, name: str, message_octets: int, now: float) -> DroppedFile | int:
    """Only its length for a file that may still be written. Raises DropError and FileNotFoundError."""
    try:
        # O_NONBLOCK: a FIFO must not hold us.
        descriptor = os.open(os.path.join(path, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM):
            raise
        raise DropError(f"it cannot be opened: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise DropError("it is no file")
    with open(descriptor, "rb") as file:
        if status.st_nlink != 1:
            # A link to a file of somebody else would make its owner the sender.
            raise DropError("it has other names")
        if status.st_size > message_octets + _SPARE_OCTETS:
            raise DropError("it is too large")
        octets = file.read(message_octets + _SPARE_OCTETS)
    # The owner can set it to any time; not so that of the last change.
    modified = min(max(0.0, status.st_mtime), status.st_ctime)
    try:
        return DroppedFile(name, status.st_uid, modified, _decode(octets))
    except DropError:
        if not _is_whole(octets) and abs(now - modified) < TORN_SECONDS:
            return len(octets)
        raise


def _is_whole(octets: bytes) -> bool:
    body, digest = octets[:-_DIGEST_OCTETS], octets[-_DIGEST_OCTETS:]
    return len(digest) == _DIGEST_OCTETS and hashlib.blake2b(body, digest_size=_DIGEST_OCTETS).digest() == digest


def _encode(message: DroppedMessage) -> bytes:
    envelope = json.dumps(
        {
            "sender": None if message.sender is None else str(message.sender),
            "recipients": [
                [str(address), int(given.notify), given.original_recipient] for address, given in message.recipients
            ],
            "body": message.body.value,
            "smtputf8": message.is_smtputf8,
            "return": None if message.return_content is None else message.return_content.value,
            "envelope_id": message.envelope_id,
        }
    ).encode("ascii")
    body = b"".join(
        (_MAGIC, len(envelope).to_bytes(8, "big"), envelope, len(message.content).to_bytes(8, "big"), message.content)
    )
    return body + hashlib.blake2b(body, digest_size=_DIGEST_OCTETS).digest()


def _decode(octets: bytes) -> DroppedMessage:
    if not octets.startswith(_MAGIC) or not _is_whole(octets):
        raise DropError("it is no whole message")
    end = len(octets) - _DIGEST_OCTETS
    envelope, position = _string(octets, len(_MAGIC), end)
    content, position = _string(octets, position, end)
    if position != end:
        raise DropError("something stands behind the content")
    try:
        return _from_table(json.loads(envelope), content)
    except (ValueError, TypeError, KeyError, OverflowError, AddressError, RecursionError) as error:
        raise DropError("its envelope cannot be read") from error


def _string(octets: bytes, position: int, end: int) -> tuple[bytes, int]:
    start = position + 8
    length = int.from_bytes(octets[position:start], "big")
    if start + length > end:
        raise DropError("a length is wrong")
    return octets[start : start + length], start + length


def _from_table(table: object, content: bytes) -> DroppedMessage:
    if not isinstance(table, dict):
        raise TypeError("no table")
    sender = table["sender"]
    message = DroppedMessage(
        sender=None if sender is None else parse_mailbox(_text(sender)),
        recipients=tuple(_recipients(table["recipients"])),
        content=content,
        body=BodyType(table["body"]),
        is_smtputf8=bool(table["smtputf8"]),
        return_content=None if table["return"] is None else ReturnContent(table["return"]),
        envelope_id=_text(table["envelope_id"]),
    )
    _check(message)
    return message


def _check(message: DroppedMessage) -> None:
    """What an SMTP session would not let through does not get in here either: anybody can write such a file."""
    if not _ENVELOPE_ID.fullmatch(message.envelope_id):
        raise DropError("its envelope id is none")
    addresses = [address for address, _ in message.recipients]
    if message.sender is not None:
        addresses.append(message.sender)
    if not message.is_smtputf8 and not all(address.is_ascii for address in addresses):
        raise DropError("its addresses need SMTPUTF8")
    if message.body is not BodyType.BINARY and has_bare_line_break(message.content):
        raise DropError("its lines do not end with CRLF")


def _recipients(rows: object) -> Sequence[tuple[Address, RecipientParameters]]:
    if not isinstance(rows, list) or not rows:
        raise TypeError("no recipients")
    return [(parse_mailbox(_text(address)), _parameters(notify, original)) for address, notify, original in rows]


def _parameters(notify: object, original: object) -> RecipientParameters:
    text = _text(original)
    if notify not in _NOTIFY or not isinstance(notify, int) or not _ORIGINAL_RECIPIENT.fullmatch(text):
        raise ValueError("no parameters of RCPT")
    return RecipientParameters(Notify(notify), text)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 1000 or not value.isprintable():
        raise TypeError("no text")
    return value
