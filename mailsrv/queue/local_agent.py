"""Delivery of queued mail to recipients of ours: notices of failure, released mail, mail held for a later time.

What a recipient turns into here is not handed to anybody who could say 250 and be lost with it: it is mail of
ours again. So one journal record holds both, the message for the mailboxes (and the addresses elsewhere
that aliases name) and the :class:`~mailsrv.interfaces.queue.QueueSettlement` that ends the recipients. When the
record is synced the recipients are done for, whatever happens next; before that nothing has happened. Hence
the outcome :class:`~mailsrv.interfaces.queue.Settled`: the runner logs it, and has nothing left to write. All
recipients that can be delivered go with one record; if the commit fails, none of it will ever be delivered
(the journal's promise), and they are tried again. A notice of success that was asked for is in the record, too.

Recipients that cannot be resolved are declined like by any next hop: 4xx waits, 5xx becomes a notice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.coroutines import run_coroutine
from mailsrv.errors import MailError
from mailsrv.interfaces.content import Content, IContent, InlineContent, ISpool
from mailsrv.interfaces.envelope import NOTIFY_UNSAID, Notify
from mailsrv.interfaces.journal import Delivery, IJournal, JournaledMessage, JournalRecord, LocalDelivery
from mailsrv.interfaces.queue import (
    AttemptOutcome,
    AttemptProblem,
    Consignment,
    Declined,
    Ending,
    IQueueStore,
    ITransportAgent,
    OnwardDelivery,
    OnwardRecipient,
    QueuedRecipient,
    QueueEntry,
    QueueSettlement,
    Settled,
)
from mailsrv.message.delivery_status import Action
from mailsrv.message.edits import format_return_path
from mailsrv.queue.bounce import Notices
from mailsrv.queue.conclusion import Report
from mailsrv.status import BAD_MAILBOX, OK

_PIECE_OCTETS = 262_144


@frozen
class Resolved:
    """What a recipient of ours stands for; a recipient with neither is discarded on purpose."""

    local: tuple[LocalDelivery, ...] = ()
    onward: tuple[OnwardRecipient, ...] = ()


Resolve = Callable[[Address, QueueEntry], Awaitable[Resolved]]
"""Raises the MailError a client would get for the address."""


@implementer(ITransportAgent)
class LocalAgent:
    """``new_transaction_id`` gives the names of records, ``seconds`` the time."""

    _log = Logger()

    def __init__(
        self,
        store: IQueueStore,
        journal: IJournal,
        spool: ISpool,
        notices: Notices,
        resolve: Resolve,
        *,
        seconds: Callable[[], float],
    ) -> None:
        self._store = store
        self._journal = journal
        self._spool = spool
        self._notices = notices
        self._resolve = resolve
        self._seconds = seconds

    def attempt(self, consignment: Consignment) -> Deferred[Sequence[AttemptOutcome]]:
        return run_coroutine(self._attempt(consignment))

    def stop(self) -> Deferred[None]:
        return succeed(None)

    async def _attempt(self, consignment: Consignment) -> Sequence[AttemptOutcome]:
        entry = consignment.entry
        outcomes: dict[int, AttemptOutcome] = {}
        resolved: dict[int, Resolved] = {}
        for recipient in consignment.recipients:
            try:
                found = await self._resolve(recipient.address, entry)
                if any(_is_same(onward, recipient) for onward in found.onward):
                    # It would come back here with the next attempt, and for ever.
                    raise MailError(BAD_MAILBOX, "The address leads back to itself")
                resolved[recipient.id] = found
            except MailError as error:
                outcomes[recipient.id] = _declined(recipient, error)
        if resolved:
            try:
                await self._deliver(consignment, resolved)
            except MailError as error:
                for recipient in consignment.recipients:
                    if recipient.id in resolved:
                        outcomes[recipient.id] = _declined(recipient, error)
            else:
                for recipient_id, found in resolved.items():
                    outcomes[recipient_id] = Settled(recipient_id, Ending.DELIVERED, _said(found))
        return [outcomes[recipient.id] for recipient in consignment.recipients]

    async def _deliver(self, consignment: Consignment, resolved: dict[int, Resolved]) -> None:
        """One record for all."""
        entry = consignment.entry
        recipients = [recipient for recipient in consignment.recipients if recipient.id in resolved]
        deliveries, successes = _merge(entry, recipients, resolved)
        goes_on = any(found.onward for found in resolved.values())
        said = _said(Resolved(onward=tuple(each for found in resolved.values() for each in found.onward)))
        settlement = QueueSettlement(
            entry.id,
            tuple(recipient.id for recipient in recipients),
            Ending.DELIVERED,
            f"In the queue again: {said}" if goes_on else "Delivered here",
        )
        notice = await self._notices.message(entry, successes) if successes else None
        has_mail = any(not isinstance(delivery, QueueSettlement) for delivery in deliveries)
        content: Content = await self._content(entry) if has_mail else InlineContent(b"")
        message = JournaledMessage(content, (*deliveries, settlement), int(self._seconds()))
        reverse_path = "" if entry.reverse_path is None else str(entry.reverse_path)
        await self._journal.commit(
            JournalRecord((message,) if notice is None else (message, notice), entry.transaction_id, reverse_path)
        )

    async def _content(self, entry: QueueEntry) -> Content:
        """The message as it is delivered: with its Return-Path (RFC 5321 4.4)."""
        return_path = format_return_path(entry.reverse_path)
        source: IContent = await self._store.open_content(entry)
        try:
            octets = source.octets
            if octets is not None:
                writer = self._spool.begin()
                writer.write(return_path + octets)
                return await writer.finish()
            return await self._copied(source, return_path)
        finally:
            source.close()

    async def _copied(self, source: IContent, return_path: bytes) -> Content:
        writer = self._spool.begin()
        try:
            writer.write(return_path)
            offset = 0
            while offset < source.size:
                octets = await source.read(offset, _PIECE_OCTETS)
                if not octets:
                    break
                offset += len(octets)
                pause = writer.write(octets)
                if pause is not None:
                    await pause
        except BaseException:
            writer.abort()
            raise
        return await writer.finish()


def _merge(
    entry: QueueEntry, recipients: Sequence[QueuedRecipient], resolved: dict[int, Resolved]
) -> tuple[list[Delivery], list[Report]]:
    """The deliveries of all, each mailbox and each address once; and what has to be reported."""
    local: dict[tuple[Address, str], LocalDelivery] = {}
    onward: dict[tuple[Address, object], OnwardRecipient] = {}
    successes: list[Report] = []
    for recipient in recipients:
        found = resolved[recipient.id]
        for delivery in found.local:
            local.setdefault((delivery.account, delivery.mailbox), delivery)
        # RFC 3461 5.2.7: to one address NOTIFY goes on as it is; to several, success is ours to tell.
        is_expanded = len(found.onward) + len(found.local) > 1 and bool(found.onward)
        for target in found.onward:
            onward.setdefault((target.address, target.destination), _inherit(target, recipient, is_expanded))
        if recipient.notify & Notify.SUCCESS and entry.reverse_path is not None and (is_expanded or not found.onward):
            action = Action.EXPANDED if is_expanded else Action.DELIVERED
            successes.append(Report(recipient, action, OK, ""))
    deliveries: list[Delivery] = list(local.values())
    if onward:
        deliveries.append(OnwardDelivery(entry.reverse_path, tuple(onward.values()), entry.parameters, entry.account))
    return deliveries, successes


def _inherit(target: OnwardRecipient, recipient: QueuedRecipient, is_expanded: bool) -> OnwardRecipient:
    notify = recipient.notify
    if is_expanded and notify & Notify.SUCCESS:
        notify &= ~Notify.SUCCESS
        notify = notify if notify != NOTIFY_UNSAID else Notify.NEVER
    original = target.original_recipient or recipient.original_recipient or _as_original(recipient)
    return evolve(target, notify=notify, original_recipient=original)


def _as_original(recipient: QueuedRecipient) -> str:
    """RFC 3461 5.2.7, RFC 6533 3: the address before it was changed, with its type."""
    return f"{'rfc822' if recipient.address.is_ascii else 'utf-8'};{recipient.address}"


def _is_same(onward: OnwardRecipient, recipient: QueuedRecipient) -> bool:
    return onward.destination.target == "" and onward.address == recipient.address


def _declined(recipient: QueuedRecipient, error: MailError) -> Declined:
    return Declined(recipient.id, error.status, error.text, problem=AttemptProblem.RECIPIENT)


def _said(found: Resolved) -> str:
    places = [f"{delivery.account} {delivery.mailbox}" for delivery in found.local]
    places.extend(f"<{onward.address}> by {onward.destination}" for onward in found.onward)
    return ", ".join(places)[:512] or "Discarded"
