"""One message over one connection: what it needs against what the host offers, transactions, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.logger import Logger

from mailsrv.errors import MailError
from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.queue import AttemptProblem, Declined, QueuedRecipient, QueueEntry, Taken
from mailsrv.relay.adaptation import Adapted, Adapter, Unsuitable
from mailsrv.relay.hops import REQUIRETLS_NEEDED
from mailsrv.relay.opening import OpenConnection
from mailsrv.relay.outcomes import Judged, judge
from mailsrv.smtp.client.capabilities import Capabilities
from mailsrv.smtp.client.commands import OutgoingMessage, OutgoingRecipient
from mailsrv.smtp.client.replies import printable
from mailsrv.status import MESSAGE_TOO_LARGE, NON_ASCII_NOT_SUPPORTED, SYSTEM_ERROR, EnhancedStatus

TIME_IS_OVER = EnhancedStatus(5, 4, 7)

log = Logger()

Results = dict[int, Judged]
"""By the recipient's id."""


@frozen
class Refusal:
    """Why the message is not even offered to this host."""

    status: EnhancedStatus
    text: str
    may_try_next: bool = False


class Carrier:
    """Sends messages over connections that are open. ``wall_clock``: seconds since the epoch."""

    def __init__(self, adapter: Adapter, wall_clock: Callable[[], float]) -> None:
        self._adapter = adapter
        self._wall_clock = wall_clock

    async def carry(
        self,
        connection: OpenConnection,
        entry: QueueEntry,
        recipients: Sequence[QueuedRecipient],
        content: IContent,
        *,
        is_eager: bool = True,
    ) -> Results:
        """A result for each recipient."""
        results: Results = {}
        offered = connection.protocol.session.capabilities
        refusal = self._check(entry, connection, offered)
        if refusal is None and not offered.offers("SMTPUTF8"):
            recipients = _set_aside_non_ascii(recipients, results)
            if entry.reverse_path is not None and not entry.reverse_path.is_ascii:
                refusal = Refusal(
                    NON_ASCII_NOT_SUPPORTED, "The sender's address needs SMTPUTF8, which the next host does not offer"
                )
        adapted = None
        if refusal is None and recipients:
            wants_smtputf8 = entry.parameters.is_smtputf8 or not _are_ascii(entry, recipients)
            try:
                adapted = await self._adapter.adapt(
                    content,
                    entry.parameters.body,
                    offered,
                    wants_smtputf8=wants_smtputf8,
                    is_ours=bool(entry.account),
                    is_final=connection.is_local,
                )
                refusal = _check_size(adapted.content.size, offered)
            except Unsuitable as unsuitable:
                refusal = Refusal(unsuitable.status, unsuitable.text)
            except (MailError, OSError) as error:
                log.error("relay: the content of {transaction_id} cannot be read: {error}",
                          transaction_id=entry.transaction_id, error=str(error))  # fmt: skip
                refusal = Refusal(SYSTEM_ERROR, "The message could not be read")
        if refusal is not None or adapted is None:
            if refusal is not None:
                results.update(_refuse_all(recipients, refusal))
            return results
        await self._send(connection, entry, recipients, adapted, results, is_eager=is_eager)
        return results

    def _check(self, entry: QueueEntry, connection: OpenConnection, offered: Capabilities) -> Refusal | None:
        parameters = entry.parameters
        if parameters.requires_tls and not (
            connection.is_verified and (connection.is_local or offered.offers("REQUIRETLS"))
        ):
            return Refusal(REQUIRETLS_NEEDED, f"{connection.host} does not support REQUIRETLS", may_try_next=True)
        deliver_by = parameters.deliver_by
        if deliver_by is not None and deliver_by.must_return and not connection.is_local:
            if not offered.offers("DELIVERBY"):
                # RFC 2852 4.1.4: nobody there would return it in time.
                return Refusal(
                    TIME_IS_OVER, f"{connection.host} does not support delivery by a given time", may_try_next=True
                )
            # RFC 2852 4.1: by-time is positive with mode R, and not below what the server can promise.
            left = deliver_by.deadline - self._wall_clock()
            if left < max(1, offered.shortest_delivery_time):
                return Refusal(TIME_IS_OVER, "The message cannot be delivered within its time")
        return None

    async def _send(
        self,
        connection: OpenConnection,
        entry: QueueEntry,
        recipients: Sequence[QueuedRecipient],
        adapted: Adapted,
        results: Results,
        *,
        is_eager: bool,
    ) -> None:
        """As many transactions as the host's limit of recipients wants."""
        protocol = connection.protocol
        offered = protocol.session.capabilities
        waiting = list(recipients)
        size = offered.recipient_limit or len(waiting)
        is_first = True
        while waiting:
            if not protocol.session.is_idle:
                # The connection ended: in the transaction before, and these share that fate, or while the message was
                # made ready, as if it had not been.
                left = _unasked(connection.host, is_stale=is_first)
                results.update((one.id, left(one.id)) for one in waiting)
                return
            group, waiting = waiting[:size], waiting[size:]
            message = self._envelope(entry, group, adapted)
            outcomes = await protocol.send(message, adapted.content, is_eager=is_eager or not is_first)
            connection.messages += 1
            is_first = False
            again: list[QueuedRecipient] = []
            has_taken = False
            for recipient, outcome in zip(group, outcomes, strict=True):
                judged = judge(
                    outcome,
                    recipient.id,
                    connection.host,
                    offers_dsn=offered.offers("DSN"),
                    offers_deliver_by=offered.offers("DELIVERBY"),
                    is_local=connection.is_local,
                )
                results[recipient.id] = judged
                has_taken = has_taken or isinstance(judged.outcome, Taken)
                if judged.may_try_again:
                    again.append(recipient)
            if again and has_taken:
                # It takes fewer than it was given; the others come in the next transaction.
                waiting = again + waiting
                size = max(1, len(group) - len(again))

    def _envelope(self, entry: QueueEntry, recipients: Sequence[QueuedRecipient], adapted: Adapted) -> OutgoingMessage:
        deliver_by = entry.parameters.deliver_by
        return OutgoingMessage(
            entry.reverse_path,
            tuple(
                OutgoingRecipient(recipient.address, recipient.notify, recipient.original_recipient)
                for recipient in recipients
            ),
            adapted.content.size,
            adapted.body,
            adapted.is_smtputf8,
            entry.parameters,
            None if deliver_by is None else int(deliver_by.deadline - self._wall_clock()),
        )


