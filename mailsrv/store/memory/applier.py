"""Deliveries from a journal into the store in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from zope.interface import implementer

from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.content import Content, FileContent
from mailsrv.interfaces.journal import Applied, DeliveryKey, IApplier, LocalDelivery, NotApplied, PendingDelivery
from mailsrv.store.memory.mail_store import MemoryMailStore
from mailsrv.store.memory.mailbox import new_message


@implementer(IApplier)
class MemoryApplier:
    """Delivers into a :class:`MemoryMailStore`, each key once. Not for threads: tests call it in place."""

    def __init__(self, store: MemoryMailStore) -> None:
        self._store = store

    def apply(self, deliveries: Sequence[PendingDelivery[LocalDelivery]]) -> Sequence[Applied | NotApplied]:
        return [self._apply(pending) for pending in deliveries]

    def _apply(self, pending: PendingDelivery[LocalDelivery]) -> Applied | NotApplied:
        account = self._store.account(pending.delivery.account)
        known = account.seen_keys.get(pending.key)
        if known is not None:
            return known
        try:
            mailbox = account.find(pending.delivery.mailbox)
            octets = _peek(pending.message.content)
        except MailError as error:
            return NotApplied(pending.key, error)
        except OSError as error:
            return NotApplied(pending.key, Unavailable(cause=str(error)))
        message = new_message(
            octets, pending.delivery.flags, pending.message.internal_date, pending.message.date_offset_minutes
        )
        message.recipient = pending.delivery.recipient
        [uid] = mailbox.add([message])
        applied = Applied(pending.key, mailbox.uid_validity, uid, mailbox.highest_mod_seq)
        account.seen_keys[pending.key] = applied
        return applied

    def take_touched(self) -> Collection[str]:
        return ()

    def checkpoint_failed(self, keys: Collection[DeliveryKey]) -> None:
        """Memory has no disk to doubt."""


def _peek(content: Content) -> bytes:
    if isinstance(content, FileContent):
        with open(content.path, "rb") as file:
            return file.read()
    return content.octets
