"""The octets of one delivery of a journal record: into a mailbox, into the queue, or a queue settlement.

::

    local       local-part domain mailbox recipient count[2] flag…          (texts)
    onward      has-reverse-path[1] [local-part domain] account parameters count[4] recipient…
    parameters  body[1] flags[1] ret[1] priority[1] envelope-id [deadline[8]] [hold-until[8]]
    recipient   local-part domain transport[1] target notify[1] original-recipient
    settlement  entry-id[8] ending[1] text count[4] recipient-id[8]…

In a message with other than local deliveries each has a type and a length before it: ``type[1] length[4]``.
"""

from __future__ import annotations

import enum
import struct
from typing import TypeVar

from mailsrv.address import Address, AddressError
from mailsrv.interfaces.envelope import BodyType, DeliverBy, EnvelopeParameters, Notify, ReturnContent
from mailsrv.interfaces.journal import Delivery, LocalDelivery
from mailsrv.interfaces.queue import (
    Destination,
    Ending,
    OnwardDelivery,
    OnwardRecipient,
    QueueSettlement,
    Transport,
)
from mailsrv.journal.octets import LONG, SHORT, FormatError, Reader, pack_text

_TYPED = struct.Struct(">BI")
_PARAMETERS = struct.Struct(">BBBb")
_TIME = struct.Struct(">q")
_NUMBER = struct.Struct(">Q")
_OCTET = struct.Struct(">B")
_SETTLEMENT = struct.Struct(">QB")

# What numbers mean is part of the format: members keep theirs for ever.
_BODIES = (BodyType.SEVEN_BIT, BodyType.EIGHT_BIT, BodyType.BINARY)
_RETURNS = (None, ReturnContent.FULL, ReturnContent.HEADERS)
_TRANSPORTS = (Transport.MX, Transport.SMTP, Transport.LMTP, Transport.LOCAL)
_ENDINGS = (Ending.DELIVERED, Ending.BOUNCED, Ending.EXPIRED, Ending.DROPPED)
_NOTIFY_BITS = 15
_MOST_ID = (1 << 63) - 1

T = TypeVar("T")


class _Type(enum.IntEnum):
    LOCAL = 1
    ONWARD = 2
    SETTLEMENT = 3


class _Flag(enum.IntFlag):
    SMTPUTF8 = 1
    REQUIRES_TLS = 2
    DELIVER_BY = 4
    MUST_RETURN = 8
    TRACED = 16
    HOLD_UNTIL = 32


_ALL_FLAGS = 63


def encode_local(delivery: LocalDelivery) -> list[bytes]:
    """Without type and length: what a message with nothing else holds."""
    account = delivery.account
    parts = [
        pack_text(account.local_part),
        pack_text(account.domain),
        pack_text(delivery.mailbox),
        pack_text(delivery.recipient),
        SHORT.pack(len(delivery.flags)),
    ]
    if delivery.flags:
        parts += map(pack_text, sorted(delivery.flags))
    return parts


def decode_local(reader: Reader) -> LocalDelivery:
    """The inverse of :func:`encode_local`."""
    local_part, domain, mailbox, recipient = (reader.text() for _ in range(4))
    (count,) = reader.numbers(SHORT)
    flags = frozenset(reader.text() for _ in range(count))
    return LocalDelivery(_address(local_part, domain), mailbox, flags, recipient)


def encode_delivery(delivery: Delivery) -> bytes:
    """With type and length before it."""
    if isinstance(delivery, LocalDelivery):
        kind, body = _Type.LOCAL, b"".join(encode_local(delivery))
    elif isinstance(delivery, OnwardDelivery):
        kind, body = _Type.ONWARD, _encode_onward(delivery)
    else:
        kind, body = _Type.SETTLEMENT, _encode_settlement(delivery)
    return _TYPED.pack(kind, len(body)) + body


def decode_delivery(reader: Reader) -> Delivery:
    """The inverse of :func:`encode_delivery`."""
    kind, length = reader.numbers(_TYPED)
    inner = Reader(reader.take(length))
    delivery: Delivery
    if kind == _Type.LOCAL:
        delivery = decode_local(inner)
    elif kind == _Type.ONWARD:
        delivery = _decode_onward(inner)
    elif kind == _Type.SETTLEMENT:
        delivery = _decode_settlement(inner)
    else:
        raise FormatError("an unknown kind of delivery")
    inner.end()
    return delivery


# -- onward ------------------------------------------------------------------


def _encode_onward(delivery: OnwardDelivery) -> bytes:
    if not delivery.recipients:
        raise FormatError("mail for nobody")
    path = delivery.reverse_path
    parts = [_OCTET.pack(path is not None)]
    if path is not None:
        parts += [pack_text(path.local_part), pack_text(path.domain)]
    parts += [pack_text(delivery.account), encode_parameters(delivery.parameters), LONG.pack(len(delivery.recipients))]
    for recipient in delivery.recipients:
        address, destination = recipient.address, recipient.destination
        parts += [
            pack_text(address.local_part),
            pack_text(address.domain),
            _OCTET.pack(_TRANSPORTS.index(destination.transport)),
            pack_text(destination.target),
            _OCTET.pack(recipient.notify),
            pack_text(recipient.original_recipient),
        ]
    return b"".join(parts)


