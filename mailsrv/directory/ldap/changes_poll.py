"""Changes by asking now and then for what is newer (:class:`~mailsrv.directory.ldap.changes.Source`).

Active Directory and Samba count every change (``uSNChanged``, indexed, of each server its own; MS-ADTS 3.1.1.1.9) and
show what was deleted to who may see it. Others have a ``modifyTimestamp`` in whole seconds: entries are asked for that
are not much older than the server's present, because replication brings them late, and those seen already are left out.
What is deleted is not seen there; the time an answer may be remembered catches it.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.logger import Logger

from mailsrv.directory.ldap import messages
from mailsrv.directory.ldap.changes import Change, Feed
from mailsrv.directory.ldap.connection import LdapConnection, LdapEntry
from mailsrv.directory.ldap.filters import Filter, all_of, at_least, equal
from mailsrv.directory.ldap.search import Search, entry_at
from mailsrv.directory.ldap.trouble import RequestTrouble

LIMIT = 5000
"""More changes at a time are told as "anything may have changed"."""
OVERLAP_SECONDS = 300
"""By how much replication may be late."""
BEGIN_SECONDS = 3600
"""By how much the server's clock may be behind ours while nothing was seen yet."""
_SEEN_LIMIT = 20_000
_SHOW_DELETED = b"1.2.840.113556.1.4.417"
_DELETED_MARK = "\\0ADEL:"
_STAMP = "%Y%m%d%H%M%SZ"


@frozen
class Concern:
    """Which entries, and what of them, a change is told with."""

    base: str
    what: Filter
    attributes: tuple[str, ...]
    answer_seconds: float
    """How long a search may take."""


class PollSource:
    """By whichever way the server has."""

    def __init__(self, concern: Concern, interval_seconds: float) -> None:
        self._by_time = TimeStampPoll(concern)
        self._by_number = UsnPoll(concern)
        self._concern = concern
        self._interval = interval_seconds

    def follow(self, connection: LdapConnection, feed: Feed) -> None:
        root = read_root(connection, self._concern.answer_seconds)
        poll: TimeStampPoll | UsnPoll
        if root.first("highestCommittedUSN"):
            poll, how = self._by_number, "polling uSNChanged"
        else:
            poll, how = self._by_time, "polling modifyTimestamp"
        poll.begin(root, feed)
        while True:
            poll.ask(connection, feed)
            feed.following(how)
            if not feed.pause(self._interval) or not feed.goes_on():
                return


def read_root(connection: LdapConnection, seconds: float) -> LdapEntry:
    """The root DSE (RFC 4512 5.1), as far as it matters here."""
    wanted = ("supportedControl", "highestCommittedUSN", "dsServiceName", "defaultNamingContext")
    found = connection.search(entry_at("", wanted), time.monotonic() + seconds)
    return found[0] if found else LdapEntry("", {})


