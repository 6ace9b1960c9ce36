"""LOGIN (RFC 3501 6.2.3), and what AUTHENTICATE shares with it: asking the portal and entering the account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from attrs import field, frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.errors import BadCommand, CommandRefused, ConnectionOver
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok, status_line
from mailsrv.interfaces.account import IAccount, InvalidCredentials, ISharedWith, PasswordCredentials, SaslCredentials

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Login:
    """A name and a password."""

    user: str
    password: str = field(repr=False)

    async def run(self, session: Session) -> Ok:
        check_login_allowed(session)
        return await log_in(session, self.user, self.password)


def parse(cursor: Cursor, context: ParseContext) -> Login:
    """``login = "LOGIN" SP userid SP password``; UTF-8 in both is taken (RFC 6855 section 5)"""
    cursor.space()
    user = cursor.astring()
    cursor.space()
    password = cursor.text()
    try:
        return Login(user.decode("utf-8"), password.decode("utf-8"))
    except UnicodeDecodeError:
        raise BadCommand("Name and password have to be UTF-8") from None


def check_login_allowed(session: Session) -> None:
    """Passwords are not asked for in the clear (RFC 3501 6.2.3 LOGINDISABLED; RFC 5530)."""
    if not session.peer.may_log_in():
        raise CommandRefused("Start TLS first", code=b"PRIVACYREQUIRED")


async def log_in(session: Session, authcid: str, password: str, authzid: str = "") -> Ok:
    """Log in with a password."""
    peer = session.peer
    credentials = PasswordCredentials(
        authcid=authcid,
        password=password,
        client_address=peer.client_address,
        service="imap",
        authzid=authzid,
        connection_id=peer.connection_id,
    )
    return await enter(session, credentials)


async def enter(session: Session, credentials: PasswordCredentials | SaslCredentials) -> Ok:
    """Ask the portal. The right answer is the account; a wrong one is counted, and told apart from "cannot say"."""
    peer = session.peer
    try:
        _, avatar, logout = await session.services.portal.login(cast(Any, credentials), peer, IAccount)
    except InvalidCredentials:
        session.login_failures += 1
        if session.login_failures >= session.services.settings.login_failures:
            session.send(status_line(session.tag, b"NO", "Authentication failed", b"AUTHENTICATIONFAILED"))
            raise ConnectionOver("Too many failed log-ins") from None
        raise
    account = cast(IAccount, avatar)  # an interface has no type of its own
    try:
        peer.logged_in(account)
        with_shared = ISharedWith(account).open_with_shared if ISharedWith.providedBy(account) else None
        mailboxes = await (with_shared or account.open_mailboxes)()
    except BaseException:
        logout()
        raise
    session.enter_account(account, mailboxes, logout)
    return Ok("Logged in", code=b"CAPABILITY " + session.capability())
