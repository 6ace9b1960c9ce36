"""Making hashes, and checking them in a bounded pool of threads.

A hash takes tens of milliseconds and 19 MiB: at most ``hash_threads`` are computed at a time, at
most ``hash_queue`` log-ins wait for their turn, and what comes then is told "temporary failure"
(RELIABILITY: bounded queue). The C code lets go of the interpreter lock, so the reactor runs on.
"""

from __future__ import annotations

import functools

from argon2 import PasswordHasher
from argon2.low_level import Type
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from mailsrv.directory.passwords.verifiers import password_octets, verify_password
from mailsrv.directory.settings import PasswordSettings
from mailsrv.sasl.scram_keys import ScramKeys
from mailsrv.threads import RunInThread, ThreadQueue


def make_hash(password: str, settings: PasswordSettings) -> str:
    """``{ARGON2ID}…`` for a new password. Takes its time. Raises ValueError for one nobody could log in with."""
    octets = password_octets(password)
    if octets is None:
        raise ValueError("the password is empty, too long, or has a NUL")
    hasher = PasswordHasher(
        time_cost=settings.argon2_time_cost,
        memory_cost=settings.argon2_memory_kib,
        parallelism=settings.argon2_parallelism,
        type=Type.ID,
    )
    return "{ARGON2ID}" + hasher.hash(octets)


def make_verifiers(password: str, settings: PasswordSettings) -> tuple[str, ...]:
    """``{SCRAM-SHA-256}…`` and the like for a new password, as the settings want them. Takes its time."""
    return tuple(
        f"{{{mechanism.value}}}{ScramKeys.derive(mechanism.value, password, settings.scram_iterations).format()}"
        for mechanism in settings.scram
    )


class HashingPool:
    """Checks passwords off the reactor thread. ``start`` before the first check, ``stop`` at the end.

    With ``run_in_thread`` given it uses those threads and has none of its own.
    """

    def __init__(
        self,
        settings: PasswordSettings,
        *,
        reactor: IReactorFromThreads,
        run_in_thread: RunInThread | None = None,
    ) -> None:
        self._settings = settings
        self._dummy = ""
        self._pool: ThreadPool | None = None
        if run_in_thread is None:
            self._pool = ThreadPool(0, settings.hash_threads, "password hashes")
            run_in_thread = functools.partial(deferToThreadPool, reactor, self._pool)
        self._queue = ThreadQueue(run_in_thread, settings.hash_threads + settings.hash_queue, "password hashes")

    @property
    def pending(self) -> int:
        """Checks running and waiting."""
        return self._queue.pending

    @property
    def refused(self) -> int:
        """How many checks found the queue full."""
        return self._queue.refused

    def start(self) -> None:
        """Start the pool's own threads."""
        if self._pool is not None and not self._pool.started:
            self._pool.start()

    def stop(self) -> None:
        """Wait for the hashes being computed (a fraction of a second) and end the threads."""
        if self._pool is not None and self._pool.started and not self._pool.joined:
            self._pool.stop()

    def verify(self, secret: str, password: str) -> Deferred[bool]:
        """Whether the password fits the stored hash. Fails with Unavailable when too many wait."""
        return self._queue.run(lambda: self._check(secret, password))

    def spend(self, typical_secret: str, password: str) -> Deferred[bool]:
        """Do the work of checking an unknown user's password; always False (R-AUTH-4).

        ``typical_secret`` is a hash that costs as much as the users' do; "" is a new one.
        """
        return self.verify(typical_secret, password).addCallback(lambda fits: False)

    def _check(self, secret: str, password: str) -> bool:
        """In a thread."""
        if not secret:
            # Made at first need: it costs as much as a check. Two threads may both make one; either will do.
            if not self._dummy:
                self._dummy = make_hash("nobody's password", self._settings)
            verify_password(self._dummy, password)
            return False
        return verify_password(secret, password)
