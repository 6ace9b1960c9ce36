"""A file whose parsed contents are kept in memory and follow the file.

Whoever asks gets the contents as of at most ``check_seconds`` ago. The file is looked at only
when somebody asks, in a thread, and once for all who ask meanwhile. A file that is missing,
unreadable, too large or does not answer by the deadline (a dead network mount) is
:class:`~mailsrv.errors.Unavailable` for as long as that lasts: it must never look like an empty
one, or mail for everybody would be refused (R-AUTH-7).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.errors import Unavailable
from mailsrv.threads import RunInThread

T = TypeVar("T")
F = TypeVar("F")

SETTLED_SECONDS = 2.0
"""A file changed less than this ago may change again without its time stamp moving: it is read again."""

_Signature = tuple[int, int, int, int]


@frozen
class Problem:
    """Something wrong with one line; the rest of the file counts."""

    line: int
    text: str


@frozen
class Parsed(Generic[T]):
    """What a parser makes of a file."""

    value: T
    problems: tuple[Problem, ...] = ()


@frozen
class _Reading(Generic[T]):
    """What one look at the file found; ``parsed`` is None where the contents are as before."""

    signature: _Signature | None
    digest: bytes
    parsed: Parsed[T] | None


@frozen
class FileWatching:
    """How the files of a directory are watched."""

    clock: IReactorTime
    run_in_thread: RunInThread
    check_seconds: float = 1.0
    """A file is looked at again after that."""
    deadline_seconds: float = 5.0
    """Nobody waits longer for a look."""
    max_octets: int = 64 * 1024 * 1024
    """A larger file is not read."""


class WatchedFile(Generic[T]):
    """Keeps up with one file. ``parse`` is called in a thread and must not raise."""

    _log = Logger()

    def __init__(self, path: str, parse: Callable[[bytes], Parsed[T]], watching: FileWatching) -> None:
        self.path = path
        self._parse = parse
        self._clock = watching.clock
        self._run_in_thread = watching.run_in_thread
        self._check_seconds = watching.check_seconds
        self._deadline_seconds = watching.deadline_seconds
        self._max_octets = watching.max_octets
        self._value: T | None = None
        self._trouble: Unavailable | None = None
        self._signature: _Signature | None = None
        self._digest = b""
        self._checked_at: float | None = None
        self._is_checking = False
        self._is_overdue = False
        self._waiting: list[Deferred[T]] = []

    def contents(self) -> Deferred[T]:
        """The contents now. Fails with Unavailable."""
        if self._is_checking:
            if self._is_overdue:
                return fail(self._hanging())
            waiter: Deferred[T] = Deferred()
            self._waiting.append(waiter)
            return waiter
        if self._is_fresh():
            return self._answer()
        return self._check()

    def find(self, look_up: Callable[[T], F]) -> Deferred[F]:
        """What ``look_up`` finds in the contents now. Fails with Unavailable."""
        value = self.at_hand()
        if value is not None:
            # The usual case; a callback would cost more than the look-up.
            return succeed(look_up(value))
        return self.contents().addCallback(look_up)

    def at_hand(self) -> T | None:
        """The contents now where nobody has to be asked or waited for, else None."""
        if self._trouble is None and not self._is_checking and self._is_fresh():
            return self._value
        return None

    @property
    def trouble(self) -> str:
        """Why it could not be used at the last look; "" if it could."""
        if self._is_overdue:
            return "it takes too long to read"
        return "" if self._trouble is None else self._trouble.cause

    def last_known(self) -> T | None:
        """The contents at the last look, however long ago; None before the first."""
        return self._value

    def _is_fresh(self) -> bool:
        return self._checked_at is not None and self._clock.seconds() - self._checked_at < self._check_seconds

    def _answer(self) -> Deferred[T]:
        if self._trouble is not None:
            return fail(Unavailable(cause=self._trouble.cause))
        if self._value is None:
            return fail(Unavailable(cause=f"{self.path} was not read yet"))
        return succeed(self._value)

    def _hanging(self) -> Unavailable:
        return Unavailable(cause=f"reading {self.path} takes longer than {self._deadline_seconds:g} s")

    def _check(self) -> Deferred[T]:
        self._is_checking = True
        signature, digest = self._signature, self._digest
        waiter: Deferred[T] = Deferred()
        self._waiting.append(waiter)
        deadline = self._clock.callLater(self._deadline_seconds, self._deadline_passed)

        def finished(result: _Reading[T] | Failure) -> None:
            if deadline.active():
                deadline.cancel()
            self._is_checking = self._is_overdue = False
            self._checked_at = self._clock.seconds()
            if isinstance(result, Failure):
                self._failed(result)
            else:
                self._take(result)
            self._tell_waiting()

        self._run_in_thread(lambda: self._read(signature, digest)).addBoth(finished)
        return waiter

    def _tell_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            self._answer().chainDeferred(waiter)

    def _deadline_passed(self) -> None:
        self._is_overdue = True
        self._log.error("{path} cannot be read in time", path=self.path)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.errback(self._hanging())

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, Unavailable):
            trouble = error
        elif isinstance(error, OSError):
            trouble = Unavailable(cause=f"{self.path}: {error.strerror}")
        else:
            self._log.failure("Reading {path} failed", failure, path=self.path)
            trouble = Unavailable(cause=f"reading {self.path} failed")
        if self._trouble is None or self._trouble.cause != trouble.cause:
            self._log.error("{cause}: what it holds is unavailable until it can be read", cause=trouble.cause)
        self._trouble = trouble
        # Whatever comes back is read anew, but need not be parsed again if it is the same.
        self._signature = None

    def _take(self, reading: _Reading[T]) -> None:
        if self._trouble is not None:
            self._log.info("{path} can be read again", path=self.path)
            self._trouble = None
        self._signature, self._digest = reading.signature, reading.digest
        if reading.parsed is not None:
            self._value = reading.parsed.value
            for problem in reading.parsed.problems:
                self._log.warn(
                    "{path}, line {line}: {problem}", path=self.path, line=problem.line, problem=problem.text
                )

    def _read(self, known: _Signature | None, known_digest: bytes) -> _Reading[T]:
        """In a thread: look, and read if the file may be another."""
        for _ in range(3):
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                before = _signature(os.fstat(descriptor))
                if before == known:
                    return _Reading(known, known_digest, None)
                octets = file.read(self._max_octets + 1)
                after = _signature(os.fstat(descriptor))
            if before == after:
                break
        if len(octets) > self._max_octets:
            raise Unavailable(cause=f"{self.path} has more than {self._max_octets} octets")
        is_settled = before == after and abs(time.time() - after[0] / 1e9) > SETTLED_SECONDS
        digest = hashlib.blake2b(octets, digest_size=16).digest()
        parsed = None if digest == known_digest else self._parse(octets)
        return _Reading(after if is_settled else None, digest, parsed)


def _signature(status: os.stat_result) -> _Signature:
    return (status.st_mtime_ns, status.st_ino, status.st_dev, status.st_size)
