"""The exclusive lock of a POP3 session on its maildrop (RFC 1939 section 4), over all workers.

An open-file-description lock on a file of the account: it ends with the process that held it.
"""

from __future__ import annotations

from collections.abc import Callable

from mailsrv.interfaces.mailbox import MailboxInUse
from mailsrv.store.account import Account

FILE = "mailsrv.maildrop-lock"


def lock_maildrop(account: Account) -> Callable[[], None]:
    """In a thread. The answer releases the lock, at once and from any thread; raises MailboxInUse."""
    try:
        file = account.disk.open_or_create(f"{account.root}/{FILE}")
    except FileNotFoundError:
        # The account is made with its index.
        with account.lock:
            account.writer()
        file = account.disk.open_or_create(f"{account.root}/{FILE}")
    if not file.try_lock():
        file.close()
        raise MailboxInUse("The maildrop is locked by another session")
    return file.close
