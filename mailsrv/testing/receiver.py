"""A receiver of mail that keeps everything in memory: the double for tests of SMTP, submission and LMTP sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.interfaces.account import IAccount
from mailsrv.interfaces.delivery import (
    Accepted,
    IMailTransaction,
    IMessageReceiver,
    MailParameters,
    Refused,
)
from mailsrv.interfaces.envelope import RecipientParameters
from mailsrv.interfaces.filter import SessionView

_T = TypeVar("_T")


@define
class ReceivedMessage:
    """A message that was accepted."""

    reverse_path: Address | None
    recipients: list[Address]
    content: bytes = field(repr=False)
    parameters: MailParameters
    session: SessionView
    account: IAccount | None
    recipient_parameters: list[RecipientParameters] = field(factory=list)
    """Of each of the recipients."""


@implementer(IMessageReceiver)
@define
class MemoryReceiver:
    """Accepts everything, except what it was told to refuse.

    ``refusals`` maps a stage (``connect``, ``helo``, ``mail``, ``data``, ``finish``) or a recipient
    (``rcpt bob@example.test``, ``finish bob@example.test``, ``verify bob@example.test``) or a client
    (``connect 192.0.2.1``) to the exception it fails with. ``aliases`` is what VRFY and EXPN find. With a
    ``clock`` all answers come ``delay_seconds`` later. ``hold_writes``: each ``write`` answers with
    a Deferred, which is put into ``held_writes``.
    """

    refusals: dict[str, Exception] = field(factory=dict)
    clock: IReactorTime | None = None
    delay_seconds: float = 0.0
    hold_writes: bool = False
    messages: list[ReceivedMessage] = field(factory=list)
    sessions: list[SessionView] = field(factory=list)
    """As told by ``connected`` and ``greeted``."""
    transactions: list[MemoryTransaction] = field(factory=list)
    held_writes: list[Deferred[None]] = field(factory=list)
    numbers: count[int] = field(factory=lambda: count(1))
    aliases: dict[str, tuple[Address, ...]] = field(factory=dict)

    def connected(self, session: SessionView) -> Deferred[None]:
        self.sessions.append(session)
        client = f"connect {session.client_address}"
        return self.answer(client if client in self.refusals else "connect", lambda: None)

    def greeted(self, session: SessionView) -> Deferred[None]:
        self.sessions.append(session)
        return self.answer("helo", lambda: None)

    def begin(
        self,
        session: SessionView,
        reverse_path: Address | None,
        parameters: MailParameters,
        account: IAccount | None,
    ) -> Deferred[IMailTransaction]:
        def make() -> IMailTransaction:
            transaction = MemoryTransaction(self, f"t{next(self.numbers)}", session, reverse_path, parameters, account)
            self.transactions.append(transaction)
            return transaction

        return self.answer("mail", make)

    def verify(self, session: SessionView, address: Address, account: IAccount | None) -> Deferred[Sequence[Address]]:
        return self.answer(f"verify {address}", lambda: self.aliases.get(str(address), (address,)))

    def answer(self, stage: str, make: Callable[[], _T]) -> Deferred[_T]:
        """What ``stage`` is answered with, now or later."""
        error = self.refusals.get(stage)
        if self.clock is None:
            return succeed(make()) if error is None else fail(error)
        later: Deferred[_T] = Deferred()
        if error is None:
            self.clock.callLater(self.delay_seconds, lambda: later.callback(make()))
        else:
            self.clock.callLater(self.delay_seconds, later.errback, error)
        return later


@implementer(IMailTransaction)
@define(eq=False)
class MemoryTransaction:
    """A transaction of :class:`MemoryReceiver`. It checks that it is used as its interface says."""

    receiver: MemoryReceiver
    transaction_id: str
    session: SessionView
    reverse_path: Address | None
    parameters: MailParameters
    account: IAccount | None
    recipients: list[Address] = field(factory=list)
    recipient_parameters: list[RecipientParameters] = field(factory=list)
    chunks: list[bytes] = field(factory=list, repr=False)
    has_begun_content: bool = False
    is_finished: bool = False
    is_aborted: bool = False

    @property
    def is_open(self) -> bool:
        """Neither finished nor aborted."""
        return not self.is_finished and not self.is_aborted

    def add_recipient(self, forward_path: Address, parameters: RecipientParameters | None = None) -> Deferred[None]:
        self._check_open()

        def add() -> None:
            if forward_path not in self.recipients or self.session.service == "lmtp":
                self.recipients.append(forward_path)
                self.recipient_parameters.append(parameters or RecipientParameters())

        return self.receiver.answer(f"rcpt {forward_path}", add)

    def begin_content(self) -> Deferred[None]:
        self._check_open()

        def begin() -> None:
            self.has_begun_content = True

        return self.receiver.answer("data", begin)

    def write(self, octets: bytes) -> Deferred[None] | None:
        self._check_open()
        if not self.has_begun_content or not octets:
            raise RuntimeError("text before begin_content, or none")
        self.chunks.append(octets)
        if not self.receiver.hold_writes:
            return None
        held: Deferred[None] = Deferred()
        self.receiver.held_writes.append(held)
        return held

    def finish(self) -> Deferred[Sequence[Accepted | Refused]]:
        self._check_open()
        self.is_finished = True
        return self.receiver.answer("finish", self._deliver)

    def abort(self) -> None:
        self._check_open()
        self.is_aborted = True

    def _deliver(self) -> Sequence[Accepted | Refused]:
        outcomes: list[Accepted | Refused] = []
        accepted: list[Address] = []
        said: list[RecipientParameters] = []
        for recipient, parameters in zip(self.recipients, self.recipient_parameters, strict=False):
            error = self.receiver.refusals.get(f"finish {recipient}")
            if isinstance(error, MailError):
                outcomes.append(Refused(recipient, error))
            else:
                outcomes.append(Accepted(recipient, self.transaction_id))
                accepted.append(recipient)
                said.append(parameters)
        if accepted:
            content = b"".join(self.chunks)
            self.receiver.messages.append(
                ReceivedMessage(self.reverse_path, accepted, content, self.parameters, self.session, self.account, said)
            )
        return outcomes

    def _check_open(self) -> None:
        if not self.is_open:
            raise RuntimeError(f"transaction {self.transaction_id} was used after its end")
