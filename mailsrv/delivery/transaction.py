"""One mail transaction, from MAIL to the journal.

The header section is held back until it is complete; then it is decided upon (hops, From, phase
HEADERS), the trace fields go in front, and everything after it streams to the spool with the
spool's back-pressure. A refusal on the way is kept and comes out of ``finish``. Until the journal's
commit begins an ``abort`` leaves nothing behind; after that it comes too late and changes nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.coroutines import run_coroutine
from mailsrv.delivery.added_fields import format_added, with_fields
from mailsrv.delivery.commit_steps import CommitSteps
from mailsrv.delivery.header_section import HeaderHold, check_hops, message_id_of
from mailsrv.delivery.onward import (
    check_loops,
    delivered_to_field,
)
from mailsrv.delivery.recipient_steps import RecipientSteps
from mailsrv.delivery.recipients import Service
from mailsrv.delivery.signing import SigningStream
from mailsrv.delivery.submission import check_from_field, sender_field
from mailsrv.delivery.transaction_state import Abandoned, State
from mailsrv.errors import MailError, Unavailable
from mailsrv.filters.pipeline import Decision
from mailsrv.interfaces.content import Content, InlineContent
from mailsrv.interfaces.delivery import Accepted, IMailTransaction, Refused
from mailsrv.interfaces.filter import MessageView, Phase
from mailsrv.message import Hop, format_received, format_return_path, missing_originator_fields, transmission_type
from mailsrv.status import MESSAGE_TOO_LARGE


@functools.lru_cache(maxsize=256)
def _return_path(reverse_path: Address | None) -> bytes:
    """Much mail of a moment has the same sender."""
    return format_return_path(reverse_path)


@implementer(IMailTransaction)
class MailTransaction(RecipientSteps, CommitSteps):
    """Made by the receiver at MAIL."""

    # Content

    def begin_content(self) -> Deferred[None]:
        if not self._is_discarded and any(recipient.is_wanted for recipient in self._recipients):
            error = self._check_acceptance(self._parameters.size or 0)
            if error is not None:
                self._history.log_refusal(error, self._forward_paths())
                return fail(error)
            self._writer = self._parts.spool.begin()
        return succeed(None)

    def _check_acceptance(self, octets: int) -> MailError | None:
        """Why there is no room, in the journal or in the queue."""
        parts = self._parts
        error = parts.journal.check_acceptance(octets)
        if error is None and parts.queue is not None and (self._has_onward or self._is_held):
            waiting = sum(len(recipient.onward) for recipient in self._recipients)
            if self._is_held:
                waiting += len(self._recipients)
            error = parts.queue.check_acceptance(octets, waiting)
        return error

    @property
    def _wants_content(self) -> bool:
        return self._refusal is None and not self._is_discarded and self._state is not State.OVER

    def write(self, octets: bytes) -> Deferred[None] | None:
        if self._deciding is not None:
            self._pending.append(octets)
            return self._deciding
        hold = self._hold
        if hold is None:
            return self._spool(octets)
        if not self._wants_content:
            return None
        return self._header_came(hold) if hold.feed(octets) else None

    def _spool(self, octets: bytes) -> Deferred[None] | None:
        if self._writer is None or not self._wants_content:
            return None
        if self._signing is not None:
            self._signing.feed(octets)
        return self._writer.write(octets)

    def _header_came(self, hold: HeaderHold) -> Deferred[None] | None:
        """Decide at once where nobody has to be asked."""
        self._hold = None
        header = hold.header
        self._history.message_id = message_id_of(header)
        if self._wants_notice or self._parts.keeps_header:
            self._given_header = header
        try:
            check_hops(header, self._parts.settings.hop_limit)
            if self._forwarders:
                check_loops(header, self._forwarders)
        except MailError as error:
            self._refusal = error
            return None
        must_check_from = self._account is not None and self._parts.settings.check_from_field
        if must_check_from and hold.is_cut:
            # Behind the limit there could be another From.
            self._refusal = MailError(MESSAGE_TOO_LARGE, "The header section is too large")
            return None
        if not must_check_from and not self._parts.asks_headers:
            return self._start_spooling(header, hold.take())
        self._deciding = deciding = run_coroutine(self._decide(header, hold.take()))
        if deciding.called:
            self._deciding = None
            return None
        return deciding

    async def _decide(self, header: bytes, beginning: bytes) -> None:
        """Never raises: what is wrong comes out of ``finish``."""
        try:
            await self._check_header(header)
            pause = self._start_spooling(header, beginning)
            if pause is not None:
                await pause
            while self._pending:
                pending, self._pending = self._pending, []
                pause = self._spool(b"".join(pending))
                if pause is not None:
                    await pause
        except MailError as error:
            self._refusal = error
        except Exception:
            self._log.failure("Deciding on the header of {transaction_id}", transaction_id=self.transaction_id)
            self._refusal = Unavailable()
        finally:
            self._pending = []
            self._deciding = None

    async def _check_header(self, header: bytes) -> None:
        if self._account is not None and self._parts.settings.check_from_field:
            self._adds_sender = await check_from_field(self._account, header, self._reverse_path)
        if self._parts.asks_headers:
            await self._take(await self._ask(Phase.HEADERS, message=MessageView(header, len(header))))

    async def _take(self, decision: Decision) -> None:
        """Carry out what filters of a phase with content want, all of it or nothing (R-FILT-1)."""
        if decision.discard:
            self._is_discarded = True
        elif decision.redirect is not None:
            await self._redirect(decision.redirect)
        self._added += decision.headers

    async def _redirect(self, addresses: Sequence[Address]) -> None:
        first = self._recipients[0].forward_path if self._recipients else None
        found = await self._parts.policy.find_all(addresses, self._reverse_path, instead_of=first)
        forwarders = {target.forwarder for target in found.onward if target.forwarder is not None}
        check_loops(self._given_header, forwarders)
        if found.onward and self._parts.queue is not None:
            error = self._parts.queue.check_acceptance(self._parameters.size or 0, len(found.onward))
            if error is not None:
                raise error
        self._redirected = found
        self._has_onward = bool(found.onward)

    def _start_spooling(self, header: bytes, beginning: bytes) -> Deferred[None] | None:
        if not self._wants_content:
            return None
        parts = self._parts
        missing = b""
        if parts.service is Service.SUBMISSION:
            missing = missing_originator_fields(header, parts.hostname, int(parts.clock.seconds()))
            if not self._history.message_id:
                self._history.message_id = message_id_of(missing)
        if self._adds_sender and self._account is not None:
            missing += sender_field(self._account)
        fields = self._new_fields()
        if parts.asks_message:
            self._header = fields + missing + header
        if beginning[:1] in (b" ", b"\t"):
            # Else the first line of what came would be read as the rest of our last field.
            beginning = b"\r\n" + beginning
        if parts.signer is not None and self._account is not None:
            self._signing = parts.signer.begin_for(header)
            if self._signing is not None:
                self._signing.feed(missing + beginning)
                self._signing.prepend(fields[len(self._return_path) :])
        if self._writer is None:
            return None
        return self._writer.write(fields + missing + beginning)

    def _new_fields(self) -> bytes:
        """The fields in front of a message, from the top (RFC 5321 4.4).

        Return-Path first; then Delivered-To where it is forwarded; then what filters added, above our
        Received so that it can be told from
        what the message brought with it; then Received. What was received stands below as it
        came, older Return-Path fields too: readers take the first.
        """
        session, parts = self._session, self._parts
        seconds = int(parts.clock.seconds())
        tls = f"using {session.tls_version} with {session.tls_cipher or 'unknown cipher'}"
        hop = Hop(
            by=parts.hostname,
            transmission=transmission_type(
                is_lmtp=parts.service is Service.LMTP,
                is_extended=session.is_extended,
                is_encrypted=bool(session.tls_version),
                is_authenticated=self._account is not None,
                is_utf8=self._parameters.is_smtputf8,
            ),
            queue_id=self.transaction_id,
            seconds=seconds,
            helo=session.helo,
            peer_address=session.client_address,
            tls=tls if session.tls_version else "",
            recipient=self._recipients[0].forward_path if len(self._known) == 1 else None,
        )
        self._return_path = _return_path(self._reverse_path)
        mark = b""
        if len(self._known) == 1 and len(self._forwarders) == 1:
            (self._marked,) = self._forwarders
            mark = delivered_to_field(self._marked)
        return self._return_path + mark + format_added(self._added) + format_received(hop)

    # The end of data

    def finish(self) -> Deferred[Sequence[Accepted | Refused]]:
        if self._state is State.OPEN:
            self._state = State.FINISHING
        return Deferred.fromCoroutine(self._finish())  # waits for the journal

    async def _finish(self) -> Sequence[Accepted | Refused]:
        try:
            outcomes = await self._deliver()
        except Abandoned:
            self._history.log_abandoned(self._forward_paths())
            raise
        except MailError as error:
            self._abort_writer()
            self._history.log_refusal(error, self._forward_paths())
            raise
        except Exception as error:
            self._abort_writer()
            self._log.failure("Delivering {transaction_id}", transaction_id=self.transaction_id)
            general = Unavailable(cause=type(error).__name__)
            self._history.log_refusal(general, self._forward_paths())
            raise general from error
        finally:
            self._state = State.OVER
        return outcomes

    async def _deliver(self) -> Sequence[Accepted | Refused]:
        if self._hold is not None and self._wants_content:
            self._hold.end()
            self._header_came(self._hold)
        if self._deciding is not None:
            await self._deciding
        self._check_abandoned()
        if self._refusal is not None:
            raise self._refusal
        writer = self._writer
        if self._is_discarded or writer is None:
            return self._discard()
        self._writer = None
        content = await writer.finish()
        self._history.size_octets = content.size
        if self._parts.asks_message:
            checked = await self._ask_about_message(content)
            if checked is None:
                return self._discard()
            content = checked
        if self._signing is not None:
            content = await self._signed(content, self._signing)
        return await self._reserve_and_commit(content)

    async def _signed(self, content: Content, signing: SigningStream) -> Content:
        """The content with signatures under the Return-Path. Takes ``content`` over."""
        parts = self._parts
        try:
            fields = await signing.finish()
        except BaseException:
            parts.spool.discard(content)
            raise
        content = await with_fields(content, fields, len(self._return_path), parts.spool, parts.run_in_thread)
        self._history.size_octets = content.size
        return content

    def _discard(self) -> Sequence[Accepted | Refused]:
        self._abort_writer()
        self._history.log("discarded", self._forward_paths())
        return self._accepted()

    async def _ask_about_message(self, content: Content) -> Content | None:
        """The content with what filters add to it, or None where they discard it. Takes ``content`` over."""
        view = MessageView(
            header=self._header,
            size_octets=content.size,
            octets=content.octets if isinstance(content, InlineContent) else None,
            path="" if isinstance(content, InlineContent) else content.path,
        )
        try:
            decision = await self._ask(Phase.MESSAGE, message=view)
            self._check_abandoned()
            await self._take(decision)
            self._check_abandoned()
        except BaseException:
            self._parts.spool.discard(content)
            raise
        parts = self._parts
        if decision.discard:
            parts.spool.discard(content)
            return None
        if not decision.headers:
            return content
        fields = format_added(decision.headers)
        if self._signing is not None:
            self._signing.prepend(fields)
        content = await with_fields(content, fields, len(self._return_path), parts.spool, parts.run_in_thread)
        self._history.size_octets = content.size
        return content

    def abort(self) -> None:
        was_finishing = self._state is State.FINISHING
        if self._state is State.OVER:
            return
        self._state = State.OVER
        self._pending = []
        self._abort_writer()
        if not was_finishing:
            self._history.log_abandoned(self._forward_paths())