def _are_ascii(entry: QueueEntry, recipients: Sequence[QueuedRecipient]) -> bool:
    reverse_path = entry.reverse_path
    return (reverse_path is None or reverse_path.is_ascii) and all(one.address.is_ascii for one in recipients)


def _set_aside_non_ascii(recipients: Sequence[QueuedRecipient], results: Results) -> Sequence[QueuedRecipient]:
    """RFC 6531 3.2: such an address cannot be given to this host."""
    left: list[QueuedRecipient] = []
    for recipient in recipients:
        if recipient.address.is_ascii:
            left.append(recipient)
        else:
            text = "The recipient's address needs SMTPUTF8, which the next host does not offer"
            results[recipient.id] = Judged(Declined(recipient.id, NON_ASCII_NOT_SUPPORTED, text))
    return left


def _check_size(size: int, offered: Capabilities) -> Refusal | None:
    limit = offered.size_limit
    if limit is None or size <= limit:
        return None
    return Refusal(MESSAGE_TOO_LARGE, f"The message has {size} octets, the next host takes {limit}")


def _refuse_all(recipients: Sequence[QueuedRecipient], refusal: Refusal) -> Results:
    text = printable(refusal.text)
    return {
        one.id: Judged(
            Declined(one.id, refusal.status, text, problem=AttemptProblem.MESSAGE), may_try_next=refusal.may_try_next
        )
        for one in recipients
    }


def _unasked(host: str, *, is_stale: bool) -> Callable[[int], Judged]:
    def judged(recipient_id: int) -> Judged:
        declined = Declined(
            recipient_id,
            EnhancedStatus(4, 4, 2),
            printable(f"The connection to {host} ended before this recipient's turn"),
            problem=AttemptProblem.DESTINATION,
            is_asked=False,
        )
        return Judged(declined, may_try_next=True, is_stale=is_stale)

    return judged
