"""The Maildir store of a process (IMailStore): accounts in use, and the chores that run beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.interfaces.journal import IJournal
from mailsrv.interfaces.mailbox import IAccountMailboxes, IMailStore
from mailsrv.store.account_table import AccountTable
from mailsrv.store.directory_watch import DirectoryWatch
from mailsrv.store.mailbox import StoredMailbox
from mailsrv.store.mailboxes import AccountMailboxes
from mailsrv.store.summary_cache import SummaryCache
from mailsrv.store.threads import DiskThreads, IThreads

_CHORES_EVERY_SECONDS = 5.0
_ACCOUNTS_IN_ONE_GO = 256


@implementer(IMailStore)
class MailStore:
    """Reactor thread only. ``start`` before use, ``stop`` at the end."""

    _log = Logger()

    def __init__(
        self,
        accounts: AccountTable,
        journal: IJournal,
        threads: IThreads | None = None,
        watch: DirectoryWatch | None = None,
    ) -> None:
        settings = accounts.settings
        self._table = accounts
        self._journal = journal
        self._threads = threads or DiskThreads(accounts.reactor, settings.threads, settings.queued_operations)
        self._watch = watch if watch is not None else DirectoryWatch(accounts.reactor)
        self._cache = SummaryCache(settings.summary_cache_octets)
        self._accounts: dict[Address, AccountMailboxes] = {}
        self._chores: IDelayedCall | None = None
        self._since_poll = 0.0
        accounts.live_segments = journal.live_segments

    def start(self) -> Deferred[None]:
        """Threads and chores begin."""
        self._threads.start()
        self._watch.start()
        self._schedule()
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Work in progress is finished, reservations go back, indexes are closed."""
        if self._chores is not None and self._chores.active():
            self._chores.cancel()
        self._chores = None
        self._watch.stop()
        for account in list(self._accounts.values()):
            account.late_names.catch_up()

        def stopped(result: object) -> None:
            self._threads.stop()
            for account in list(self._accounts.values()):
                account.end()
            self._accounts = {}
            if isinstance(result, Failure):
                self._log.failure("the store did not end cleanly", failure=result)

        return self._threads.run(self._table.close_all).addBoth(stopped)

    # Accounts

    def _account(self, account: Address) -> AccountMailboxes:
        found = self._accounts.get(account)
        if found is None:
            found = AccountMailboxes(
                self._table,
                account,
                self._journal,
                threads=self._threads,
                cache=self._cache,
                released=self._account_released,
            )
            found.on_open = self._mailbox_opened
            found.on_close = self._mailbox_closed
            self._accounts[account] = found
        return found

    def _account_released(self, mailboxes: AccountMailboxes) -> None:
        if not mailboxes.references and not mailboxes.allowance.promised_octets and not mailboxes.open_mailboxes:
            if self._accounts.get(mailboxes.account) is mailboxes:
                del self._accounts[mailboxes.account]
            mailboxes.end()

    def open_account(self, account: Address, quota_octets: int | None = None) -> Deferred[IAccountMailboxes]:
        try:
            found = self._account(account)
        except MailError:
            return fail()
        if quota_octets is not None:
            found.allowance.octets = quota_octets
        found.references += 1
        return succeed(found)

    def has_quota(self, account: Address) -> bool:
        settings = self._table.settings
        held = self._accounts.get(account)
        octets = settings.quota_octets if held is None else held.allowance.octets
        return octets is not None or settings.quota_messages is not None

    def reserve_quota(self, account: Address, octets: int, limit_octets: int | None) -> Deferred[Callable[[], None]]:
        if limit_octets is None and not self.has_quota(account):
            return succeed(_nothing)
        try:
            found = self._account(account)
        except MailError:
            return fail()
        if limit_octets is not None:
            found.allowance.octets = limit_octets
        found.references += 1

        def reserved(give_back: Callable[[], None]) -> Callable[[], None]:
            is_held = True

            def release() -> None:
                nonlocal is_held
                if is_held:
                    is_held = False
                    give_back()
                    found.release()

            return release

        def refused(failure: Failure) -> Failure:
            found.release()
            return failure

        return found.reserve(octets).addCallbacks(reserved, refused)

    # Changes by other programs

    def _mailbox_opened(self, mailbox: StoredMailbox) -> None:
        self._watch.add(mailbox, mailbox.path, mailbox.hint)

    def _mailbox_closed(self, mailbox: StoredMailbox) -> None:
        self._watch.remove(mailbox)

    # Chores

    def _schedule(self) -> None:
        self._chores = self._call_later(_CHORES_EVERY_SECONDS, self._do_chores)

    def _call_later(self, seconds: float, function: Callable[..., None], *arguments: object) -> IDelayedCall:
        call: IDelayedCall = self._table.reactor.callLater(  # type: ignore[attr-defined]
            seconds, function, *arguments
        )
        return call

    def _do_chores(self) -> None:
        settings = self._table.settings
        self._since_poll += _CHORES_EVERY_SECONDS
        if self._since_poll >= settings.poll_seconds:
            self._since_poll = 0.0
            self.poll()
        self._threads.run(partial(self._table.close_idle, settings.idle_close_seconds)).addErrback(
            lambda failure: self._log.failure("closing of idle indexes failed", failure=failure)
        )
        self._watch.end_unused()
        self._forget_unused(iter(self._table.addresses()))

    def _forget_unused(self, left: Iterator[Address]) -> None:
        """In turns with everybody else: a message to a long list leaves thousands. After the last, chores rest."""
        some = tuple(islice(left, _ACCOUNTS_IN_ONE_GO))
        if not some:
            self._schedule()
            return
        self._table.forget_unused(some, self._accounts.__contains__)
        self._chores = self._call_later(0, self._forget_unused, left)

    def poll(self) -> None:
        """Look at every open mailbox: a notice may have been missed (DESIGN 5.7)."""
        for account in self._accounts.values():
            for mailbox in account.open_mailboxes:
                mailbox.hint()


def _nothing() -> None:
    """Where nothing was reserved, nothing is given back."""
