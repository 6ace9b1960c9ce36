"""Transaction ids: short, sortable by time, unique over the workers of a server and its restarts."""

from __future__ import annotations

import secrets
from collections.abc import Callable

# Crockford's alphabet: its order is that of ASCII, and no two letters are mistaken for each other.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TIME_DIGITS, _WORKER_DIGITS, _COUNT_DIGITS = 9, 4, 3
_COUNT_LIMIT = 32**_COUNT_DIGITS
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]


class TransactionIds:
    """Gives out ids of 16 characters: milliseconds since 1970, this process's random mark, a count.

    Ids of one process ascend, also when the clock is set back. Two processes collide only if
    they drew the same of a million marks and count alike within the same millisecond.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._mark = _digits(secrets.randbits(5 * _WORKER_DIGITS), _WORKER_DIGITS)
        self._last = 0
        self._count = 0
        self._time = ""

    def new(self) -> str:
        """The next id."""
        now = int(self._seconds() * 1000)
        if now > self._last:
            self._begin(now)
        else:
            self._count += 1
            if self._count == _COUNT_LIMIT:
                self._begin(self._last + 1)
        count = self._count
        return f"{self._time}{self._mark}{_ALPHABET[count >> 10]}{_PAIRS[count & 1023]}"

    def _begin(self, milliseconds: int) -> None:
        self._last, self._count = milliseconds, 0
        self._time = _digits(milliseconds, _TIME_DIGITS)


def _digits(number: int, length: int) -> str:
    pairs = []
    for _ in range(0, length, 2):
        pairs.append(_PAIRS[number & 1023])
        number >>= 10
    return "".join(reversed(pairs))[-length:]