def _decode_onward(reader: Reader) -> OnwardDelivery:
    (has_path,) = reader.numbers(_OCTET)
    if has_path > 1:
        raise FormatError("neither a reverse-path nor none")
    path = _address(reader.text(), reader.text()) if has_path else None
    account = reader.text()
    parameters = decode_parameters(reader)
    (count,) = reader.numbers(LONG)
    if not count:
        raise FormatError("mail for nobody")
    recipients = []
    for _ in range(count):
        address = _address(reader.text(), reader.text())
        transport = _member(_TRANSPORTS, reader.numbers(_OCTET)[0])
        destination = Destination(transport, reader.text())
        (notify,) = reader.numbers(_OCTET)
        if notify > _NOTIFY_BITS:
            raise FormatError("an unknown wish for notices")
        recipients.append(OnwardRecipient(address, destination, Notify(notify), reader.text()))
    return OnwardDelivery(path, tuple(recipients), parameters, account)


def encode_parameters(parameters: EnvelopeParameters) -> bytes:
    """Raises FormatError for numbers that do not fit."""
    flags = _Flag(0)
    times = b""
    if parameters.is_smtputf8:
        flags |= _Flag.SMTPUTF8
    if parameters.requires_tls:
        flags |= _Flag.REQUIRES_TLS
    try:
        deliver_by = parameters.deliver_by
        if deliver_by is not None:
            flags |= _Flag.DELIVER_BY
            flags |= _Flag.MUST_RETURN if deliver_by.must_return else 0
            flags |= _Flag.TRACED if deliver_by.is_traced else 0
            times += _TIME.pack(deliver_by.deadline)
        if parameters.hold_until is not None:
            flags |= _Flag.HOLD_UNTIL
            times += _TIME.pack(parameters.hold_until)
        head = _PARAMETERS.pack(
            _BODIES.index(parameters.body), flags, _RETURNS.index(parameters.return_content), parameters.priority
        )
    except struct.error as error:
        raise FormatError("a number that does not fit") from error
    return head + pack_text(parameters.envelope_id) + times


def decode_parameters(reader: Reader) -> EnvelopeParameters:
    """The inverse of :func:`encode_parameters`."""
    body, flags, returned, priority = reader.numbers(_PARAMETERS)
    if flags > _ALL_FLAGS or (flags & (_Flag.MUST_RETURN | _Flag.TRACED) and not flags & _Flag.DELIVER_BY):
        raise FormatError("unknown flags of an envelope")
    envelope_id = reader.text()
    deliver_by = None
    if flags & _Flag.DELIVER_BY:
        (deadline,) = reader.numbers(_TIME)
        deliver_by = DeliverBy(deadline, bool(flags & _Flag.MUST_RETURN), bool(flags & _Flag.TRACED))
    hold_until = reader.numbers(_TIME)[0] if flags & _Flag.HOLD_UNTIL else None
    return EnvelopeParameters(
        _member(_BODIES, body),
        bool(flags & _Flag.SMTPUTF8),
        _member(_RETURNS, returned),
        envelope_id,
        bool(flags & _Flag.REQUIRES_TLS),
        priority,
        deliver_by,
        hold_until,
    )


# -- settlement --------------------------------------------------------------


def _encode_settlement(settlement: QueueSettlement) -> bytes:
    ids = (settlement.entry_id, *settlement.recipient_ids)
    if min(ids) < 0 or max(ids) > _MOST_ID:
        raise FormatError("a number that does not fit")
    return b"".join(
        [
            _SETTLEMENT.pack(settlement.entry_id, _ENDINGS.index(settlement.ending)),
            pack_text(settlement.text),
            LONG.pack(len(settlement.recipient_ids)),
            *map(_NUMBER.pack, settlement.recipient_ids),
        ]
    )


def _decode_settlement(reader: Reader) -> QueueSettlement:
    entry_id, ending = reader.numbers(_SETTLEMENT)
    text = reader.text()
    (count,) = reader.numbers(LONG)
    octets = reader.take(count * _NUMBER.size)
    ids = tuple(number for (number,) in _NUMBER.iter_unpack(octets))
    if max((entry_id, *ids)) > _MOST_ID:
        raise FormatError("a number that does not fit")
    return QueueSettlement(entry_id, ids, _member(_ENDINGS, ending), text)


# -- values ------------------------------------------------------------------


def _address(local_part: str, domain: str) -> Address:
    try:
        return Address(local_part, domain)
    except AddressError as error:
        raise FormatError("an account or path that is no address") from error


def _member(members: tuple[T, ...], number: int) -> T:
    if number >= len(members):
        raise FormatError("a number without a meaning")
    return members[number]
