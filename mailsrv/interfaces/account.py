"""Log-in: the credentials the protocols collect, and the avatar the realm answers with.

One ``twisted.cred.portal.Portal`` serves all protocols::

    interface, account, logout = await portal.login(PasswordCredentials(...), None, IAccount)

It fails with :class:`InvalidCredentials`, or with :class:`~mailsrv.errors.Unavailable` where the
answer is not known. Failure delays happen inside: the Deferred simply fires later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import field, frozen
from cryptography.x509 import Certificate
from twisted.cred.credentials import ICredentials
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface, implementer

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.interfaces.mailbox import IAccountMailboxes
from mailsrv.status import BAD_CREDENTIALS


class InvalidCredentials(MailError):
    """Wrong user or wrong password; the two cannot be told apart (R-AUTH-6)."""

    def __init__(self, *, cause: str = "") -> None:
        super().__init__(BAD_CREDENTIALS, "Authentication failed", cause=cause)


@implementer(ICredentials)
@frozen
class PasswordCredentials:
    """A name and a password, with where they came from (RFC 4422: authcid, authzid)."""

    authcid: str
    password: str = field(repr=False)
    client_address: str
    """Textual IP address, "" for a Unix socket: failures are counted per network."""
    service: str
    """``submission``, ``imap`` or ``pop3``."""
    authzid: str = ""
    connection_id: str = ""


class ISaslCredentials(Interface):
    """What :class:`SaslCredentials` are; no ``ICredentials``, for another checker decides about them."""


def _no_channel(_kind: str) -> None:
    """A connection without TLS is bound to nothing."""


@implementer(ISaslCredentials)
@frozen(eq=False)
class SaslCredentials:
    """The beginning of a SASL exchange; who decides about it asks the client further questions itself."""

    mechanism: str
    response: bytes = field(repr=False)
    """The client's first, decoded."""
    converse: Callable[[bytes], Awaitable[bytes]] = field(repr=False)
    """Sends a challenge and gives the response to it. Raises SaslError and SaslCancelled, which end the log-in."""
    client_address: str
    """As of :class:`PasswordCredentials`."""
    service: str
    connection_id: str = ""
    offered: tuple[str, ...] = ()
    """The mechanisms the client could choose from."""
    channel: Callable[[str], bytes | None] = field(default=_no_channel, repr=False)
    """The data of a type of channel binding, None where there is none."""
    certificate: Certificate | None = field(default=None, repr=False)
    """The client's, verified in the TLS handshake by a listener that asks for it."""


class IAccount(Interface):
    """The avatar: a logged-in user, the same for submission, IMAP and POP3."""

    address: Address = Attribute("Canonical address of the account.")
    display_name: str = Attribute("For humans; may be empty.")
    administrator: Address | None = Attribute("Who has logged in as this user; None if they did so themselves.")

    def open_mailboxes() -> Deferred[IAccountMailboxes]:
        """The account's mailboxes; call ``release`` on them at the end of the session."""

    def may_send_as(address: Address) -> Deferred[bool]:
        """Whether this user may use ``address`` as reverse-path or in From: their own (also
        subaddresses and aliases), or one that was given to them.
        """


class ISharedWith(Interface):
    """An account whose user may have rights to mailboxes of others."""

    def open_with_shared() -> Deferred[IAccountMailboxes]:
        """As ``IAccount.open_mailboxes``, with those of others among them (``others_prefix``)."""


class IDelegate(Interface):
    """An account whose user may write on behalf of others; what may do so for nobody does not provide it."""

    def may_send_on_behalf(address: Address) -> Deferred[bool]:
        """Whether this user may write From ``address`` where a Sender field names them (RFC 5322 3.6.2)."""


def who(account: IAccount) -> str:
    """The account for the log, with the administrator who acts as it."""
    if account.administrator is None:
        return str(account.address)
    return f"{account.address} (by {account.administrator})"
