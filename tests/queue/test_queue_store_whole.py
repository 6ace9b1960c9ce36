"""Store and journal together, on a real disk, with and without threads; and that nothing grows with the queue."""

from __future__ import annotations

import queue as queues
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailsrv.disk import RealDisk
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.envelope import EnvelopeParameters
from mailsrv.interfaces.journal import JournaledMessage, JournalRecord
from mailsrv.interfaces.queue import Delivered, Ending, Postponed, QueueSettlement
from mailsrv.journal import Journal
from mailsrv.queue import leasing
from mailsrv.queue.settings import QueueSettings, StorageSettings
from mailsrv.queue.split_applier import SplitApplier
from mailsrv.queue.store import QueueStore
from tests.queue.queue_and_journal import SETTINGS, NoMailboxes, Server
from tests.queue.queue_setting import BODY, CONTENT, NOW, A, B, QueueSetting, mx, names, onward


def test_mail_survives_kills_and_checkpoints_and_leaves_once(tmp_path: Path):
    large = CONTENT + b"x" * 5000
    server = Server(tmp_path, b"run-1")
    server.accept(onward(("u@a.test", A), ("v@b.test", B)))
    server.accept(onward(("w@a.test", A)), content=large)
    server.die()
    server = Server(tmp_path, b"run-2")
    first, second = server.queue.take(A)
    assert [server.queue.octets(first), server.queue.octets(second)] == [BODY, BODY + b"x" * 5000]
    server.queue.settle(first, Delivered(0))
    server.die()
    server = Server(tmp_path, b"run-3")
    assert server.queue.waiting() == {"mx:a.test": 1, "mx:b.test": 1}
    server.checkpoint()
    assert server.rig.journal.status().live_segments == 0
    assert len(server.queue.files()) == 2
    server.die()
    server = Server(tmp_path, b"run-4")
    assert server.queue.waiting() == {"mx:a.test": 1, "mx:b.test": 1}
    [left] = server.queue.take(B)
    assert server.queue.octets(left) == BODY
    server.accept(onward(("s@c.test", mx("c.test")), sender=None), QueueSettlement(left.entry.id, (1,), Ending.BOUNCED))
    [left] = server.queue.take(A)
    assert server.queue.octets(left) == BODY + b"x" * 5000
    server.queue.settle(left, Delivered(0))
    server.die()
    server = Server(tmp_path, b"run-5")
    assert server.queue.waiting() == {"mx:c.test": 1}
    [notice] = server.queue.take(mx("c.test"))
    server.queue.settle(notice, Delivered(0))
    assert server.queue.files() == []
    server.rig.stop()
    server.queue.stop()


def test_settlements_share_a_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    setting = QueueSetting(tmp_path).start()
    for number in range(20):
        setting.enqueue((f"u{number}@a.test", A))
    taken = setting.take()
    db = setting.store._thread.db
    assert db is not None
    begun: list[bool] = []
    original = db.transaction

    def counted(*, is_durable: bool) -> Any:
        begun.append(is_durable)
        return original(is_durable=is_durable)

    monkeypatch.setattr(db, "transaction", counted)
    setting.result(gatherResults([setting.store.settle(each.entry, [Delivered(0)]) for each in taken]))
    assert begun[0] is True
    assert begun.count(True) == 1
    assert setting.waiting() == {}
    setting.stop()


def test_one_bad_settlement_does_not_fail_the_others(tmp_path: Path):
    setting = QueueSetting(tmp_path).start()
    setting.enqueue(("u@a.test", A))
    setting.enqueue(("v@a.test", A))
    first, second = setting.take()
    broken: Any = Postponed(0, "no time")  # type: ignore[arg-type]
    good = setting.store.settle(first.entry, [Delivered(0)])
    bad = setting.store.settle(second.entry, [Delivered(0, text=object()), broken])  # type: ignore[arg-type]
    results: list[Any] = []
    bad.addBoth(results.append)
    assert setting.result(good) is None
    assert isinstance(results[0], Failure)
    assert setting.take() == []
    setting.stop()


@pytest.mark.parametrize("name", ["_NEXT_RANK", "_OLDEST", "_NEXT_SENDER", "_MESSAGE", "_RECIPIENTS", "_LEASE"])
def test_nothing_a_take_asks_is_answered_by_a_scan_or_a_sort(tmp_path: Path, name: str):
    setting = QueueSetting(tmp_path).start()
    db = setting.store._thread.db
    assert db is not None
    sql: str = getattr(leasing, name)
    plan = [row[3] for row in db.connection.execute(f"EXPLAIN QUERY PLAN {sql}", (0,) * sql.count("?"))]
    assert plan
    assert all(str(step).startswith("SEARCH") for step in plan), plan
    setting.stop()


