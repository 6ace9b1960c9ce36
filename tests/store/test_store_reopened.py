"""An account that is opened again while the last session's writes are under way: two queues write to one index."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import apsw
import pytest
from twisted.internet.defer import Deferred, execute

from mailsrv.address import Address
from mailsrv.interfaces.mailbox import FlagOperation
from mailsrv.store.check import check_account
from mailsrv.store.settings import StoreSettings
from tests.store.store_setting import StoreSetting
from tests.store.test_store_apply import ALICE, pending, result

SEEN, FLAGGED = frozenset({"\\Seen"}), frozenset({"\\Flagged"})


class HeldThreads:
    """Does things at once, or when it is told to, in any order: as several threads may."""

    def __init__(self) -> None:
        self.is_holding = False
        self.held: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def run(self, function: Callable[[], Any]) -> Deferred[Any]:
        if not self.is_holding:
            return execute(function)
        self.held.append((function, Deferred()))
        return self.held[-1][1]

    def do(self, number: int) -> None:
        function, answer = self.held.pop(number)
        execute(function).addBoth(answer.callback)


class House:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.setting = StoreSetting(StoreSettings(path=str(folder / "{local}"), tombstones=0))
        self.threads = HeldThreads()
        self.setting.store._threads = self.threads
        for number in (1, 2, 3):
            self.setting.applier.apply(pending(number))

    def open(self, account: Address = ALICE) -> tuple[Any, Any]:
        mail = result(self.setting.store.open_account(account))
        return mail, result(mail.open_mailbox("INBOX"))

    def leave_writes(self) -> Any:
        """A session ends: the names of two files are late, and a message is to be forgotten."""
        mail, inbox = self.open()
        result(inbox.store_flags([1, 2], FlagOperation.ADD, SEEN))
        result(inbox.delete_messages([3]))
        self.threads.is_holding = True
        inbox.close()
        mail.release()
        return mail

    def tombstones(self) -> int:
        connection = apsw.Connection(str(self.folder / "alice" / "mailsrv.index"))
        try:
            return len(connection.execute("SELECT 1 FROM tombstone").fetchall())
        finally:
            connection.close()

    def end(self) -> None:
        self.threads.is_holding = False
        while self.threads.held:
            self.threads.do(0)
        report = check_account(self.setting.table.disk, str(self.folder / "alice"))
        assert report.is_sound, report
        assert not report.differs, report
        self.setting.stop()


def flags_of(inbox: Any) -> list[frozenset[str]]:
    return [inbox.flag_set(number) for number in inbox.flag_set_numbers]


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_who_opens_it_again_at_once_loses_nothing_of_either(house, order):
    old = house.leave_writes()
    house.threads.is_holding = False
    mail, inbox = house.open()
    assert mail is not old
    house.threads.is_holding = True
    flagged: list[Any] = []
    inbox.store_flags([1], FlagOperation.ADD, FLAGGED).addBoth(flagged.append)
    # What was left, and the new: whichever thread comes first.
    for place in order:
        if house.threads.held:
            house.threads.do(min(place, len(house.threads.held) - 1))
    while house.threads.held:
        house.threads.do(0)
    house.threads.is_holding = False
    assert len(flagged) == 1
    assert not hasattr(flagged[0], "raiseException")
    result(inbox.refresh())
    assert list(inbox.uids) == [1, 2]
    assert flags_of(inbox)[0] == SEEN | FLAGGED
    assert flags_of(inbox)[1] == SEEN
    inbox.close()
    mail.release()
    house.end()
    assert house.tombstones() == 0
    names = sorted(path.name.partition(":2,")[2] for path in (house.folder / "alice" / "cur").iterdir())
    assert names == ["FS", "S"]


def test_writes_of_a_session_that_has_gone_are_finished_and_the_bus_hears_of_them(house):
    heard: list[Any] = []
    house.setting.bus.listen(str(ALICE), heard.append)
    mail, inbox = house.open()
    house.threads.is_holding = True
    stored: list[Any] = []
    inbox.store_flags([1], FlagOperation.ADD, SEEN).addBoth(stored.append)
    inbox.store_flags([2], FlagOperation.ADD, FLAGGED).addBoth(stored.append)
    inbox.close()
    mail.release()
    house.threads.is_holding = False
    while house.threads.held:
        house.threads.do(0)
    assert len(stored) == 2
    assert heard
    assert not any(hasattr(each, "raiseException") for each in stored)
    mail, inbox = house.open()
    assert flags_of(inbox)[0] == SEEN
    assert flags_of(inbox)[1] == FLAGGED
    inbox.close()
    mail.release()
    house.end()
