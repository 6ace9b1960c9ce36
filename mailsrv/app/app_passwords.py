"""The app passwords of a process: their file, the thread that asks it, and who judges by it."""

from __future__ import annotations

import functools
import time
from typing import Any

from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from mailsrv.auth.app_passwords.database import AppPasswordDatabase, database_path
from mailsrv.auth.app_passwords.judge import AppPasswordJudge
from mailsrv.config.schema import Settings


class AppPasswords:
    """One thread of its own: directories that hang do not hold up who has an app password."""

    def __init__(self, settings: Settings, reactor: Any) -> None:
        """Opens nothing yet."""
        self._pool = ThreadPool(0, 1, "app passwords")
        self._database = AppPasswordDatabase(database_path(settings.state_dir))
        self.judge = AppPasswordJudge(
            self._database,
            settings.auth,
            run_in_thread=functools.partial(deferToThreadPool, reactor, self._pool),
            seconds=time.time,
        )

    def start(self) -> None:
        """From now on they can be asked for."""
        self._pool.start()
        self.judge.look()

    def stop(self) -> None:
        """Waits for the question under way, a fraction of a second."""
        if self._pool.started and not self._pool.joined:
            self._pool.callInThread(self._database.close)
            self._pool.stop()
