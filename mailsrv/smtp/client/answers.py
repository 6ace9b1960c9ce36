"""What replies mean: each belongs to the command that was asked first of those without one (RFC 2920 3.1)."""

from __future__ import annotations

from collections.abc import Callable

from mailsrv.smtp.client.asked import INTERMEDIATE, Asked
from mailsrv.smtp.client.capabilities import NO_CAPABILITIES, parse_capabilities
from mailsrv.smtp.client.events import (
    Authenticated,
    AuthenticationRefused,
    ContentWanted,
    Problem,
    Ready,
    TlsAgreed,
    TlsRefused,
)
from mailsrv.smtp.client.replies import ServerReply
from mailsrv.smtp.client.state import ClientState
from mailsrv.smtp.client.transaction import Content


class Answers(ClientState):
    """Takes the replies."""

    def _take(self, reply: ServerReply) -> None:
        self.replies += 1
        if not self._asked:
            self._take_unasked(reply)
            return
        asked = self._asked.popleft()
        if reply.code == 421 and asked is not Asked.QUIT and not self._is_owed_an_end():
            # RFC 5321 3.8: to any command, if the server knows it must shut down.
            problem = Problem.REFUSED if asked is Asked.GREETING else Problem.CLOSED_BY_SERVER
            self._fail(problem, reply, reply.text)
        elif 300 <= reply.code < 400 and (asked, reply.code) not in INTERMEDIATE:
            self._fail(Problem.CONFUSED, text=f"{reply.code} in answer to {asked.value}")
        else:
            if reply.code == 421:
                # It should close now. Those that go on instead may still take the message, which is all there.
                self._closing = reply
            _HANDLERS[asked](self, reply)
            if self._unsent:
                self._send_next()

    def _is_owed_an_end(self) -> bool:
        transaction = self._transaction
        return transaction is not None and transaction.content is Content.ENDED and bool(self._asked)

    def _take_unasked(self, reply: ServerReply) -> None:
        transaction = self._transaction
        if transaction is not None and transaction.content is Content.WANTED and reply.is_refusal:
            # It has had enough of the message before its end. What we say next it would still read as content.
            self._fail(Problem.CLOSED_BY_SERVER, reply, reply.text)
        elif reply.code == 421:
            self._fail(Problem.CLOSED_BY_SERVER, reply, reply.text)
        else:
            self._fail(Problem.CONFUSED, text=f"{reply.code} without a question")

    def _greeted(self, reply: ServerReply) -> None:
        if reply.code == 220:
            self._say_ehlo()
        elif reply.is_refusal:
            self._fail(Problem.REFUSED, reply, reply.text)
        else:
            self._fail(Problem.CONFUSED, text=f"{reply.code} is no greeting")

    def _ehlo_answered(self, reply: ServerReply) -> None:
        if reply.is_positive:
            self.capabilities = parse_capabilities(reply.lines)
            self._events.append(Ready(self.capabilities))
        elif reply.is_permanent and not self.is_lmtp:
            # RFC 5321 3.2: a server that knows no EHLO.
            self._send(Asked.HELO, f"HELO {self._hostname}\r\n".encode("ascii"))
        else:
            self._fail(Problem.REFUSED, reply, reply.text)

    def _helo_answered(self, reply: ServerReply) -> None:
        if reply.is_positive:
            self.capabilities = NO_CAPABILITIES
            self._events.append(Ready(self.capabilities))
        else:
            self._fail(Problem.REFUSED, reply, reply.text)

    def _starttls_answered(self, reply: ServerReply) -> None:
        if reply.code != 220:
            if reply.is_positive:
                self._fail(Problem.CONFUSED, text=f"{reply.code} in answer to STARTTLS")
            else:
                self._events.append(TlsRefused(reply))
        elif self._reader.has_octets:
            # R-TLS-2: somebody put answers into the stream that would be read as if TLS had protected them.
            self._fail(Problem.CONFUSED, text="octets in the clear after STARTTLS was agreed")
        else:
            self._is_awaiting_handshake = True
            self._events.append(TlsAgreed())

    def _auth_answered(self, reply: ServerReply) -> None:
        if reply.code == 334:
            # "*" cancels (RFC 4954 4) an exchange that asks for more than it should.
            answer = self._answers.popleft() if self._answers else b"*"
            self._send(Asked.AUTH, answer + b"\r\n")
            return
        self._answers.clear()
        if reply.code == 235:
            self._events.append(Authenticated())
        elif reply.is_refusal:
            self._events.append(AuthenticationRefused(reply))
        else:
            self._fail(Problem.CONFUSED, text=f"{reply.code} in answer to AUTH")

    def _rset_answered(self, reply: ServerReply) -> None:
        if reply.is_refusal:
            # RFC 5321 4.1.1.5 knows no refusal; the old transaction may still be there.
            self._fail(Problem.CONFUSED, text=f"{reply.code} in answer to RSET")

    def _mail_answered(self, reply: ServerReply) -> None:
        transaction = self._current()
        transaction.mail_reply = reply
        if reply.is_refusal and not self._asked:
            self._unsent.clear()
            self._end_transaction()

    def _rcpt_answered(self, reply: ServerReply) -> None:
        transaction = self._current()
        transaction.recipient_replies.append(reply)
        if reply.is_positive and not transaction.is_mail_refused:
            transaction.accepted += 1
        if not transaction.has_recipient_answers or transaction.content is not Content.NOT_ASKED:
            return
        if not transaction.accepted:
            self._end_transaction()
        elif not transaction.uses_chunks:
            self._ask_for_data(transaction)
        elif transaction.eager is not None:
            self._send_eagerly(transaction, transaction.eager)
        else:
            transaction.content = Content.WANTED
            self._events.append(ContentWanted())

    def _data_answered(self, reply: ServerReply) -> None:
        transaction = self._current()
        if reply.code == 354:
            if not transaction.accepted:
                if self.is_lmtp or transaction.is_mail_refused:
                    # It may have a transaction in mind of which we know nothing.
                    self._fail(Problem.CONFUSED, text="354 without a recipient")
                    return
                # RFC 2920 3.1: it said yes to DATA without a recipient, and waits for an end.
                transaction.content = Content.REFUSED
                self._send(Asked.EMPTY_END, b".\r\n")
                return
            transaction.content = Content.WANTED
            if transaction.eager is not None:
                self.write_content(transaction.eager, is_last=True)
            else:
                self._events.append(ContentWanted())
        elif reply.is_refusal:
            transaction.content = Content.REFUSED
            transaction.data_reply = reply
            self._end_transaction()
        else:
            self._fail(Problem.CONFUSED, text=f"{reply.code} in answer to DATA")

    def _chunk_answered(self, reply: ServerReply) -> None:
        transaction = self._current()
        transaction.chunks_owed -= 1
        if reply.is_refusal and transaction.data_reply is None:
            # What was sent behind it will be refused too (RFC 3030 2), each with a reply of its own.
            transaction.data_reply = reply
            if transaction.content is Content.WANTED:
                transaction.content = Content.REFUSED
        if transaction.content is Content.REFUSED and not self._asked:
            self._end_transaction()

    def _last_chunk_answered(self, reply: ServerReply) -> None:
        transaction = self._current()
        if transaction.data_reply is not None or not transaction.accepted:
            self._end_transaction()
            return
        if self.is_lmtp and transaction.accepted > 1:
            # RFC 2033 4.2: one reply each; how many were accepted was not known when the chunk was sent.
            self._asked.extendleft([Asked.END] * (transaction.accepted - 1))
        self._end_answered(reply)

    def _end_answered(self, reply: ServerReply) -> None:
        transaction = self._current()
        transaction.end_replies.append(reply)
        if not self._asked:
            self.messages += 1
            # By RFC 5321 4.1.1.4 a refused message is over as well; servers are known to keep its recipients.
            self._end_transaction(is_over=all(each.is_positive for each in transaction.end_replies))

    def _empty_end_answered(self, _reply: ServerReply) -> None:
        self._end_transaction()

    def _quit_answered(self, _reply: ServerReply) -> None:
        self._fail(None)


_HANDLERS: dict[Asked, Callable[[Answers, ServerReply], None]] = {
    Asked.GREETING: Answers._greeted,
    Asked.EHLO: Answers._ehlo_answered,
    Asked.HELO: Answers._helo_answered,
    Asked.STARTTLS: Answers._starttls_answered,
    Asked.AUTH: Answers._auth_answered,
    Asked.RSET: Answers._rset_answered,
    Asked.MAIL: Answers._mail_answered,
    Asked.RCPT: Answers._rcpt_answered,
    Asked.DATA: Answers._data_answered,
    Asked.CHUNK: Answers._chunk_answered,
    Asked.LAST_CHUNK: Answers._last_chunk_answered,
    Asked.END: Answers._end_answered,
    Asked.EMPTY_END: Answers._empty_end_answered,
    Asked.QUIT: Answers._quit_answered,
}
