"""Searches that are watched: what was asked for, whom, how long it took. For commands that explain."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar, cast

from attrs import frozen

from mailsrv.directory.ldap.connection import LdapConnection, LdapEntry
from mailsrv.directory.ldap.search import Search
from mailsrv.directory.ldap.trouble import LdapTrouble


@frozen
class Asked:
    """One search and its answer."""

    server: str
    base: str
    what: str
    """The filter."""
    milliseconds: float
    entries: tuple[LdapEntry, ...] = ()
    trouble: str = ""
    """Why there was no answer."""

    def __str__(self) -> str:
        if self.trouble:
            return self.trouble
        shown = "; ".join(entry.dn for entry in self.entries[:5]) or "no entry"
        return f"{shown} and {len(self.entries) - 5} more" if len(self.entries) > 5 else shown


T = TypeVar("T")

Observer = Callable[[Asked], None]


def observed(work: Callable[[LdapConnection, float], T], observer: Observer) -> Callable[[LdapConnection, float], T]:
    """The same work, watched."""
    return lambda connection, deadline: work(cast(LdapConnection, _ObservedConnection(connection, observer)), deadline)


class _ObservedConnection:
    """A connection as readers of entries see it; each search is told to ``observer``, in the thread that asks."""

    def __init__(self, connection: LdapConnection, observer: Observer) -> None:
        self._connection = connection
        self._observer = observer

    def search(self, search: Search, deadline: float) -> tuple[LdapEntry, ...]:
        """As :meth:`LdapConnection.search`."""
        began = time.perf_counter()
        found: tuple[LdapEntry, ...] = ()
        trouble = ""
        try:
            found = self._connection.search(search, deadline)
        except LdapTrouble as error:
            trouble = str(error)
            raise
        finally:
            milliseconds = (time.perf_counter() - began) * 1000
            server, what = self._connection.server.uri, search.what.text
            self._observer(Asked(server, search.base, what, milliseconds, found, trouble))
        return found
