"""What an SMTP or LMTP session hands its mail transactions to.

The session knows the protocol; the receiver knows domains, recipients, filters and the journal.
A refusal is a :class:`~mailsrv.errors.MailError`; the session turns its status into a reply.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.interfaces.account import IAccount
from mailsrv.interfaces.envelope import BodyType, EnvelopeParameters, RecipientParameters
from mailsrv.interfaces.filter import SessionView


@frozen
class MailParameters:
    """ESMTP parameters of MAIL (RFC 5321 4.1.1.11) that a receiver acts upon."""

    size: int | None = None
    envelope: EnvelopeParameters = field(factory=EnvelopeParameters)
    """Those that travel with the message."""

    @property
    def is_8bit(self) -> bool:
        """Whether BODY announced more than 7-bit lines."""
        return self.envelope.body is not BodyType.SEVEN_BIT

    @property
    def is_smtputf8(self) -> bool:
        return self.envelope.is_smtputf8


@frozen
class Accepted:
    """The message is durable for this recipient."""

    recipient: Address
    transaction_id: str


@frozen
class Refused:
    """It is not, for this recipient; LMTP says so recipient by recipient (RFC 2033 4.2)."""

    recipient: Address
    error: MailError


class IMailTransaction(Interface):
    """One MAIL…end-of-data exchange. Ends with ``finish`` or ``abort``, once."""

    transaction_id: str = Attribute("For log, Received field and reply.")

    def add_recipient(forward_path: Address, parameters: RecipientParameters | None = None) -> Deferred[None]:
        """RCPT: fires if the recipient is accepted. Duplicates are accepted and delivered once."""

    def begin_content() -> Deferred[None]:
        """DATA: fires if content may come (there is room)."""

    def write(octets: bytes) -> Deferred[None] | None:
        """A slice of canonical content. ``None``: go on; a ``Deferred``: pause reading until it fires.

        A refusal (phase HEADERS, no room, hop limit) is kept and comes out of ``finish``; the
        session keeps feeding until the end of data.
        """

    def finish() -> Deferred[Sequence[Accepted | Refused]]:
        """End of data: one outcome for each accepted recipient, in order. May also fail as a whole."""

    def abort() -> None:
        """RSET, connection lost, limit passed: forget everything."""


class IMessageReceiver(Interface):
    """The other side of one listener's sessions. Filter phases connect, helo and mail are asked inside."""

    def connected(session: SessionView) -> Deferred[None]:
        """Before the greeting. A MailError: 554/421 and the connection closes after QUIT."""

    def greeted(session: SessionView) -> Deferred[None]:
        """EHLO, HELO, LHLO."""

    def begin(
        session: SessionView,
        reverse_path: Address | None,
        parameters: MailParameters,
        account: IAccount | None,
    ) -> Deferred[IMailTransaction]:
        """MAIL. ``account`` is who is logged in (submission)."""

    def verify(session: SessionView, address: Address, account: IAccount | None) -> Deferred[Sequence[Address]]:
        """VRFY and EXPN: what the address stands for, one step; itself where it is an account.

        Only called where the listener's setting allows it. Fails with the MailError to answer with.
        """
