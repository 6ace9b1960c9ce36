"""How values of the interfaces lie in the queue's tables, and back."""

from __future__ import annotations

import functools
import hashlib

from mailsrv.address import Address, parse_mailbox
from mailsrv.interfaces.envelope import EnvelopeParameters, Notify
from mailsrv.interfaces.queue import OnwardDelivery, QueuedRecipient, QueueEntry
from mailsrv.journal.delivery import decode_parameters, encode_parameters
from mailsrv.journal.octets import Reader

MESSAGE_COLUMNS = "id, transaction_id, reverse_path, parameters, account, accepted_at, size"
RECIPIENT_COLUMNS = "number, address, notify, original, attempts, reply, is_delay_told"
_UNSAID = EnvelopeParameters()

MessageRow = tuple[int, str, str | None, bytes, str, float, int]
RecipientRow = tuple[int, str, int, str, int, str, int]


def address_of(text: str) -> Address:
    """The inverse of ``str(address)``. Raises AddressError."""
    if text.startswith('"'):
        return parse_mailbox(text)
    local_part, _, domain = text.rpartition("@")
    return Address(local_part, domain) if local_part else Address(domain, "")


def pack_parameters(parameters: EnvelopeParameters) -> bytes:
    """Nothing where nothing was said."""
    return b"" if parameters == _UNSAID else encode_parameters(parameters)


def unpack_parameters(octets: bytes) -> EnvelopeParameters:
    """The inverse of :func:`pack_parameters`. Raises FormatError."""
    return decode_parameters(Reader(octets)) if octets else _UNSAID


@functools.lru_cache(maxsize=4096)
def _number_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def sender_of(delivery: OnwardDelivery) -> int:
    """Whom the queue counts as one when it is fair: a user, else a reverse-path."""
    return _number_of(delivery.account or str(delivery.reverse_path or ""))


def run_number(run_id: bytes) -> int:
    """52 bits for a run of the server."""
    return int.from_bytes(hashlib.blake2b(run_id, digest_size=8).digest(), "big") >> 12


def owner_number(run: int, worker: int) -> int:
    """One number for a worker of a run; workers are counted from 0 to 1023."""
    return run << 10 | worker


def entry_of(row: MessageRow) -> QueueEntry:
    """Raises AddressError and FormatError: a row that nobody of ours wrote."""
    message_id, transaction_id, reverse_path, parameters, account, accepted_at, size = row
    return QueueEntry(
        message_id,
        transaction_id,
        None if reverse_path is None else address_of(reverse_path),
        unpack_parameters(parameters),
        account,
        accepted_at,
        size,
    )


def recipient_of(row: RecipientRow) -> QueuedRecipient:
    """Raises AddressError."""
    number, address, notify, original, attempts, reply, is_delay_told = row
    return QueuedRecipient(number, address_of(address), Notify(notify), original, attempts, reply, bool(is_delay_told))
