"""A damaged database of the queue: the server goes on with what can be read, and nothing is deleted."""

from __future__ import annotations

import random
import shutil
import threading
from pathlib import Path

import apsw
import pytest

from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.queue import LOCAL, Delivered
from mailsrv.queue.database import QueueDatabase
from mailsrv.queue.schema import FILE
from tests.queue.queue_setting import CONTENT, A, QueueSetting, mx

PAGE = 4096
COUNT = 300


def fill(folder: Path) -> QueueSetting:
    """300 messages with files, and all of it in the database itself."""
    queue = QueueSetting(folder, memory_octets=0).start()
    for number in range(COUNT):
        queue.enqueue((f"u{number}@a.test", A), at=4096 * number)
    return queue


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of such a queue that was stopped."""
    folder = tmp_path_factory.mktemp("filled")
    fill(folder).stop()
    return folder


@pytest.fixture
def folder(filled: Path, tmp_path: Path) -> Path:
    """A copy of it to be damaged."""
    shutil.copytree(filled, tmp_path / "copy")
    return tmp_path / "copy"


def database(folder: Path) -> Path:
    return folder / "queue" / FILE


def opened(folder: Path) -> QueueDatabase:
    return QueueDatabase(str(folder / "queue"), threading.Lock(), 1.0, replaces_damaged=True)


def taken(queue: QueueSetting) -> list[str]:
    return [str(each.recipients[0].address) for each in queue.take(messages=2 * COUNT)]


def check_kept(folder: Path, damaged: bytes) -> None:
    kept = [path for path in (folder / "queue" / "corrupt").iterdir() if path.name.startswith(f"{FILE}-")]
    assert [path.read_bytes() for path in kept] == [damaged]
    assert not [path for path in (folder / "queue").iterdir() if "salvage" in path.name or path.name.endswith(".new")]


def restart(folder: Path) -> QueueSetting:
    return QueueSetting(folder, run_id=b"run-2").start()


def test_a_zeroed_first_page_costs_nothing(folder: Path):
    path = database(folder)
    octets = bytes(PAGE) + path.read_bytes()[PAGE:]
    path.write_bytes(octets)
    queue = restart(folder)
    assert taken(queue) == [f"u{number}@a.test" for number in range(COUNT)]
    check_kept(folder, octets)
    queue.enqueue(("later@a.test", A), at=4096 * COUNT)
    assert taken(queue) == ["later@a.test"]
    queue.stop()


def test_a_queue_that_was_cut_off_keeps_what_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mailsrv.queue.housekeeping.time.sleep", lambda seconds: None)
    path = database(folder)
    octets = path.read_bytes()
    for pages in (0, 1, len(octets) // PAGE // 2, len(octets) // PAGE - 1):
        path.write_bytes(octets[: pages * PAGE + 7])
        queue = restart(folder)
        # It reads all of it in the background.
        assert queue.store._sweeper is not None
        queue.store._sweeper.join()
        found = queue_taken_at_last(queue)
        assert len(found) == len(set(found))
        assert found or pages < len(octets) // PAGE - 1
        assert list((folder / "queue" / "corrupt").glob(f"{FILE}-*"))
        queue.stop()
        shutil.rmtree(folder / "queue" / "corrupt")


@pytest.mark.slow
def test_one_zeroed_page_anywhere_costs_at_most_what_it_held(
    folder: Path, filled: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mailsrv.queue.housekeeping.time.sleep", lambda seconds: None)
    path = database(folder)
    octets = path.read_bytes()
    choose = random.Random(3)
    for page in choose.sample(range(len(octets) // PAGE), 8):
        shutil.rmtree(folder)
        shutil.copytree(filled, folder)
        damaged = octets[: page * PAGE] + bytes(PAGE) + octets[(page + 1) * PAGE :]
        path.write_bytes(damaged)
        queue = QueueSetting(folder, run_id=b"run-2").start()
        if queue.store._sweeper is not None:
            queue.store._sweeper.join()
        first = queue_taken_at_last(queue)
        assert len(first) == len(set(first))
        files = {file.name for file in (folder / "queue" / "content").rglob("*") if file.is_file()}
        aside = {file.name for file in (folder / "queue" / "corrupt").rglob("*") if not file.name.startswith(FILE)}
        assert len(files) + len(aside) == COUNT
        assert len(first) >= len(files) - 5 >= COUNT // 4 or page_is_inner(damaged, octets, page)
        queue.stop()


def page_is_inner(damaged: bytes, octets: bytes, page: int) -> bool:
    """An inner page of a tree: what hangs from it cannot be reached."""
    return octets[page * PAGE] in {2, 5}


def queue_taken_at_last(queue: QueueSetting) -> list[str]:
    """The first take may be the one that finds the damage."""
    try:
        return taken(queue)
    except MailError:
        return taken(queue)


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits_never_keep_the_server_from_starting_or_serving(folder: Path, seed: int):
    path = database(folder)
    octets = bytearray(path.read_bytes())
    choose = random.Random(seed)
    for _ in range(20):
        # But not its version: that would be one we know nothing of.
        at = choose.choice([choose.randrange(60), choose.randrange(64, len(octets)), choose.randrange(64, len(octets))])
        octets[at] ^= 1 << choose.randrange(8)
    path.write_bytes(bytes(octets))
    queue = restart(folder)
    found = queue_taken_at_last(queue)
    assert len(found) == len(set(found))
    queue.enqueue(("later@b.test", mx("b.test")), at=4096 * COUNT, segment=b"another segment!")
    queue.enqueue(("later@b.test", mx("b.test")), at=4096 * COUNT, segment=b"another segment!", is_replay=True)
    [later] = queue.take(mx("b.test"))
    queue.settle(later, Delivered(0))
    queue.stop()


def test_what_lost_its_envelope_is_kept_and_what_lost_its_destination_is_routed_anew(folder: Path):
    db = opened(folder)
    with db.transaction(is_durable=True) as connection:
        connection.execute("DELETE FROM destination")
        connection.execute("DELETE FROM message WHERE id IN (SELECT id FROM message ORDER BY id LIMIT 10)")
    db.close()
    path = database(folder)
    path.write_bytes(bytes(100) + path.read_bytes()[100:])
    queue = restart(folder)
    assert queue.waiting() == {str(LOCAL): COUNT - 10}
    aside = [file for file in (folder / "queue" / "corrupt").iterdir() if file.name.isdecimal()]
    assert [file.read_bytes() for file in aside] == [CONTENT] * 10
    queue.stop()


def test_damage_that_comes_while_it_runs_is_mended_and_the_journal_applied_again(tmp_path: Path):
    first, second = fill(tmp_path), QueueSetting(tmp_path, worker=1, workers=2).start()
    leased = first.take(messages=1)
    # The last to close writes the log back; here nobody closes.
    assert first.store._thread.db is not None
    first.store._thread.db.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    path = database(tmp_path)
    octets = path.read_bytes()
    with path.open("r+b") as file:
        for page in range(1, len(octets) // PAGE):
            if octets[page * PAGE] == 10:
                # Leaves of WITHOUT ROWID tables and of indexes.
                file.seek(page * PAGE)
                file.write(bytes(PAGE))
    first.store._thread.db.connection.execute("PRAGMA shrink_memory")
    with pytest.raises(Unavailable):
        second.take()
    # Both have turned to the new one, whatever is left in it.
    assert second.take() == []
    assert first.take() == []
    first.settle(leased[0], Delivered(0))
    with pytest.raises(Unavailable):
        first.store.applier.take_touched()
    for number in range(COUNT):
        first.enqueue((f"u{number}@a.test", A), at=4096 * number, is_replay=True)
    assert first.store.applier.take_touched()
    assert {path.read_bytes() for path in (tmp_path / "queue" / "content").rglob("*") if path.is_file()} == {CONTENT}
    for queue in (first, second):
        queue.tick(2)
        queue.stop()
    check_sound(tmp_path)


def check_sound(folder: Path) -> None:
    db = opened(folder)
    assert db.row("PRAGMA integrity_check") == ("ok",)
    db.close()


@pytest.mark.parametrize("step", range(3))
def test_a_crash_while_it_is_replaced_changes_nothing_of_the_result(
    folder: Path, step: int, monkeypatch: pytest.MonkeyPatch
):
    path = database(folder)
    octets = bytes(PAGE) + path.read_bytes()[PAGE:]
    path.write_bytes(octets)
    calls: list[object] = []

    class Crash(BaseException):
        """Of the machine."""

    def counted(function: object) -> object:
        def call(*arguments: object) -> object:
            calls.append(arguments)
            if len(calls) == step + 1:
                raise Crash
            return function(*arguments)  # type: ignore[operator]

        return call

    monkeypatch.setattr("mailsrv.queue.gate.sync_directory", counted(lambda _: None))
    with pytest.raises(Crash):
        opened(folder)
    monkeypatch.undo()
    queue = restart(folder)
    assert len(taken(queue)) == COUNT
    queue.stop()


def test_a_later_version_is_left_alone(folder: Path):
    db = opened(folder)
    db.connection.execute("PRAGMA user_version=2")
    db.close()
    before = database(folder).read_bytes()
    with pytest.raises(Unavailable, match="later version"):
        restart(folder)
    assert database(folder).read_bytes() == before
    assert not (folder / "queue" / "corrupt").exists()


def test_a_row_with_text_that_is_none_is_held(folder: Path):
    db = opened(folder)
    with db.transaction(is_durable=True) as connection:
        connection.execute(
            "UPDATE recipient SET address=CAST(x'ff40' AS TEXT) WHERE message=(SELECT min(id) FROM message)"
        )
    db.close()
    queue = restart(folder)
    assert len(taken(queue)) == COUNT - 1
    assert queue.take() == []
    queue.stop()
