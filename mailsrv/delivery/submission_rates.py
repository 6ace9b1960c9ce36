"""What one user may send in an hour and in a day: a stolen account is contained.

Counted over all connections and workers, and across restarts (:mod:`mailsrv.delivery.submission_table`).
Past a limit MAIL or RCPT gets 450 4.7.1 with the time to wait, and the log says so, once in ten
minutes for a user. ``mailsrvctl rates`` shows and lifts what is used.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator

from attrs import frozen
from twisted.logger import Logger

from mailsrv.address import Address
from mailsrv.delivery.submission_settings import SubmissionSettings
from mailsrv.delivery.submission_table import SubmissionTable, UserRecord
from mailsrv.errors import MailError
from mailsrv.status import POLICY_DELAY
from mailsrv.wire.mapped_file import LateTable

HOUR, DAY = 3600.0, 86400.0
_QUIET_SECONDS = 600.0
_ROUNDING = 0.01
_HALF_A_MINUTE = 30.0


@frozen
class SubmissionLimit:
    """One of the four."""

    name: str
    """Of the setting."""
    what: str
    """Of which the peer sent too many."""
    count: int
    seconds: float

    @property
    def interval(self) -> float:
        return self.seconds / self.count

    def used(self, arrival: float, now: float) -> int:
        """How many of the limit are used up, whatever the arrival time that is stored."""
        ahead = arrival - now
        if not ahead > 0:
            return 0
        return self.count if ahead >= self.seconds else math.ceil(ahead / self.interval - _ROUNDING)

    def wait_seconds(self, arrival: float, now: float, amount: int = 1) -> float:
        """How long until ``amount`` more are within the limit; 0 for now."""
        ahead = arrival - now
        ahead = min(ahead, self.seconds) if ahead > 0 else 0.0
        wait = ahead + amount * self.interval - self.seconds
        return wait if wait > self.interval * _ROUNDING else 0.0


def rates_path(state_dir: str) -> str:
    """The file of a server."""
    return os.path.join(state_dir, "rates", "submission")


def limits_of(settings: SubmissionSettings) -> tuple[SubmissionLimit | None, ...]:
    """In the order of the table's arrival times; None for no limit."""
    limits = (
        SubmissionLimit("messages_per_hour", "messages", settings.messages_per_hour, HOUR),
        SubmissionLimit("messages_per_day", "messages", settings.messages_per_day, DAY),
        SubmissionLimit("recipients_per_hour", "recipients", settings.recipients_per_hour, HOUR),
        SubmissionLimit("recipients_per_day", "recipients", settings.recipients_per_day, DAY),
    )
    return tuple(limit if limit.count else None for limit in limits)


class SubmissionRates:
    """Counts what users send. ``seconds`` is the wall clock."""

    _log = Logger()

    def __init__(self, settings: SubmissionSettings, path: str | None, seconds: Callable[[], float]) -> None:
        """The file at ``path`` is made by :meth:`start` if need be.

        Where that fails, and without a path, this process counts alone.
        """
        self._seconds = seconds
        users = settings.users_remembered
        self._file = LateTable(
            path,
            SubmissionTable.what,
            lambda path: SubmissionTable.open(path, users),
            lambda: SubmissionTable.in_memory(users),
        )
        self.replace_settings(settings)

    def start(self) -> None:
        """Open the file; waits for the disk."""
        self._file.start()

    @property
    def table(self) -> SubmissionTable:
        """What is counted."""
        return self._file.table

    def replace_settings(self, settings: SubmissionSettings) -> None:
        """Use these limits from now on; what was used is kept. ``users_remembered`` is settled at the start."""
        self._unlimited = frozenset(settings.unlimited_users)
        limits = limits_of(settings)
        self._of_messages = [(index, limit) for index, limit in enumerate(limits[:2]) if limit is not None]
        self._of_recipients = [(index, limit) for index, limit in enumerate(limits[2:], 2) if limit is not None]

    def check(self, account: Address, recipients: int) -> MailError | None:
        """Count a message (at MAIL, ``recipients`` 0) or recipients (at RCPT) of a user, if that is within the limits.

        Else nothing is counted and the refusal is answered.
        """
        limits = self._of_recipients if recipients else self._of_messages
        name = str(account)
        if not limits or name in self._unlimited:
            return None
        table, now, amount = self.table, self._seconds(), recipients or 1
        slot = table.find_or_make(name)
        longest, hit = 0.0, None
        for index, limit in limits:
            arrival = table.arrival(slot, index)
            if arrival > now + limit.seconds:
                # Of a clock that was set back, or of another limit: recover from now on.
                arrival = now + limit.seconds
                table.set_arrival(slot, index, arrival)
            wait = limit.wait_seconds(arrival, now, amount)
            if wait > longest:
                longest, hit = wait, limit
        if hit is not None:
            return self._refusal(name, slot, hit, longest, now)
        for index, limit in limits:
            stored = table.arrival(slot, index)
            table.set_arrival(slot, index, (stored if stored > now else now) + amount * limit.interval)
        return None

    def _refusal(self, name: str, slot: int, limit: SubmissionLimit, wait: float, now: float) -> MailError:
        if self.table.note_refusal(slot, now, _QUIET_SECONDS):
            self._log.warn(
                "{account} is over the limit {limit} of {count}: submission is refused; "
                "was the account stolen? (mailsrvctl rates show {account})",
                account=name,
                limit=limit.name,
                count=limit.count,
            )
        period = "an hour" if limit.seconds == HOUR else "a day"
        return MailError(
            POLICY_DELAY,
            f"Too many {limit.what} sent: the limit is {limit.count} {period}; try again in {_duration(wait)}",
            cause=f"limit {limit.name} of {name}",
        )


def _duration(seconds: float) -> str:
    minutes = max(1, round((seconds + _HALF_A_MINUTE) / 60))
    if minutes < 120:
        return "1 minute" if minutes == 1 else f"{minutes} minutes"
    return f"{round(minutes / 60)} hours"


@frozen
class UserRates:
    """A user's use of the limits, for ``mailsrvctl``."""

    user: str
    used: dict[str, int]
    """By the name of the limit."""
    blocked_by: str
    """The limit the next message or recipient would be over; "" for none."""
    wait_seconds: float
    refusals: int
    refused_at: float


def rates_of(record: UserRecord, settings: SubmissionSettings, now: float) -> UserRates:
    """What a record says with these limits."""
    used, waits = {}, {}
    for limit, arrival in zip(limits_of(settings), record.arrivals, strict=True):
        if limit is not None:
            used[limit.name] = limit.used(arrival, now)
            waits[limit.name] = limit.wait_seconds(arrival, now)
    blocked_by = max(waits, key=lambda name: waits[name], default="")
    if not blocked_by or not waits[blocked_by] or record.name in settings.unlimited_users:
        blocked_by = ""
    return UserRates(
        record.name,
        used,
        blocked_by,
        waits.get(blocked_by, 0.0),
        record.refusals,
        record.refused_at if 0 < record.refused_at < now + DAY else 0.0,
    )


def all_rates(table: SubmissionTable, settings: SubmissionSettings, now: float) -> Iterator[UserRates]:
    """Of everybody who has used anything, in no particular order."""
    for record in table:
        rates = rates_of(record, settings, now)
        if any(rates.used.values()):
            yield rates
