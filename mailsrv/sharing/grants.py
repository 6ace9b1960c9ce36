"""What one user may open of others now: one value for all their sessions of a process, changed as the rights do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import evolve

from mailsrv.errors import Unavailable
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.mailbox import NoSuchSharedMailbox
from mailsrv.interfaces.rights import SharedAccount
from mailsrv.sharing.names import account_name


class Grants:
    """Reactor thread only."""

    __slots__ = ("_doubted", "_unknown", "_watchers", "accounts", "is_known", "sessions", "user")

    def __init__(self, user: DirectoryUser) -> None:
        self.user = user
        self.accounts: Mapping[str, SharedAccount] = {}
        """By the names of their INBOXes."""
        self.is_known = False
        """False until the directory has answered once."""
        self.sessions = 0
        self._doubted: frozenset[str] = frozenset()
        self._unknown: frozenset[str] = frozenset()
        """Accounts there is a right to, and nobody can say whether they are there."""
        self._watchers: dict[object, Callable[[], None]] = {}

    @property
    def is_doubted(self) -> bool:
        """Accounts were missing from the last answer, and the directory has to say so once more."""
        return bool(self._doubted)

    def replace(self, accounts: Sequence[SharedAccount]) -> None:
        """These rights hold from now on; whoever has a mailbox open hears of it.

        What is missing has to be missing twice, each account by itself: a directory that is being filled anew says of
        every entry, for a moment, that it is not there. An account nobody can tell of now stays as it was, without
        rights it had not.
        """
        before, self.is_known = self.accounts, True
        answered: dict[str, SharedAccount] = {}
        unknown: set[str] = set()
        for account in accounts:
            name = account_name(account.address)
            if account.is_known:
                answered[name] = account
            elif name in before:
                answered[name] = evolve(before[name], may_write=before[name].may_write and account.may_write)
            else:
                unknown.add(name)
        self._unknown = frozenset(unknown)
        self._doubted = frozenset(before.keys() - answered.keys() - self._doubted)
        self.accounts = {**{name: before[name] for name in self._doubted}, **answered}
        if self.accounts != before:
            for watcher in list(self._watchers.values()):
                watcher()

    def find(self, account: str) -> SharedAccount:
        """Raises NoSuchSharedMailbox, and Unavailable while the rights are not known."""
        found = self.accounts.get(account)
        if found is None:
            if not self.is_known or account in self._unknown:
                raise Unavailable(cause=f"the rights of {self.user.address} to mailboxes of others are not known yet")
            raise NoSuchSharedMailbox
        return found

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call ``watcher`` when the rights have changed; answers with what ends it."""
        token = object()
        self._watchers[token] = watcher

        def end() -> None:
            self._watchers.pop(token, None)

        return end
