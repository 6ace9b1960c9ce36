"""The accounts of a process: which are in use, and which have their index open.

Closing is early: a bounded number of indexes is open, the longest unused goes first (DESIGN decision 7). The table
also gathers what threads have to say of all accounts: directories a checkpoint has to sync, and notices of changes.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import apsw
from attrs import evolve
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from mailsrv.address import Address
from mailsrv.disk import IDisk
from mailsrv.interfaces.changes import ChangeNotice, IChangeBus
from mailsrv.store.account import Account
from mailsrv.store.index.connection import check_file_system, check_sqlite
from mailsrv.store.settings import StoreSettings


class AccountTable:
    """Every account somebody uses, and how many have their index open. Safe for threads."""

    _log = Logger()

    def __init__(
        self,
        settings: StoreSettings,
        disk: IDisk,
        reactor: IReactorFromThreads,
        run_id: bytes,
        bus: IChangeBus,
    ) -> None:
        check_sqlite()
        self.settings = evolve(settings, path=os.path.abspath(settings.path))
        self.disk = disk
        self.reactor = reactor
        self.run_id = run_id
        self.bus = bus
        self.live_segments: Callable[[], frozenset[bytes]] | None = None
        """Set once the journal is there: until then no tombstone is purged, no file taken for an orphan."""
        self._lock = threading.Lock()
        self._accounts: dict[Address, Account] = {}
        self._open: OrderedDict[Account, float] = OrderedDict()
        self._touched: set[str] = set()
        self._notices: dict[tuple[str, int], ChangeNotice] = {}
        self._checked_file_system = False

    def account(self, address: Address) -> Account:
        """The account's files; the same object for all."""
        found = self._accounts.get(address)
        if found is None:
            with self._lock:
                found = self._accounts.get(address)
                if found is None:
                    found = self._accounts[address] = Account(self, address)
        return found

    def check_file_system(self, path: str) -> None:
        """Once: refuse what cannot hold an index."""
        if not self._checked_file_system:
            check_file_system(self.disk, path)
            self._checked_file_system = True

    # Open indexes

    def opened(self, account: Account) -> None:
        """An index was opened: close the longest unused beyond the bound."""
        with self._lock:
            self._open[account] = time.monotonic()
            excess = len(self._open) - self.settings.open_accounts
            oldest = [one for _, one in zip(range(max(excess, 0) * 2), self._open, strict=False)] if excess > 0 else []
        for one in oldest:
            if excess <= 0:
                break
            if one is not account and one.close_if_free():
                excess -= 1

    def used(self, account: Account) -> None:
        """An index was used just now."""
        with self._lock:
            if account in self._open:
                self._open[account] = time.monotonic()
                self._open.move_to_end(account)

    def closed(self, account: Account) -> None:
        """An index was closed; an account nobody refers to is forgotten."""
        with self._lock:
            self._open.pop(account, None)

    def close_idle(self, seconds: float) -> int:
        """Close every index unused for so long; how many. In a thread."""
        limit = time.monotonic() - seconds
        with self._lock:
            idle = [account for account, used in self._open.items() if used <= limit]
        return sum(account.close_if_free() for account in idle)

    def addresses(self) -> Sequence[Address]:
        """Of all accounts that are remembered, as of now."""
        with self._lock:
            return tuple(self._accounts)

    def forget_unused(self, addresses: Iterable[Address], is_used: Callable[[Address], bool]) -> None:
        """Drop those of these accounts whose index is closed and that no session refers to."""
        with self._lock:
            for address in addresses:
                account = self._accounts.get(address)
                if account is None or account.is_open or account.is_log_doubtful or is_used(address):
                    continue
                if account.lock.acquire(blocking=False):
                    if not account.is_open:
                        del self._accounts[address]
                    account.lock.release()

    def close_all(self) -> None:
        """The clean end: reservations go back, everything is closed. In a thread."""
        with self._lock:
            accounts = list(self._open)
        for account in accounts:
            try:
                account.give_back()
            except (apsw.Error, OSError) as error:
                self._log.warn("could not close {account} cleanly: {error}", account=account.name, error=str(error))
            account.close()

    # What a checkpoint has to make durable

    def touch(self, directories: Iterable[str]) -> None:
        """These directories were written unsynced."""
        with self._lock:
            self._touched.update(directories)

    def take_touched(self) -> set[str]:
        """And forget them."""
        with self._lock:
            touched, self._touched = self._touched, set()
        return touched

    # Notices from threads

    def announce(self, notices: Iterable[ChangeNotice]) -> None:
        """Publish from a thread: what waits for the reactor coalesces."""
        with self._lock:
            is_first = not self._notices
            for notice in notices:
                key = (notice.account, notice.mailbox_id)
                known = self._notices.get(key)
                if known is None or known.mod_seq <= notice.mod_seq:
                    self._notices[key] = notice
        if is_first:
            self.reactor.callFromThread(self._publish)

    def _publish(self) -> None:
        with self._lock:
            notices, self._notices = self._notices, {}
        for notice in notices.values():
            self.bus.publish(notice)
