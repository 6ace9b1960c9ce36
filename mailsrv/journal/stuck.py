"""Mail that was acknowledged and that its account cannot take: a folder of files, one a delivery.

A file begins with one line of JSON that says everything about the delivery, then a line feed, then
the message as it was accepted. What the queue could not take has its delivery in the form of the
journal, too, beside a readable list of the recipients. A file is complete and synced before the journal
lets go of the delivery.
An administrator can read it with any pager; ``retry`` hands it to the store again under its old key,
so that nothing is delivered twice.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator

from attrs import frozen

from mailsrv.address import Address, AddressError
from mailsrv.disk import IDisk, IDiskFile, make_directories, opened
from mailsrv.interfaces.content import Content, FileContent, InlineContent
from mailsrv.interfaces.journal import Delivery, DeliveryKey, JournaledMessage, LocalDelivery, PendingDelivery
from mailsrv.interfaces.queue import OnwardDelivery
from mailsrv.journal.delivery import decode_delivery, encode_delivery
from mailsrv.journal.entry import QUEUE_LANE, Lane, Task
from mailsrv.journal.octets import Reader
from mailsrv.journal.spool import new_digest

_SUFFIX = ".stuck"
_FIRST_HEAD = 64 * 1024
_MOST_HEAD = 16 << 20
_PIECE = 1 << 20
FORMAT = "mailsrv stuck delivery 1"


@frozen
class StuckDelivery:
    """One file of the folder."""

    name: str
    """Its name without the suffix: what ``retry_stuck`` takes."""
    account: Lane
    """Whose it is: an account, or the queue."""
    mailbox: str
    recipient: str
    transaction_id: str
    reverse_path: str
    internal_date: int
    size: int
    error: str
    key: DeliveryKey
    is_content_complete: bool


def name_of(key: DeliveryKey) -> str:
    """Names the delivery for ever, like its key."""
    return f"{key.segment_id.hex()}-{key.offset}-{key.number}"


class StuckFolder:
    """Reads and writes the folder. For threads; raises OSError."""

    def __init__(self, disk: IDisk, directory: str) -> None:
        self.directory = directory
        self._disk = disk

    def put(self, task: Task) -> None:
        """Write and sync one delivery. Written before (a crash came in between): written again."""
        make_directories(self._disk, self.directory)
        path = os.path.join(self.directory, name_of(task.pending.key) + _SUFFIX)
        temporary = f"{path}.new"
        if self._disk.status(temporary) is not None:
            self._disk.unlink(temporary)
        with opened(self._disk.create(temporary)) as file:
            self._write(file, task)
            file.sync()
        self._disk.rename(temporary, path)
        self._disk.sync_directory(self.directory)

    def _write(self, file: IDiskFile, task: Task) -> None:
        pending, record = task.pending, task.entry.record
        message, delivery = pending.message, pending.delivery
        content = message.content
        head = {
            "format": FORMAT,
            "key": pending.key.to_octets().hex(),
            **_describe(delivery),
            "reverse_path": record.reverse_path,
            "transaction_id": record.transaction_id,
            "internal_date": message.internal_date,
            "date_offset_minutes": message.date_offset_minutes,
            "size": content.size,
            "checksum": base64.b16encode(_checksum(content)).decode("ascii"),
            "error": str(task.error or ""),
        }
        first = json.dumps(head, ensure_ascii=True).encode("ascii") + b"\n"
        at = file.write(0, [first])
        if isinstance(content, InlineContent):
            file.write(at, [content.octets])
            return
        try:
            source = self._disk.open(content.path)
        except FileNotFoundError:
            return  # What is left of the mail is its envelope: better than nothing.
        with opened(source):
            offset = 0
            while octets := source.read(offset, _PIECE):
                at += file.write(at, [octets])
                offset += len(octets)

    def _paths(self) -> Iterator[tuple[str, str]]:
        if self._disk.status(self.directory) is None:
            return
        for entry in sorted(self._disk.list_directory(self.directory), key=lambda entry: entry.name):
            if entry.name.endswith(_SUFFIX):
                yield entry.name.removesuffix(_SUFFIX), os.path.join(self.directory, entry.name)

    def list(self) -> list[StuckDelivery]:
        """Everything that is stuck. A file that is none of ours is passed over."""
        found = []
        for name, path in self._paths():
            read = self._read_head(name, path)
            if read is not None:
                found.append(read[0])
        return found

    def segment_ids(self) -> frozenset[bytes]:
        """Segments whose keys are still needed: a stuck delivery may come again."""
        ids = set()
        for name, _ in self._paths():
            try:
                ids.add(bytes.fromhex(name.partition("-")[0]))
            except ValueError:
                continue
        return frozenset(ids)

    def load(self, name: str, spool: str) -> PendingDelivery[Delivery] | None:
        """A delivery to be tried again; None where there is no (whole) file of that name.

        Its content is in memory; a large one is copied to a file of the folder ``spool``, which
        the caller removes.
        """
        path = dict(self._paths()).get(name)
        read = None if path is None else self._read_head(name, path)
        if path is None or read is None:
            return None
        stuck, head, offset = read
        if not stuck.is_content_complete:
            return None
        try:
            delivery = _delivery(stuck, head)
        except (ValueError, KeyError):
            return None
        with opened(self._disk.open(path)) as file:
            content: Content = (
                InlineContent(file.read(offset, stuck.size))
                if stuck.size <= _PIECE
                else self._copy(file, offset, os.path.join(spool, f"stuck-{name}"))
            )
        if _checksum(content).hex() != str(head["checksum"]).lower():
            return None
        message = JournaledMessage(content, (delivery,), stuck.internal_date, _integer(head["date_offset_minutes"]))
        return PendingDelivery(stuck.key, message, delivery, is_replay=True, transaction_id=stuck.transaction_id)

    def _copy(self, file: IDiskFile, offset: int, path: str) -> FileContent:
        if self._disk.status(path) is not None:
            self._disk.unlink(path)
        digest = new_digest()
        size = 0
        with opened(self._disk.create(path)) as target:
            while octets := file.read(offset + size, _PIECE):
                size += target.write(size, [octets])
                digest.update(octets)
            target.sync()
        return FileContent(path, size, digest.digest())

    def remove(self, name: str) -> None:
        """Delivered (durably) or given up by the administrator."""
        path = dict(self._paths()).get(name)
        if path is not None:
            self._disk.unlink(path)
            self._disk.sync_directory(self.directory)

    def _read_head(self, name: str, path: str) -> tuple[StuckDelivery, dict[str, object], int] | None:
        with opened(self._disk.open(path)) as file:
            octets = file.read(0, _FIRST_HEAD)
            total = file.size()
            if b"\n" not in octets:
                octets = file.read(0, _MOST_HEAD)
        line, found, _ = octets.partition(b"\n")
        try:
            head = json.loads(line) if found else None
            if not isinstance(head, dict) or head.get("format") != FORMAT:
                return None
            size = _integer(head["size"])
            stuck = StuckDelivery(
                name,
                QUEUE_LANE if "delivery" in head else Address(str(head["local_part"]), str(head["domain"])),
                str(head["mailbox"]),
                str(head["recipient"]),
                str(head["transaction_id"]),
                str(head["reverse_path"]),
                _integer(head["internal_date"]),
                size,
                str(head["error"]),
                DeliveryKey.from_octets(bytes.fromhex(str(head["key"]))),
                total == len(line) + 1 + size,
            )
        except (ValueError, KeyError, AddressError):
            return None
        return stuck, head, len(line) + 1


def _describe(delivery: Delivery) -> dict[str, object]:
    """What the head says of a delivery."""
    if isinstance(delivery, LocalDelivery):
        return {
            "local_part": delivery.account.local_part,
            "domain": delivery.account.domain,
            "mailbox": delivery.mailbox,
            "flags": sorted(delivery.flags),
            "recipient": delivery.recipient,
        }
    if isinstance(delivery, OnwardDelivery):
        recipients = [f"{each.address} ({each.destination})" for each in delivery.recipients]
        return {
            "mailbox": "",
            "recipient": recipients[0] if len(recipients) == 1 else f"{len(recipients)} recipients",
            "recipients": recipients,
            "delivery": encode_delivery(delivery).hex(),
        }
    return {
        "mailbox": "",
        "recipient": f"{delivery.ending.value}: {len(delivery.recipient_ids)} recipients of {delivery.entry_id}",
        "delivery": encode_delivery(delivery).hex(),
    }


def _delivery(stuck: StuckDelivery, head: dict[str, object]) -> Delivery:
    """The inverse of :func:`_describe`. Raises ValueError and KeyError."""
    if isinstance(stuck.account, Address):
        flags = frozenset(map(str, _list(head["flags"])))
        return LocalDelivery(stuck.account, stuck.mailbox, flags, stuck.recipient)
    reader = Reader(bytes.fromhex(str(head["delivery"])))
    delivery = decode_delivery(reader)
    reader.end()
    return delivery


def _checksum(content: Content) -> bytes:
    if isinstance(content, FileContent):
        return content.checksum
    digest = new_digest()
    digest.update(content.octets)
    return digest.digest()


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError("not a number")  # the caller sees one kind of error: not a file of ours
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError("not a list")  # as above
    return value
