"""The message text, by DATA or in chunks: judged while it comes, and answered.

A chunk's octets are always consumed, whatever becomes of them: they are no commands (RFC 3030 2,
R-SMTP-5, R-SMTP-8). What refuses a message in the middle of a chunk is told when the chunk is over; the
transaction is gone then, and chunks that were pipelined behind it are skipped with 503.
"""

from __future__ import annotations

from mailsrv.interfaces.envelope import BodyType
from mailsrv.smtp import replies
from mailsrv.smtp.commands import Bdat
from mailsrv.smtp.events import ContentReceived, ContentRefused, ContentRequested, MessageEnded
from mailsrv.smtp.replies import Reply, make_reply
from mailsrv.smtp.state import COMMAND, CONTENT, Owed, State, TransactionState
from mailsrv.smtp.transactions import TransactionSteps
from mailsrv.status import OK
from mailsrv.wire.dot_stuffing import DotDecoder
from mailsrv.wire.line_breaks import LineBreaks

_SMALL_CHUNK_OCTETS = 1024
_EXCUSED_CHUNKS = 1000
"""So many chunks may have been under way when one was refused."""


class ContentSteps(TransactionSteps):
    """The part of the engine that takes message text."""

    # -- DATA

    def _answer_data(self, answers: tuple[Reply, ...]) -> None:
        answer = answers[0] if answers else replies.START_CONTENT
        if answer.code == 354:
            self._decoder = DotDecoder(self._bare_line_feeds)
            self._refusal = None
            self._content_octets = 0
            self._state = CONTENT
            self._send(answer)
        else:
            self._end_transaction()
            self._refuse(answer, counts=self._counts_refusals)

    def _take_content(self) -> bool:
        decoder = self._decoder
        octets = self._buffer.take(self._slice_octets)
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
            self._send(replies.MESSAGE_WITHOUT_END)
        return True

    def _judge_content(self, lines: DotDecoder | LineBreaks | None) -> None:
        settings = self.settings
        if self._content_octets > settings.message_octets:
            self._refuse_content(replies.MESSAGE_TOO_LARGE)
        elif lines is None:
            return
        elif lines.has_bare_line_break:
            is_chunked = lines is self._line_breaks
            self._refuse_content(replies.BARE_LINE_BREAK_IN_CHUNK if is_chunked else replies.BARE_LINE_BREAK)
        elif lines.line_octets > settings.text_line_octets:
            self._refuse_content(replies.TEXT_LINE_TOO_LONG)

    def _refuse_content(self, refusal: Reply) -> None:
        self._refusal = refusal
        self._events.append(ContentRefused(refusal))

    def _end_content(self) -> None:
        self._decoder = None
        self._state = COMMAND
        refusal, self._refusal = self._refusal, None
        if refusal is None:
            self._owed = Owed.MESSAGE
            self._events.append(MessageEnded(self._content_octets))
        else:
            # The transaction was given up with ContentRefused: no event, only the final reply.
            self._answer_message((refusal,))

    def _answer_message(self, answers: tuple[Reply, ...]) -> None:
        answers = answers or (replies.OK,)
        recipients = self.transaction.recipients
        self.transaction = TransactionState()
        if self._is_lmtp and len(answers) != recipients:
            answers = (answers[0],) * recipients
        for answer in answers:
            if answer.code < 400:
                self.messages += 1
                self.errors = self._junk = 0
                break
        if len(answers) == 1:
            if answers[0].code < 400:
                self._send(answers[0])
            else:
                self._refuse(answers[0], counts=self._counts_refusals)
            return
        closes = False
        for answer in answers:
            self._out.append(answer.octets)
            closes |= answer.closes
        if closes:
            self._close()

    # -- BDAT

    def _do_bdat(self, command: Bdat) -> None:
        transaction, settings = self.transaction, self.settings
        if command.octets > 2 * settings.message_octets:
            self._send(replies.CHUNK_TOO_LARGE)
            return
        self._chunk_size = self._chunk_left = command.octets
        self._is_last_chunk = command.is_last
        self._refusal = None
        self._is_chunk_skipped = not (
            self.is_extended
            and "CHUNKING" in self._offer.keywords
            and transaction.mail is not None
            and transaction.recipients
            and not self._is_turned_away
        )
        self._state = State.CHUNK
        if self._is_chunk_skipped:
            if not command.octets:
                self._end_chunk()
            return
        if command.octets < _SMALL_CHUNK_OCTETS and not command.is_last:
            transaction.small_chunks += 1
            if transaction.small_chunks > settings.small_chunks:
                self._send(replies.TOO_MANY_SMALL_CHUNKS)
                return
        if not transaction.has_chunks:
            self._content_octets = 0
            self._ask(Owed.CHUNK, ContentRequested())
        else:
            self._begin_chunk()

    def _answer_chunk(self, answers: tuple[Reply, ...]) -> None:
        """Whether the text may come at all, asked before its first chunk."""
        mail = self.transaction.mail
        if mail is None:
            return
        if answers and not answers[0].is_positive:
            self._refuse_content(answers[0])
            if not self._chunk_left:
                self._end_chunk()
            return
        self.transaction.has_chunks = True
        is_binary = mail.parameters.envelope.body is BodyType.BINARY
        self._line_breaks = None if is_binary else LineBreaks(self._bare_line_feeds)
        self._begin_chunk()

    def _begin_chunk(self) -> None:
        if self._content_octets + self._chunk_size > self.settings.message_octets:
            self._refuse_content(replies.MESSAGE_TOO_LARGE)
        if not self._chunk_left:
            self._end_chunk()

    def _take_chunk(self) -> bool:
        octets = self._buffer.take(min(self._slice_octets, self._chunk_left))
        self._chunk_left -= len(octets)
        if not self._is_chunk_skipped and self._refusal is None:
            lines = self._line_breaks
            self._take_text(octets if lines is None else lines.feed(octets))
        if not self._chunk_left:
            self._end_chunk()
        return True

    def _take_text(self, content: bytes) -> None:
        self._content_octets += len(content)
        self._judge_content(self._line_breaks)
        if content and self._refusal is None:
            self._events.append(ContentReceived(content))

    def _end_chunk(self) -> None:
        self._state = COMMAND
        if self._is_chunk_skipped:
            self._is_chunk_skipped = False
            self._reject_chunk()
            return
        if self._is_last_chunk and self._refusal is None and self._line_breaks is not None:
            self._take_text(self._line_breaks.finish())
        refusal = self._refusal
        if refusal is not None:
            self._refusal = None
            self._line_breaks = None
            if self._is_last_chunk:
                self._answer_message((refusal,))
            else:
                # One reply also in LMTP: its recipients are answered for with the last chunk.
                self.transaction = TransactionState(is_chunk_refused=True)
                self._refuse(refusal, counts=self._counts_refusals)
        elif self._is_last_chunk:
            self._line_breaks = None
            self._owed = Owed.MESSAGE
            self._events.append(MessageEnded(self._content_octets))
        else:
            self._send(make_reply(250, OK, f"{self._chunk_size} octets received"))

    def _reject_chunk(self) -> None:
        transaction = self.transaction
        if self._is_turned_away:
            self._reject(replies.SERVICE_REFUSED)
        elif not self.helo:
            self._reject(replies.GREET_FIRST)
        elif not self.is_extended or "CHUNKING" not in self._offer.keywords:
            self._reject(replies.NOT_IMPLEMENTED)
        elif transaction.is_chunk_refused and transaction.overflow < _EXCUSED_CHUNKS:
            transaction.overflow += 1
            self._reject(replies.MAIL_FIRST, counts=False)
        else:
            self._end_transaction()
            self._reject_unready(transaction)
