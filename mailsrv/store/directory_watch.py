"""Changes by other programs, as they happen: inotify on the folders of open mailboxes.

One instance a worker. An event is a hint: the mailbox compares the folder's time stamps with
those recorded after our own changes and looks closer only if they differ (DESIGN decision 10). Where
inotify is missing or exhausted, SELECT and the slow poll find the changes later.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet import inotify
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads
from twisted.logger import Logger
from twisted.python.filepath import FilePath

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
            self._watch(path)

    def stop(self) -> None:
        """End."""
        for call in self._hinted.values():
            if call.active():
                call.cancel()
        self._hinted = {}
        notify, self._notify = self._notify, None
        if notify is not None:
            notify.stopReading()
            notify.loseConnection()

    def add(self, owner: object, path: str, callback: Callable[[], None]) -> None:
        """Call ``callback`` soon after names in ``path``'s new or cur changed."""
        self._paths[owner] = path
        is_first = path not in self._callbacks
        self._callbacks.setdefault(path, {})[owner] = callback
        if is_first:
            self._watch(path)

    def remove(self, owner: object) -> None:
        """``owner`` is no longer interested."""
        path = self._paths.pop(owner, None)
        if path is None:
            return
        callbacks = self._callbacks[path]
        callbacks.pop(owner, None)
        if not callbacks:
            del self._callbacks[path]
            if self._notify is not None:
                for part in ("new", "cur"):
                    try:
                        self._notify.ignore(FilePath(f"{path}/{part}"))
                    except (KeyError, OSError):
                        continue

    def _watch(self, path: str) -> None:
        if self._notify is None:
            return
        for part in ("new", "cur"):
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