def test_freeing_leases_looks_at_leases_only(tmp_path: Path):
    setting = QueueSetting(tmp_path).start()
    db = setting.store._thread.db
    assert db is not None
    for condition in ("owner=?", "owner>>10<>?", "lease_until<?"):
        sql = leasing._FREE.format(condition=condition)
        [step] = [row[3] for row in db.connection.execute(f"EXPLAIN QUERY PLAN {sql}", (0, 0))]
        assert "recipient_lease" in str(step)
    setting.stop()


def test_a_long_queue_for_one_destination_is_quick_to_take_from(tmp_path: Path):
    """What a take costs does not depend on how much waits: steps of SQLite's machine are counted."""
    costs = []
    for count in (300, 6000):
        setting = QueueSetting(tmp_path / str(count)).start()
        batch = [
            pending
            for number in range(count)
            for pending in setting.pending(onward((f"u{number}@a.test", A), sender=f"{number % 50}@example.org"))
        ]
        for first in range(0, count, 500):
            setting.store.applier.apply(batch[first : first + 500])
        setting.pump()
        db = setting.store._thread.db
        assert db is not None
        steps = [0]

        def count_steps(steps: list[int] = steps) -> bool:
            steps[0] += 1
            return False

        db.connection.set_progress_handler(count_steps, 10)
        assert len(setting.take(messages=20)) == 20
        db.connection.set_progress_handler(None)
        costs.append(steps[0])
        setting.stop()
    assert costs[1] < 2 * costs[0]


class ThreadReactor(Clock):
    """Calls from threads are done by whoever waits."""

    def __init__(self) -> None:
        super().__init__()
        self.posted: queues.SimpleQueue[tuple[Callable[..., object], tuple[object, ...]]] = queues.SimpleQueue()

    def callFromThread(self, function: Callable[..., object], /, *arguments: object) -> None:
        self.posted.put((function, arguments))

    def wait_for(self, deferred: Deferred[Any]) -> Any:
        results: list[Any] = []
        deferred.addBoth(results.append)
        deadline = time.monotonic() + 30
        while not results:
            self.advance(0.01)
            function, arguments = self.posted.get(timeout=max(0.0, deadline - time.monotonic()))
            function(*arguments)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]


def test_with_threads_what_goes_in_comes_out(tmp_path: Path):
    reactor = ThreadReactor()
    settings = QueueSettings(storage=StorageSettings(free_space_floor=0, poll_seconds=0.05))
    store = QueueStore(settings, str(tmp_path / "queue"), RealDisk(), reactor, run_id=b"r", clock=lambda: NOW)
    applier: Any = SplitApplier(NoMailboxes(), store.applier)  # type: ignore[arg-type]
    journal = Journal(evolve(SETTINGS, segment_octets=1 << 20), str(tmp_path / "journal"), RealDisk(), applier, reactor)
    store.live_segments = journal.live_segments
    reactor.wait_for(journal.start())
    reactor.wait_for(store.start())
    told: Deferred[Any] = Deferred()
    store.listen(lambda states: None if told.called else told.callback(states))
    commits = [
        journal.commit(
            JournalRecord(
                (JournaledMessage(InlineContent(CONTENT), (onward((f"u{number}@a.test", A)),), int(NOW)),), "T"
            )
        )
        for number in range(200)
    ]
    reactor.wait_for(gatherResults(commits))
    assert reactor.wait_for(told)[0].destination == A
    seen: list[str] = []
    while len(seen) < 200:
        taken = reactor.wait_for(store.take(A, NOW, 17, 50))
        seen += [name for [name] in names(taken)]
        contents = reactor.wait_for(gatherResults([store.open_content(each.entry) for each in taken]))
        assert {content.octets for content in contents} <= {BODY}
        reactor.wait_for(gatherResults([store.settle(each.entry, [Delivered(0, "250")]) for each in taken]))
    assert sorted(seen) == sorted(f"u{number}@a.test" for number in range(200))
    assert reactor.wait_for(store.destinations()) == []
    reactor.wait_for(journal.stop())
    reactor.wait_for(store.stop())


def test_held_mail_of_a_future_release_is_flushed_with_its_priority(tmp_path: Path):
    setting = QueueSetting(tmp_path).start()
    setting.enqueue(("u@a.test", A), parameters=EnvelopeParameters(priority=-9, hold_until=int(NOW) + 9))
    setting.enqueue(("v@a.test", A), parameters=EnvelopeParameters(priority=9))
    setting.now += 10
    assert names(setting.take()) == [["v@a.test"], ["u@a.test"]]
    setting.stop()
