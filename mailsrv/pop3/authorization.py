"""From credentials to an open, locked maildrop, and back: everything a log-in takes hold of.

What was taken before a step failed is given back in reverse order. Where the connection is lost
while a step is under way, the shell closes what comes out.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, cast

from twisted.cred.portal import Portal

from mailsrv.interfaces.account import IAccount, PasswordCredentials, SaslCredentials, who
from mailsrv.interfaces.mailbox import IAccountMailboxes, IMailbox, Uid
from mailsrv.pop3.maildrop import Maildrop

INBOX = "INBOX"
SUMMARIES_AT_A_TIME = 1000


class OpenMaildrop:
    """A maildrop under its exclusive lock (RFC 1939 4). ``account``: whose, for the log."""

    def __init__(self, account: str, mailbox: IMailbox, listing: Maildrop, ending: ExitStack) -> None:
        self.account = account
        self.mailbox = mailbox
        self.listing = listing
        self._ending = ending

    def close(self) -> None:
        """Release lock, mailbox and account. Safe to call twice."""
        self._ending.close()


async def open_maildrop(
    portal: Portal,
    credentials: PasswordCredentials | SaslCredentials,
    count: Callable[[str], None],
    mind: object = None,
) -> OpenMaildrop:
    """Log in and open INBOX.

    ``mind`` is the :class:`~mailsrv.interfaces.sessions.IUserSession`. ``count`` is told the account and may refuse it
    (too many connections). Fails with InvalidCredentials, Unavailable, MailboxInUse, or another MailError.
    """
    _, avatar, log_out = await portal.login(cast(Any, credentials), mind, IAccount)  # cred has no type for ours
    with ExitStack() as taken:
        taken.callback(log_out)
        account = IAccount(avatar)
        count(str(account.address))
        mailboxes: IAccountMailboxes = await account.open_mailboxes()
        taken.callback(mailboxes.release)
        taken.callback(await mailboxes.lock_maildrop())
        mailbox: IMailbox = await mailboxes.open_mailbox(INBOX)
        taken.callback(mailbox.close)
        listing = await _listing(mailbox)
        return OpenMaildrop(who(account), mailbox, listing, taken.pop_all())


async def _listing(mailbox: IMailbox) -> Maildrop:
    """Numbers and sizes as of now; messages that go meanwhile are left out."""
    present = mailbox.uids
    count = len(present)
    uids, sizes = array("I"), array("Q")
    for start in range(0, count, SUMMARIES_AT_A_TIME):
        chunk = [Uid(uid) for uid in present[start : min(start + SUMMARIES_AT_A_TIME, count)]]
        for summary in await mailbox.summaries(chunk):
            uids.append(summary.uid)
            sizes.append(summary.size_octets)
    return Maildrop(mailbox.uid_validity, uids, sizes)
