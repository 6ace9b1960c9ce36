"""The message text: how it is asked for, judged while it comes, and answered."""

from __future__ import annotations

from mailsrv.smtp import replies
from mailsrv.smtp.commands import Bdat
from mailsrv.smtp.events import ContentReceived, ContentRefused, MessageEnded
from mailsrv.smtp.replies import Reply, make_reply
from mailsrv.smtp.settings import Service
from mailsrv.smtp.state import Owed, SessionState, State, TransactionState
from mailsrv.wire.dot_stuffing import BareLineFeeds, DotDecoder

_SLICE_OCTETS = 65536
"""Text is looked at in slices of this at most."""


class ContentSteps(SessionState):
    """The part of the engine that takes message text."""

    def _answer_data(self, answer: Reply) -> None:
        if answer.code == 354:
            mends = self.service is Service.SUBMISSION
            self._decoder = DotDecoder(BareLineFeeds.MEND if mends else BareLineFeeds.REFUSE)
            self._refusal = None
            self._content_octets = 0
            self._state = State.CONTENT
            self._send(answer)
        else:
            self._end_transaction()
            self._refuse(answer, counts=self._counts_refusals)

    def _take_content(self) -> bool:
        decoder = self._decoder
        # A line within one slice is no longer than the slice; longer ones the decoder measures.
        octets = self._buffer.take(max(1, min(_SLICE_OCTETS, self.settings.text_line_octets)))
        if not octets or decoder is None:
            return False
        content = decoder.feed(octets)
        self._content_octets += len(content)
        if self._refusal is None:
            self._judge_content(decoder)
            if content and self._refusal is None:
                self._events.append(ContentReceived(content))
        if decoder.is_finished:
            if decoder.unused:
                self._buffer.put_back(decoder.unused)
            self._end_content()
        elif self._content_octets > 2 * self.settings.message_octets:
            # It was too large long ago, and does not end.
            self._send(make_reply(421, replies.MESSAGE_TOO_LARGE.status, "Message too large", closes=True))
        return True

    def _judge_content(self, decoder: DotDecoder) -> None:
        if decoder.has_bare_line_break:
            self._refusal = replies.BARE_LINE_BREAK
        elif self._content_octets > self.settings.message_octets:
            self._refusal = replies.MESSAGE_TOO_LARGE
        elif decoder.line_octets > self.settings.text_line_octets:
            self._refusal = replies.TEXT_LINE_TOO_LONG
        if self._refusal is not None:
            self._events.append(ContentRefused(self._refusal))

    def _end_content(self) -> None:
        self._decoder = None
        self._state = State.COMMAND
        refusal, self._refusal = self._refusal, None
        if refusal is None:
            self._ask(Owed.MESSAGE, MessageEnded(self._content_octets))
        else:
            # The transaction was given up with ContentRefused: no event, only the final reply.
            self._answer_message((refusal,))

    def _answer_message(self, answers: tuple[Reply, ...]) -> None:
        recipients = self.transaction.recipients
        self.transaction = TransactionState()
        if self._is_lmtp and len(answers) != recipients:
            answers = (answers[0],) * recipients
        if any(answer.is_positive for answer in answers):
            self.messages += 1
            self.errors = self._junk = 0
        if len(answers) == 1 and not answers[0].is_positive:
            self._refuse(answers[0], counts=self._counts_refusals)
            return
        closes = False
        for answer in answers:
            self._out.append(answer.octets)
            closes |= answer.closes
        if closes:
            self._close()

    def _do_bdat(self, command: Bdat) -> None:
        if command.octets > self.settings.message_octets:
            self._send(make_reply(552, replies.MESSAGE_TOO_LARGE.status, "Chunk too large", closes=True))
            return
        self._to_discard = command.octets
        self._state = State.DISCARD_CHUNK

    def _discard_chunk(self) -> bool:
        """RFC 3030 2: the octets of a BDAT that was refused are no commands (R-SMTP-8)."""
        self._to_discard -= len(self._buffer.take(self._to_discard))
        if self._to_discard:
            return False
        self._state = State.COMMAND
        self._reject(replies.NOT_IMPLEMENTED)
        return True
