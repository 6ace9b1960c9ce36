"""One mail transaction as far as the server has answered. Never cleared: each has an object of its own."""

from __future__ import annotations

import enum

from attrs import define, field

from mailsrv.smtp.client.commands import OutgoingMessage
from mailsrv.smtp.client.events import Problem, RecipientOutcome, Stage
from mailsrv.smtp.client.replies import ServerReply
from mailsrv.wire.dot_stuffing import DotEncoder
from mailsrv.wire.line_breaks import LineEncoder


class Content(enum.Enum):
    """How far the message itself has come."""

    NOT_ASKED = "not asked"
    ASKED = "asked"
    """DATA was sent."""
    WANTED = "wanted"
    ENDED = "ended"
    """All of it was sent."""
    REFUSED = "refused"
    """No more of it will be sent."""


@define(eq=False)
class Transaction:
    """What was asked, and the answers."""

    message: OutgoingMessage
    uses_chunks: bool
    is_lmtp: bool = False
    is_raw: bool = False
    """BINARYMIME: the octets go out as they are."""
    content: Content = Content.NOT_ASKED
    eager: bytes | None = None
    """The whole content, where it was small enough to be handed over at once."""
    mail_reply: ServerReply | None = None
    recipient_replies: list[ServerReply] = field(factory=list)
    data_reply: ServerReply | None = None
    """A refusal of DATA, or of a chunk."""
    end_replies: list[ServerReply] = field(factory=list)
    """To the end of data: one, or with LMTP one for each accepted recipient."""
    accepted: int = 0
    chunks_owed: int = 0
    """Chunks sent whose replies have not come."""
    dots: DotEncoder = field(factory=DotEncoder)
    lines: LineEncoder = field(factory=LineEncoder)

    @property
    def is_mail_refused(self) -> bool:
        return self.mail_reply is not None and self.mail_reply.is_refusal

    @property
    def has_recipient_answers(self) -> bool:
        """Whether every RCPT was answered."""
        return len(self.recipient_replies) == len(self.message.recipients)

    def outcomes(
        self, problem: Problem | None = None, reply: ServerReply | None = None, text: str = ""
    ) -> tuple[RecipientOutcome, ...]:
        """How each recipient fared; ``problem`` is for those whose answer did not come."""
        ends = iter(self.end_replies)
        is_joint = bool(self.end_replies) and not self.is_lmtp
        found: list[RecipientOutcome] = []
        for number in range(len(self.message.recipients)):
            answer = self.recipient_replies[number] if number < len(self.recipient_replies) else None
            if self.mail_reply is not None and self.mail_reply.is_refusal:
                found.append(RecipientOutcome(False, Stage.MAIL, self.mail_reply))
            elif answer is not None and answer.is_refusal:
                found.append(RecipientOutcome(False, Stage.RCPT, answer))
            elif answer is not None and self.data_reply is not None:
                found.append(RecipientOutcome(False, Stage.DATA, self.data_reply))
            else:
                end = None
                if answer is not None:
                    end = self.end_replies[0] if is_joint else next(ends, None)
                if end is not None:
                    found.append(RecipientOutcome(end.is_positive, Stage.CONTENT, end))
                else:
                    found.append(self._unanswered(answer, problem, reply, text))
        return tuple(found)

    def _unanswered(
        self, answer: ServerReply | None, problem: Problem | None, reply: ServerReply | None, text: str
    ) -> RecipientOutcome:
        # A refusal (421) is an answer: the server has not taken the message.
        is_uncertain = self.content is Content.ENDED and reply is None
        stage = Stage.CONTENT if self.content in {Content.WANTED, Content.ENDED} else Stage.RCPT
        if self.mail_reply is None and not is_uncertain:
            stage = Stage.MAIL
        elif answer is not None and stage is Stage.RCPT:
            stage = Stage.DATA
        return RecipientOutcome(
            False,
            stage,
            reply,
            problem or Problem.CONFUSED,
            text,
            is_uncertain=is_uncertain,
            is_untouched=self.mail_reply is None and not is_uncertain,
        )
