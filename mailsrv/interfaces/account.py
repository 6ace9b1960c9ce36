"""Log-in: the credentials the protocols collect, and the avatar the realm answers with.

One ``twisted.cred.portal.Portal`` serves all protocols::

    interface, account, logout = await portal.login(PasswordCredentials(...), None, IAccount)

It fails with :class:`InvalidCredentials`, or with :class:`~mailsrv.errors.Unavailable` where the
answer is not known. Failure delays happen inside: the Deferred simply fires later.
"""

from __future__ import annotations

from attrs import field, frozen
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


class IAccount(Interface):
    """The avatar: a logged-in user, the same for submission, IMAP and POP3."""

    address: Address = Attribute("Canonical address of the account.")
    display_name: str = Attribute("For humans; may be empty.")

    def open_mailboxes() -> Deferred[IAccountMailboxes]:
        """The account's mailboxes; call ``release`` on them at the end of the session."""

    def may_send_as(address: Address) -> Deferred[bool]:
        """Whether this user may use ``address`` as reverse-path or in From: own, subaddress, or an alias of theirs."""
