"""What an administrator does to the queue from another process, and what its workers notice of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailsrv.disk import RealDisk
from mailsrv.errors import Unavailable
from mailsrv.interfaces.envelope import EnvelopeParameters
from mailsrv.interfaces.queue import AT_ONCE, Delivered, DestinationState, Postponed
from mailsrv.queue.admin import Command, QueueAdministration
from mailsrv.queue.selection import Selection, ShownState
from tests.queue.queue_setting import NOW, A, B, QueueSetting, names


@pytest.fixture
def queue(tmp_path: Path):
    setting = QueueSetting(tmp_path).start()
    yield setting
    setting.stop()


@pytest.fixture
def admin(queue: QueueSetting):
    administration = QueueAdministration(str(queue.directory / "queue"), RealDisk(), clock=lambda: queue.now)
    yield administration
    administration.close()


def shown(admin: QueueAdministration, **conditions: object) -> list[str]:
    return [
        recipient.address
        for message in admin.messages(Selection(**conditions))  # type: ignore[arg-type]
        for recipient in message.recipients
    ]


def fill(queue: QueueSetting) -> None:
    queue.enqueue(("u@a.test", A), ("v@b.test", B), sender="One@example.org")
    queue.now += 100
    queue.enqueue(("w@a.test", A), sender=None, accepted_at=int(queue.now))


def test_a_queue_that_is_not_there_is_not_made(tmp_path: Path):
    with pytest.raises(Unavailable):
        QueueAdministration(str(tmp_path / "queue"), RealDisk())
    assert not (tmp_path / "queue").exists()


@pytest.mark.parametrize("at_once", [1, 2, 3, 4])
def test_a_list_is_read_some_rows_at_a_time(
    queue: QueueSetting, admin: QueueAdministration, monkeypatch: pytest.MonkeyPatch, at_once: int
):
    monkeypatch.setattr("mailsrv.queue.admin._ROWS_AT_ONCE", at_once)
    fill(queue)
    queue.enqueue(("x@a.test", A))
    assert shown(admin) == ["u@a.test", "v@b.test", "w@a.test", "x@a.test"]
    assert shown(admin, recipient="*@a.test") == ["u@a.test", "w@a.test", "x@a.test"]
    reading = admin.messages(Selection())
    next(reading)
    # Whoever reads on later keeps nobody from writing the log back into the database.
    db = queue.store._thread.db
    assert db is not None
    assert db.row("PRAGMA wal_checkpoint(TRUNCATE)")[0] == 0
    assert len(list(reading)) == 2


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, ["u@a.test", "v@b.test", "w@a.test"]),
        ({"sender": "one@*"}, ["u@a.test", "v@b.test"]),
        ({"sender": ""}, ["w@a.test"]),
        ({"recipient": "?@A.TEST"}, ["u@a.test", "w@a.test"]),
        ({"recipient": "[uv]@*"}, []),
        ({"destination": "mx:b.*"}, ["v@b.test"]),
        ({"state": ShownState.WAITING}, ["u@a.test", "v@b.test", "w@a.test"]),
        ({"state": ShownState.HELD}, []),
        ({"older_than": 50.0}, ["u@a.test", "v@b.test"]),
        ({"younger_than": 50.0}, ["w@a.test"]),
        ({"sender": "one@*", "destination": "mx:a.test"}, ["u@a.test"]),
    ],
)
def test_filters(queue: QueueSetting, admin: QueueAdministration, conditions: dict[str, object], expected: list[str]):
    fill(queue)
    assert shown(admin, **conditions) == expected


def test_held_mail_stays_until_it_is_released(queue: QueueSetting, admin: QueueAdministration):
    fill(queue)
    assert admin.change(Command.HOLD, Selection(destination="mx:a.test")) == 2
    assert queue.waiting() == {"mx:b.test": 1}
    assert queue.take(A) == []
    queue.told.clear()
    assert admin.change(Command.RELEASE, Selection()) == 2
    queue.tick()
    assert queue.told == [DestinationState(A, 2, NOW)]
    assert names(queue.take(A)) == [["u@a.test"], ["w@a.test"]]


def test_what_is_being_delivered_is_held_when_that_is_over(queue: QueueSetting, admin: QueueAdministration):
    fill(queue)
    first, second = queue.take(A)
    assert admin.change(Command.HOLD, Selection(destination="mx:a.test")) == 2
    queue.settle(first, Postponed(0, queue.now, "451"))
    queue.store.give_back(second)
    queue.pump()
    assert queue.take(A) == []
    assert shown(admin, state=ShownState.HELD) == ["u@a.test", "w@a.test"]


def test_flushed_mail_is_due_at_once(queue: QueueSetting, admin: QueueAdministration):
    queue.enqueue(("u@a.test", A), parameters=EnvelopeParameters(hold_until=int(NOW) + 3600))
    queue.told.clear()
    assert admin.change(Command.FLUSH, Selection()) == 1
    queue.tick()
    assert queue.told == [DestinationState(A, 1, AT_ONCE)]
    assert len(queue.take(A)) == 1


def test_dropped_mail_is_gone_with_its_file(queue: QueueSetting, admin: QueueAdministration):
    fill(queue)
    queue.store.applier.take_touched()
    assert len(queue.files()) == 2
    assert admin.change(Command.DROP, Selection(recipient="u@a.test")) == 1
    assert len(queue.files()) == 2
    assert admin.change(Command.DROP, Selection()) == 2
    assert queue.files() == []
    assert queue.waiting() == {}
    assert admin.change(Command.DROP, Selection()) == 0
    statistics = admin.statistics(10)
    assert (statistics.messages, statistics.octets, statistics.remembered) == (0, 0, 2)
    assert shown(admin, state=ShownState.ENDED) == ["u@a.test", "v@b.test", "w@a.test"]


def test_dropped_while_it_was_delivered_it_may_have_arrived_and_that_is_told(
    queue: QueueSetting, admin: QueueAdministration
):
    queue.enqueue(("u@a.test", A))
    [consignment] = queue.take()
    admin.change(Command.DROP, Selection())
    queue.settle(consignment, Delivered(0, "250 ok"))
    found = admin.show(consignment.entry.id)
    assert found is not None
    assert [event.text for event in found[1]] == ["drop by the administrator", "delivered after its end: 250 ok"]


def test_requeued_mail_starts_anew(queue: QueueSetting, admin: QueueAdministration):
    queue.enqueue(("u@a.test", A))
    [consignment] = queue.take()
    queue.settle(consignment, Postponed(0, NOW + 9999, "451 no", is_delay_told=True))
    queue.now += 500
    assert admin.change(Command.REQUEUE, Selection(ids=(consignment.entry.id,))) == 1
    [again] = queue.take()
    assert (again.entry.accepted_at, again.recipients[0].attempts) == (queue.now, 0)
    assert not again.recipients[0].is_delay_told


def test_rerouted_mail_goes_another_way(queue: QueueSetting, admin: QueueAdministration):
    fill(queue)
    [leased] = queue.take(B)
    assert admin.change(Command.REROUTE, Selection(sender="one@*"), destination=A) == 2
    assert queue.waiting() == {"mx:a.test": 2}
    queue.settle(leased, Postponed(1, queue.now, "451"))
    assert queue.waiting() == {"mx:a.test": 3}
    assert sorted(names(queue.take(A))) == [["u@a.test", "v@b.test"], ["w@a.test"]]
    with pytest.raises(ValueError, match="destination"):
        admin.change(Command.REROUTE, Selection())


def test_damaged_mail_is_never_let_go(queue: QueueSetting, admin: QueueAdministration):
    queue.enqueue(("u@a.test", A))
    queue.store.applier.take_touched()
    queue.files()[0].write_bytes(b"something else")
    [consignment] = queue.take()
    with pytest.raises(Unavailable):
        queue.octets(consignment)
    queue.store.give_back(consignment)
    queue.pump()
    assert [message.is_damaged for message in admin.messages(Selection())] == [True]
    assert admin.change(Command.RELEASE, Selection()) == admin.change(Command.REQUEUE, Selection()) == 0
    assert queue.take() == []
    assert admin.change(Command.DROP, Selection()) == 1


def test_history_has_a_bound_and_the_latest_lines(tmp_path: Path):
    queue = QueueSetting(tmp_path, events_per_message=5).start()
    queue.enqueue(("u@a.test", A))
    for number in range(12):
        [consignment] = queue.take()
        queue.settle(consignment, Postponed(0, queue.now, f"451 no {number}"))
    admin = QueueAdministration(str(queue.directory / "queue"), RealDisk())
    found = admin.show(consignment.entry.id)
    assert found is not None
    message, events = found
    assert [event.text for event in events] == [f"451 no {number}" for number in range(7, 12)]
    assert (message.recipients[0].attempts, message.recipients[0].last_reply) == (12, "451 no 11")
    assert admin.find(message.transaction_id) == admin.find(str(message.id)) == [message.id]


def test_statistics(queue: QueueSetting, admin: QueueAdministration):
    fill(queue)
    queue.take(B)
    admin.change(Command.HOLD, Selection(recipient="w@*"))
    statistics = admin.statistics(10)
    assert statistics.recipients == {"waiting": 1, "active": 1, "held": 1}
    assert [(each.destination, each.waiting, each.next_due) for each in statistics.destinations] == [
        ("mx:a.test", 1, NOW)
    ]


def test_progress_is_told(queue: QueueSetting, admin: QueueAdministration, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mailsrv.queue.admin._CHUNK", 2)
    fill(queue)
    told: list[tuple[int, int]] = []
    admin.change(Command.HOLD, Selection(), progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 3), (3, 3)]
    assert queue.waiting() == {}
