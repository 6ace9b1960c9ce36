"""Several workers, one destination that is down: what one found out the others know."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.interfaces.queue import AT_ONCE, Consignment, Destination, DestinationState, Transport
from mailsrv.queue.lane import Attempt, Contact, TakeOrder
from mailsrv.queue.schedule import Schedule
from mailsrv.queue.settings import ScheduleSettings
from mailsrv.queue.shared_downs import KnownDown, SharedDowns
from tests.queue.test_queue_schedule import BOB, ENTRY, NOW

DEAD = Destination(Transport.MX, "dead.example")
OTHER = Destination(Transport.MX, "other.example")


def table(folder: Path, run: bytes = b"run", entries: int = 100) -> SharedDowns:
    made = SharedDowns(str(folder / "queue" / "down"), run, entries)
    made.open()
    return made


class Worker:
    """A schedule for which one message always waits."""

    def __init__(self, downs: SharedDowns | None) -> None:
        self.schedule = Schedule(ScheduleSettings(), lambda seconds: seconds, downs)
        self.attempts: list[float] = []
        self.contact = Contact.DOWN
        self.schedule.learn([DestinationState(DEAD, 5, NOW)])

    def run(self, now: float) -> None:
        for _ in range(100):
            step = self.schedule.next_step(now)
            if step is None:
                return
            if isinstance(step, TakeOrder):
                taken = (Consignment(ENTRY, DEAD, (BOB,)),) * step.messages
                self.schedule.took(step, taken, now)
                self.schedule.due(DEAD, now)
            else:
                self.end(step, now)

    def end(self, attempt: Attempt, now: float) -> None:
        self.attempts.append(now)
        self.schedule.released(1 + len(self.schedule.ended(attempt, self.contact, now)))
        if self.contact is Contact.UP and len(self.attempts) > 20:
            raise AssertionError("served for ever")


def probes(workers: list[Worker], seconds: int, begin: float = NOW) -> int:
    before = sum(len(worker.attempts) for worker in workers)
    for second in range(seconds):
        for worker in workers:
            worker.run(begin + second)
    return sum(len(worker.attempts) for worker in workers) - before


def test_a_dead_destination_costs_one_probe_an_interval_however_many_workers_there_are(tmp_path):
    workers = [Worker(table(tmp_path)) for _ in range(4)]
    alone = probes([Worker(None)], 4000)
    assert probes(workers, 4000) <= alone + 1


def test_a_worker_that_died_is_replaced_at_the_next_interval(tmp_path):
    first, second = Worker(table(tmp_path)), Worker(table(tmp_path))
    probes([first, second], 1)
    assert (len(first.attempts), len(second.attempts)) == (1, 0)
    probes([second], 320)
    assert second.attempts == [pytest.approx(NOW + 305, abs=1)]


def test_who_answers_again_is_free_for_all(tmp_path):
    downs = table(tmp_path)
    first, second = Worker(downs), Worker(table(tmp_path))
    probes([first], 1)
    assert downs.find(DEAD, NOW, 7200) is not None
    first.contact = Contact.UP
    with pytest.raises(AssertionError, match="for ever"):
        probes([first], 310)
    assert downs.find(DEAD, NOW, 7200) is None
    probes([second], 1)
    assert len(second.attempts) == 1


def test_what_an_administrator_flushes_is_tried_whatever_other_workers_found(tmp_path):
    first, second = Worker(table(tmp_path)), Worker(table(tmp_path))
    probes([first], 1)
    second.schedule.due(DEAD, AT_ONCE)
    probes([second], 1)
    assert len(second.attempts) == 1


def test_what_is_noted_is_read_in_another_worker_and_not_in_another_run(tmp_path):
    first = table(tmp_path)
    assert first.note(DEAD, NOW + 10.5, 3) == NOW + 11
    second = table(tmp_path)
    assert second.find(DEAD, NOW, 3600) == KnownDown(NOW + 11, 3)
    assert second.find(OTHER, NOW, 3600) is None
    assert second.find(DEAD, NOW + 11, 3600) is None
    assert second.find(DEAD, NOW, 5) is None
    second.clear(DEAD)
    second.clear(OTHER)
    assert first.find(DEAD, NOW, 3600) is None
    first.note(DEAD, NOW + 10, 3)
    assert table(tmp_path, b"another").find(DEAD, NOW, 3600) is None


def test_a_full_table_forgets_what_ends_first(tmp_path):
    downs = table(tmp_path, entries=1)
    names = [Destination(Transport.MX, f"d{number}.example") for number in range(50)]
    for number, name in enumerate(names):
        downs.note(name, NOW + 10 + number, 1)
    known = [name for name in names if downs.find(name, NOW, 3600) is not None]
    assert known == names[-8:]


def test_without_the_file_each_finds_out_for_itself(tmp_path):
    (tmp_path / "queue").write_text("no folder")
    downs = table(tmp_path)
    assert downs.note(DEAD, NOW + 10, 1) == NOW + 10
    downs.clear(DEAD)
    assert downs.find(DEAD, NOW, 3600) is None


@given(st.integers(0, 2**64 - 1))
def test_any_word_is_read(word):
    downs = SharedDowns("", b"", 1)
    downs._key, downs._words = bytes(32), memoryview(bytearray(16 * 8)).cast("Q")
    downs.note(DEAD, NOW + 1, 1)
    place = next(index for index in range(8) if downs._words[index])
    downs._words[8 + place] = word
    found = downs.find(DEAD, NOW, 3600)
    assert found is None or (NOW < found.until <= NOW + 3600 and found.failures)