class TimeStampPoll:
    """``modifyTimestamp`` (RFC 4512 3.4.4); ``entryCSN`` tells changes within one second apart where there is one."""

    def __init__(
        self,
        concern: Concern,
        *,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """``now`` is our time of day, ``seconds`` a clock that nobody sets."""
        self._concern = concern
        self._now = now
        self._seconds = seconds
        self._newest: datetime.datetime | None = None
        """The latest stamp, and when it was seen: since then the server's clock has gone on as ours has."""
        self._newest_seen_at = 0.0
        self._was_asked = False
        self._seen: dict[str, tuple[datetime.datetime, str, int]] = {}
        """By DN: stamp, mark, how often told."""

    def begin(self, root: LdapEntry, feed: Feed) -> None:
        """All servers of a directory have the same stamps: go on where we were."""

    def ask(self, connection: LdapConnection, feed: Feed) -> None:
        """Tell what is new."""
        concern = self._concern
        was_asked, self._was_asked = self._was_asked, True
        since = self._oldest()
        if since is None:
            since = self._now() - datetime.timedelta(seconds=BEGIN_SECONDS)
        entries = connection.search(
            Search(
                concern.base,
                all_of([concern.what, at_least("modifyTimestamp", since.strftime(_STAMP))]),
                (*concern.attributes, "modifyTimestamp", "entryCSN"),
                limit=LIMIT,
            ),
            time.monotonic() + concern.answer_seconds,
        )
        changes = self._news(entries)
        if len(entries) >= LIMIT:
            feed.tell(None)
        elif changes and was_asked:
            feed.tell(changes)
        self._forget_old()

    def _oldest(self) -> datetime.datetime | None:
        """How old what is new may be. It moves on: else a thousand entries of one day were asked for ever after."""
        if self._newest is None:
            return None
        # Not ahead of ours: where the server's clock was, it may have been put right.
        return min(self._present(self._newest), self._now()) - datetime.timedelta(seconds=OVERLAP_SECONDS)

    def _present(self, newest: datetime.datetime) -> datetime.datetime:
        """What the server's clock shows now, at least."""
        return newest + datetime.timedelta(seconds=self._seconds() - self._newest_seen_at)

    def _note(self, stamp: datetime.datetime) -> None:
        # A single one from the future must not hide all that comes before it.
        stamp = min(stamp, self._now())
        if self._newest is None or stamp > self._present(self._newest):
            self._newest, self._newest_seen_at = stamp, self._seconds()

    def _news(self, entries: Sequence[LdapEntry]) -> list[Change]:
        found = []
        for entry in entries:
            stamp = _read_stamp(entry.first("modifyTimestamp"))
            if stamp is None:
                continue
            self._note(stamp)
            mark = entry.first("entryCSN")
            seen = self._seen.get(entry.dn)
            times = seen[2] if seen is not None and seen[:2] == (stamp, mark) else 0
            # Without a finer mark it may change once more within the second it was seen in: told twice.
            if times < (1 if mark else 2):
                found.append(Change(entry.dn, entry))
                self._seen[entry.dn] = (stamp, mark, times + 1)
        return found

    def _forget_old(self) -> None:
        oldest = self._oldest()
        if oldest is None:
            return
        # A second more: stamps are cut to whole ones, as the question is.
        oldest -= datetime.timedelta(seconds=1)
        for dn in [dn for dn, (stamp, _, _) in self._seen.items() if stamp < oldest]:
            del self._seen[dn]
        while len(self._seen) > _SEEN_LIMIT:
            del self._seen[next(iter(self._seen))]


class UsnPoll:
    """``uSNChanged`` (MS-ADTS), with what was deleted (tombstones) where we may see it."""

    _log = Logger()

    def __init__(self, concern: Concern) -> None:
        self._concern = concern
        self._server = ""
        self._since = 0
        self._root = ""
        self._sees_deleted = True

    def begin(self, root: LdapEntry, feed: Feed) -> None:
        """Numbers are of one server: with another, anything may have changed."""
        server = root.first("dsServiceName")
        if server != self._server or not self._since:
            if self._since:
                feed.tell(None)
            self._server = server
            self._since = _number(root)
        self._root = root.first("defaultNamingContext")

    def ask(self, connection: LdapConnection, feed: Feed) -> None:
        """Tell what is new."""
        concern = self._concern
        # Read first: what is committed while we look is told once more rather than never.
        committed = _number(read_root(connection, concern.answer_seconds))
        if committed < self._since:
            # The server was set back to an earlier state.
            feed.tell(None)
        elif committed > self._since:
            newer = at_least("uSNChanged", str(self._since + 1))
            entries = connection.search(
                Search(concern.base, all_of([concern.what, newer]), (*concern.attributes, "uSNChanged"), limit=LIMIT),
                time.monotonic() + concern.answer_seconds,
            )
            changes = [Change(entry.dn, entry) for entry in entries]
            changes += self._deleted(connection, newer)
            if len(entries) >= LIMIT:
                feed.tell(None)
            elif changes:
                feed.tell(changes)
        self._since = committed

    def _deleted(self, connection: LdapConnection, newer: Filter) -> list[Change]:
        if not self._sees_deleted or not self._root:
            return []
        try:
            entries = connection.search(
                Search(
                    self._root,
                    all_of([equal("isDeleted", "TRUE"), newer]),
                    ("lastKnownParent",),
                    limit=LIMIT,
                    controls=(messages.control(_SHOW_DELETED),),
                ),
                time.monotonic() + self._concern.answer_seconds,
            )
        except RequestTrouble as error:
            self._sees_deleted = False
            self._log.info("{server}: deleted entries cannot be seen: {cause}", server=self._server, cause=str(error))
            return []
        return [Change(dn) for entry in entries if (dn := former_dn(entry))]


def former_dn(tombstone: LdapEntry) -> str:
    """What a deleted entry, ``CN=Carol\\0ADEL:…``, was called (MS-ADTS 3.1.1.5.5); "" if its parent is not told."""
    name, mark, _ = tombstone.dn.partition(_DELETED_MARK)
    parent = tombstone.first("lastKnownParent")
    return f"{name},{parent}" if mark and parent else ""


def _number(root: LdapEntry) -> int:
    text = root.first("highestCommittedUSN")
    return int(text) if text.isascii() and text.isdigit() else 0


def _read_stamp(text: str) -> datetime.datetime | None:
    try:
        return datetime.datetime.strptime(text.partition(".")[0].rstrip("Z"), "%Y%m%d%H%M%S").replace(
            tzinfo=datetime.UTC
        )
    except ValueError:
        return None
