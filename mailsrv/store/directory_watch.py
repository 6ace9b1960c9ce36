"""Changes by other programs, as they happen: inotify on the folders of open mailboxes.

One instance a worker. An event is a hint: the mailbox compares the folder's time stamps with
those recorded after our own changes and looks closer only if they differ (DESIGN decision 10). Where
inotify is missing or exhausted, SELECT and the slow poll find the changes later.

Ending a watch makes the kernel wait for a millisecond or so. A folder nobody has open any more stays
watched for a while, as the same client often opens it again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from itertools import islice

from twisted.internet import inotify
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads
from twisted.logger import Logger
from twisted.python.filepath import FilePath

_PARTS = ("new", "cur")
_UNUSED_SECONDS = 30.0
_MOST_UNUSED = 1000
_ENDED_AT_ONCE = 20
"""Each may take a millisecond of the reactor's."""
_MASK = inotify.IN_CREATE | inotify.IN_DELETE | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO
_AFTER_SECONDS = 0.1
"""Events of one burst are one hint; our own changes have recorded their time stamps by then."""


class DirectoryWatch:
    """Who wants to hear of which folder. Reactor thread only."""

    _log = Logger()

    def __init__(self, reactor: IReactorFromThreads, *, enabled: bool = True) -> None:
        self._reactor = reactor
        self._is_enabled = enabled
        self._notify: inotify.INotify | None = None
        self._paths: dict[object, str] = {}
        self._callbacks: dict[str, dict[object, Callable[[], None]]] = {}
        self._hinted: dict[str, IDelayedCall] = {}
        self._inodes: dict[str, tuple[int, ...]] = {}
        self._by_inodes: dict[tuple[int, ...], set[str]] = {}
        self._unused: dict[str, float] = {}

    def start(self) -> None:
        """Begin; without inotify this does nothing from then on."""
        if not self._is_enabled:
            return
        try:
            notify = inotify.INotify(self._reactor)
            notify.startReading()
        except Exception as error:
            self._log.warn("no inotify ({error}): changes by other programs are seen later", error=str(error))
            return
        self._notify = notify
        for path in self._callbacks:
            self._watch(path, _inodes(path))

    def stop(self) -> None:
        """End."""
        for call in self._hinted.values():
            if call.active():
                call.cancel()
        self._hinted = {}
        self._inodes = {}
        self._by_inodes = {}
        self._unused = {}
        notify, self._notify = self._notify, None
        if notify is not None:
            notify.stopReading()
            notify.loseConnection()

    def add(self, owner: object, path: str, callback: Callable[[], None]) -> None:
        """Call ``callback`` soon after names in ``path``'s new or cur changed."""
        self._paths[owner] = path
        is_first = path not in self._callbacks
        self._callbacks.setdefault(path, {})[owner] = callback
        if not is_first:
            return
        inodes = _inodes(path)
        if path in self._unused:
            if self._inodes[path] != inodes:
                self._end_watch(path)  # another folder of the same name
            self._unused.pop(path, None)
        # A folder that was renamed: to the kernel it is one watch under both names.
        for other in [one for one in self._by_inodes.get(inodes, ()) if one in self._unused]:
            self._end_watch(other)
        self._watch(path, inodes)

    def remove(self, owner: object) -> None:
        """``owner`` is no longer interested."""
        path = self._paths.pop(owner, None)
        if path is None:
            return
        callbacks = self._callbacks[path]
        callbacks.pop(owner, None)
        if not callbacks:
            del self._callbacks[path]
            if path in self._inodes:
                self._unused[path] = self._reactor.seconds()  # type: ignore[attr-defined]
                if len(self._unused) > _MOST_UNUSED:
                    self._end_watch(next(iter(self._unused)))

    def end_unused(self) -> None:
        """Stop watching what nobody has had open for a while."""
        before = self._reactor.seconds() - _UNUSED_SECONDS  # type: ignore[attr-defined]
        oldest = [path for path, since in islice(self._unused.items(), _ENDED_AT_ONCE) if since <= before]
        for path in oldest:
            self._end_watch(path)

    def _end_watch(self, path: str) -> None:
        self._unused.pop(path, None)
        inodes = self._inodes.pop(path, None)
        if inodes is not None:
            paths = self._by_inodes[inodes]
            paths.discard(path)
            if not paths:
                del self._by_inodes[inodes]
        if self._notify is not None:
            for part in _PARTS:
                with contextlib.suppress(KeyError, OSError):
                    self._notify.ignore(FilePath(f"{path}/{part}"))

    def _watch(self, path: str, inodes: tuple[int, ...]) -> None:
        if self._notify is None:
            return
        self._inodes[path] = inodes
        self._by_inodes.setdefault(inodes, set()).add(path)
        for part in _PARTS:
            if not os.path.isdir(f"{path}/{part}"):
                continue
            try:
                self._notify.watch(FilePath(f"{path}/{part}"), _MASK, callbacks=[self._event(path)])
            except Exception as error:
                self._log.warn("cannot watch {path}: {error}", path=path, error=str(error))
                return

    def _event(self, path: str) -> Callable[[object, FilePath[str], int], None]:
        def event(_ignored: object, _file: FilePath[str], _mask: int) -> None:
            if path not in self._hinted and path in self._callbacks:
                self._hinted[path] = self._reactor.callLater(  # type: ignore[attr-defined]
                    _AFTER_SECONDS, self._hint, path
                )

        return event

    def _hint(self, path: str) -> None:
        self._hinted.pop(path, None)
        for callback in list(self._callbacks.get(path, {}).values()):
            callback()


def _inodes(path: str) -> tuple[int, ...]:
    found = []
    for part in _PARTS:
        try:
            found.append(os.stat(f"{path}/{part}").st_ino)
        except OSError:
            found.append(0)
    return tuple(found)
