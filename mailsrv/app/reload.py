"""SIGHUP: the file and the certificates are read again, and no connection is dropped.

A file that is broken, or names a key that cannot be read, is refused with the reasons in the log
and everything stays as it was. What cannot change while the server runs is named in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.app.life import ServerLife
from mailsrv.app.logging import LogWriter
from mailsrv.app.server import ReloadRefused
from mailsrv.config.load import parse, read
from mailsrv.config.problems import ConfigurationError
from mailsrv.config.schema import Settings

_log = Logger()

# Where a new value needs a restart: the sockets are bound, the workers run, the journal is open.
RESTART_KEYS = (
    "hostname",
    "state_dir",
    "workers",
    "listen",
    "journal",
    "store",
    "passwords",
    "server",
    "queue",
    "relay",
    "dns",
    "tls_client",
    "mta_sts",
    "tls_reports",
    "sendmail",
)


@frozen
class LoadedConfiguration:
    """A file as it was read: the settings and the text workers are given."""

    path: str
    text: str
    settings: Settings


def load_configuration(path: str) -> LoadedConfiguration:
    """Read and check a file. Raises :class:`ConfigurationError`."""
    text = read(path)
    return LoadedConfiguration(path, text, parse(text, path))


def read_again(current: LoadedConfiguration) -> LoadedConfiguration | None:
    """The file as it is now; None, with every mistake in the log, if it cannot be used."""
    try:
        loaded = load_configuration(current.path)
    except ConfigurationError as error:
        for line in str(error).splitlines():
            _log.error("reload refused, the old settings stay: {problem}", problem=line)
        return None
    warn_of_restart_keys(current.settings, loaded.settings)
    return loaded


def warn_of_restart_keys(old: Settings, new: Settings) -> None:
    """Say which changes wait for the next start."""
    waiting = [key for key in RESTART_KEYS if getattr(old, key) != getattr(new, key)]
    if (old.log.path, old.log.format) != (new.log.path, new.log.format):
        waiting.append("log")
    if waiting:
        _log.warn("changes of {keys} take effect at the next start", keys=", ".join(waiting))


async def apply_settings(life: ServerLife, settings: Settings, log_writer: LogWriter | None) -> bool:
    """Hand settings to a running server; False if it refused them (then nothing has changed)."""
    try:
        effects = await life.reload(settings)
    except ReloadRefused as error:
        _log.error("reload refused, the old settings stay: {problem}", problem=str(error))
        return False
    if log_writer is not None:
        log_writer.set_level(settings.log.level)
    _log.info("reloaded: {effects}", effects=", ".join(effects))
    return True


class Reloader:
    """One reload at a time; one that is asked for meanwhile comes after it."""

    def __init__(self, reload: Callable[[], Coroutine[Deferred[Any], Any, None]]) -> None:
        self._reload = reload
        self._is_reloading = False
        self._is_asked_again = False

    def __call__(self) -> None:
        if self._is_reloading:
            self._is_asked_again = True
            return
        self._is_reloading = True
        Deferred.fromCoroutine(self._reload()).addErrback(self._failed).addBoth(self._done)

    def _failed(self, failure: Failure) -> None:
        _log.failure("reload refused, the old settings stay: {problem}", failure, problem=failure.getErrorMessage())

    def _done(self, _result: object) -> None:
        self._is_reloading = False
        if self._is_asked_again:
            self._is_asked_again = False
            self()
