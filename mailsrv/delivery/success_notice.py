"""The notice that a message is in its mailbox, or was handed to the members of a list (RFC 3461 5.2, 6.2).

Asked for with NOTIFY=SUCCESS. It goes into the same journal record as the message: both, or neither. Nobody is told
of mail with the null reverse-path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mailsrv.address import Address
from mailsrv.delivery.recipients import Recipient
from mailsrv.delivery.signing import MessageSigner
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.envelope import BodyType, EnvelopeParameters, Notify
from mailsrv.interfaces.journal import JournaledMessage
from mailsrv.interfaces.queue import OnwardDelivery, OnwardRecipient
from mailsrv.message import format_return_path
from mailsrv.message.delivery_status import (
    Action,
    DeliveryReport,
    ReportedRecipient,
    ReturnedContent,
    format_report,
    header_section,
)
from mailsrv.status import OK

_RETURNED_OCTETS = 51200
"""R-DSN-1."""


def wants_notice(recipient: Recipient) -> bool:
    """Whether a notice is due here: for local delivery and for expansion; what goes on alone is told further on."""
    if not recipient.parameters.notify & Notify.SUCCESS:
        return False
    return bool(recipient.targets) or recipient.is_several


def reported(recipients: Iterable[Recipient]) -> tuple[ReportedRecipient, ...]:
    """What the notice says of those it is due for."""
    return tuple(
        ReportedRecipient(
            recipient.forward_path,
            Action.EXPANDED if recipient.is_several else Action.DELIVERED,
            OK,
            original_recipient=recipient.parameters.original_recipient,
        )
        for recipient in recipients
        if wants_notice(recipient)
    )


async def format_notice(
    recipients: Sequence[ReportedRecipient],
    *,
    to: OnwardRecipient,
    author: Address,
    hostname: str,
    transaction_id: str,
    header: bytes,
    parameters: EnvelopeParameters,
    now: int,
    signer: MessageSigner | None = None,
) -> JournaledMessage:
    """The notice with its way to the sender, signed by ``signer``. ``header``: the message's, as it came."""
    deadline = parameters.deliver_by.deadline if parameters.deliver_by is not None else None
    written = format_report(
        DeliveryReport(
            reporting_mta=hostname,
            author=author,
            to=to.address,
            recipients=tuple(recipients),
            report_id=f"{transaction_id}S",
            date=now,
            transaction_id=transaction_id,
            arrival=now,
            returned=ReturnedContent(
                header_section(header)[:_RETURNED_OCTETS],
                is_complete=False,
                is_internationalized=parameters.is_smtputf8,
            ),
            envelope_id=parameters.envelope_id,
            deliver_by=deadline,
        )
    )
    own = EnvelopeParameters(
        body=BodyType.EIGHT_BIT if written.is_8bit else BodyType.SEVEN_BIT,
        is_smtputf8=written.is_internationalized or not to.address.is_ascii,
        requires_tls=parameters.requires_tls,
        priority=parameters.priority,
    )
    octets = written.octets if signer is None else await signer.sign(written.octets)
    content = InlineContent(format_return_path(None) + octets)
    return JournaledMessage(content, (OnwardDelivery(None, (to,), own),), now)
