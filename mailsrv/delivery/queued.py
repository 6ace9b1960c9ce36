"""What queued recipients of ours stand for when their time comes: notices to senders, held mail, rewritten senders.

The same rules as at RCPT (:class:`~mailsrv.delivery.recipients.RecipientPolicy`); who may send elsewhere was
settled when the message was taken. :meth:`QueuedRecipients.resolve` is what
:class:`~mailsrv.queue.local_agent.LocalAgent` asks.
"""

from __future__ import annotations

from mailsrv.address import Address
from mailsrv.delivery.onward import original_recipient_of
from mailsrv.delivery.recipients import RecipientPolicy
from mailsrv.interfaces.journal import LocalDelivery
from mailsrv.interfaces.queue import OnwardRecipient, QueueEntry
from mailsrv.queue.local_agent import Resolved


class QueuedRecipients:
    """``policy`` with a router: addresses elsewhere have to have a way out."""

    def __init__(self, policy: RecipientPolicy) -> None:
        self._policy = policy

    async def resolve(self, address: Address, entry: QueueEntry) -> Resolved:
        """The mailboxes and the ways out behind an address; raises the MailError that RCPT would answer with."""
        found = await self._policy.find(address, entry.reverse_path, may_relay=True)
        return Resolved(
            tuple(LocalDelivery(target.account, recipient=str(address)) for target in found.accounts),
            tuple(
                OnwardRecipient(
                    target.address,
                    target.destination,
                    original_recipient="" if target.address == address else original_recipient_of(address),
                )
                for target in found.onward
            ),
        )
