"""Notices to senders, as journal records: the notice and the end of the recipients it tells of are one record.

* Everything that failed of a message in one round is told in one notice, everything that succeeded in another.
* A notice has the null reverse-path; mail with the null reverse-path never gets one (RFC 5321 6.1). What
  fails of such mail (a *double bounce*) is told to the postmaster, who gets no notice about notices to
  himself, wherever they are forwarded: there is no loop. It can be switched off, then it is only logged.
* The message itself comes back up to a size (R-DSN-1), its header section only where that was asked for
  (RFC 3461 4.3), where nothing failed, and where it asked for REQUIRETLS (RFC 8689 5).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from attrs import evolve
from twisted.logger import Logger

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.interfaces.content import IContent, InlineContent
from mailsrv.interfaces.envelope import BodyType, EnvelopeParameters, Notify, ReturnContent
from mailsrv.interfaces.journal import JournaledMessage, JournalRecord
from mailsrv.interfaces.queue import (
    LOCAL,
    IQueueStore,
    OnwardDelivery,
    OnwardRecipient,
    QueueEntry,
    QueueSettlement,
)
from mailsrv.message.delivery_status import (
    Action,
    DeliveryReport,
    ReportedRecipient,
    ReturnedContent,
    format_report,
    header_section,
)
from mailsrv.message.edits import format_return_path
from mailsrv.queue.conclusion import Conclusion, Report, ended_reports
from mailsrv.queue.settings import NoticeSettings

Sign = Callable[[bytes], Awaitable[bytes]]
"""A complete message with its signatures in front; itself where it is not signed."""

Route = Callable[[Address], Awaitable[Sequence[OnwardRecipient]]]
"""Where a notice goes: at least one recipient. A MailError that is not temporary: nowhere."""

_DOUBLE_BOUNCE = (
    "A message without a sender, a notice of failure or another automatic message, could not be delivered. You "
    "get this notice as postmaster, for there is nobody else to tell."
)


async def route_locally(address: Address) -> Sequence[OnwardRecipient]:
    """Resolved here, when its turn comes."""
    return (OnwardRecipient(address, LOCAL),)


class Notices:
    """Writes them.

    ``postmaster`` is who notices are from and who gets double bounces; ``new_transaction_id`` gives the
    names of the records, ``seconds`` the time. ``sign`` puts DKIM signatures on them; None: they go unsigned.
    """

    _log = Logger()

    def __init__(
        self,
        settings: NoticeSettings,
        store: IQueueStore,
        *,
        hostname: str,
        postmaster: Address,
        new_transaction_id: Callable[[], str],
        seconds: Callable[[], float],
        route: Route = route_locally,
        sign: Sign | None = None,
    ) -> None:
        self._settings = settings
        self._hostname = hostname
        self._postmaster = postmaster
        self._store = store
        self._new_transaction_id = new_transaction_id
        self._seconds = seconds
        self._route = route
        self._sign = sign

    def addressee(self, entry: QueueEntry, report: Report) -> Address | None:
        """Who is told: the sender, the postmaster, or nobody."""
        if entry.reverse_path is not None:
            return entry.reverse_path
        if report.action is not Action.FAILED or not self._settings.double_bounces:
            return None
        return self._postmaster if report.recipient.address != self._postmaster else None

    async def ending_record(self, conclusion: Conclusion) -> JournalRecord | None:
        """Ends the recipients of a conclusion that end with a notice; None where there are none.

        May raise a MailError (content or route not to be had now): try again.
        """
        entry = conclusion.entry
        settlements = tuple(
            QueueSettlement(
                entry.id,
                tuple(report.recipient.id for report in reports),
                ending,
                f"{reports[0].host}: {reports[0].reply}" if reports[0].host else reports[0].reply,
            )
            for ending, reports in ended_reports(conclusion)
        )
        if not settlements:
            return None
        messages = [
            message
            for reports in (conclusion.bounced + conclusion.expired, conclusion.succeeded)
            if (message := await self.message(entry, reports)) is not None
        ]
        transaction_id = self._new_transaction_id()
        # One message with nothing in it carries the settlements, so that they are applied like any delivery.
        messages.append(JournaledMessage(InlineContent(b""), settlements, int(self._seconds())))
        return JournalRecord(tuple(messages), transaction_id)

    async def delay_record(self, conclusion: Conclusion) -> JournalRecord | None:
        """Tells of recipients that go on waiting."""
        message = await self.message(conclusion.entry, conclusion.delayed)
        return None if message is None else JournalRecord((message,), self._new_transaction_id())

    async def message(self, entry: QueueEntry, reports: Sequence[Report]) -> JournaledMessage | None:
        """One notice about these recipients, on its way; None where there is nobody to tell."""
        told: list[Report] = []
        to: Address | None = None
        for report in reports:
            addressee = self.addressee(entry, report)
            if addressee is None:
                self._log.warn(
                    "{transaction_id}: {action} for <{recipient}>, and nobody to tell: {reply}",
                    transaction_id=entry.transaction_id,
                    action=report.action.value,
                    recipient=str(report.recipient.address),
                    reply=report.reply,
                )
            else:
                told.append(report)
                to = addressee
        if to is None:
            return None
        notice_id = self._new_transaction_id()
        now = int(self._seconds())
        has_failure = any(report.action is Action.FAILED for report in told)
        document = DeliveryReport(
            reporting_mta=self._hostname,
            author=self._postmaster,
            to=to,
            recipients=tuple(_reported(each, now) for each in told),
            report_id=notice_id,
            date=now,
            transaction_id=entry.transaction_id,
            arrival=int(entry.accepted_at),
            returned=await self._returned(entry, has_failure),
            envelope_id=entry.parameters.envelope_id,
            deliver_by=None if entry.parameters.deliver_by is None else entry.parameters.deliver_by.deadline,
            held_until=entry.parameters.hold_until,
            note=_DOUBLE_BOUNCE if entry.reverse_path is None else "",
        )
        written = format_report(document)
        parameters = EnvelopeParameters(
            body=BodyType.EIGHT_BIT if written.is_8bit else BodyType.SEVEN_BIT,
            is_smtputf8=written.is_internationalized or not to.is_ascii,
            # RFC 8689 5: the notice is protected like the message. RFC 6710 4.5: it goes with its priority.
            requires_tls=entry.parameters.requires_tls,
            priority=entry.parameters.priority,
        )
        recipients = await self._routed(to)
        if entry.reverse_path is None:
            # Wherever the postmaster's mail is forwarded to: what fails there is not told anybody.
            recipients = tuple(evolve(recipient, notify=Notify.NEVER) for recipient in recipients)
        self._log.info(
            "{transaction_id}: notice {notice_id} to <{to}>",
            transaction_id=entry.transaction_id,
            notice_id=notice_id,
            to=str(to),
        )
        content = InlineContent(format_return_path(None) + await self._signed(written.octets, notice_id))
        return JournaledMessage(content, (OnwardDelivery(None, recipients, parameters),), now)

    async def _signed(self, octets: bytes, notice_id: str) -> bytes:
        """A notice without a signature is better than none."""
        if self._sign is None:
            return octets
        try:
            return await self._sign(octets)
        except Exception:
            self._log.failure("{notice_id}: the notice goes unsigned", notice_id=notice_id)
            return octets

    async def _routed(self, to: Address) -> tuple[OnwardRecipient, ...]:
        try:
            recipients = tuple(await self._route(to))
        except MailError as error:
            if error.is_temporary:
                raise
            recipients = ()
        # What has no way out is refused where it is tried, and becomes a double bounce there.
        return recipients or (OnwardRecipient(to, LOCAL),)

    async def _returned(self, entry: QueueEntry, has_failure: bool) -> ReturnedContent:
        parameters, limit = entry.parameters, self._settings.returned_octets
        is_complete = (
            has_failure
            and entry.size <= limit
            and parameters.return_content is not ReturnContent.HEADERS
            and parameters.body is not BodyType.BINARY
            and not parameters.requires_tls
        )
        try:
            content: IContent = await self._store.open_content(entry)
        except MailError as error:
            if error.is_temporary:
                raise
            return ReturnedContent(b"", is_complete=False)
        try:
            octets = content.octets
            if octets is None or len(octets) > limit:
                octets = await content.read(0, min(limit, content.size))
        finally:
            content.close()
        if not is_complete:
            octets = header_section(octets)
        return ReturnedContent(octets, is_complete, parameters.is_smtputf8)


def _reported(report: Report, now: int) -> ReportedRecipient:
    recipient = report.recipient
    return ReportedRecipient(
        address=recipient.address,
        action=report.action,
        status=report.status,
        reply=report.reply,
        host=report.host,
        original_recipient=recipient.original_recipient,
        last_attempt=now if report.is_attempted else None,
        will_retry_until=report.will_retry_until,
    )
