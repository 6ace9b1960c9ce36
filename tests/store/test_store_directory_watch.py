"""Watches on folders: kept for a while after the last use, never for another folder of the name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from mailsrv.store.directory_watch import DirectoryWatch


class Kernel:
    """Notes what is watched."""

    def __init__(self) -> None:
        self.watched: list[str] = []
        self.calls = 0

    def watch(self, path, mask, callbacks):
        if path.path not in self.watched:
            self.calls += 1
            self.watched.append(path.path)

    def ignore(self, path):
        self.calls += 1
        self.watched.remove(path.path)

    def stopReading(self):
        """Nothing is read."""

    loseConnection = stopReading


class Setting:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.kernel = Kernel()
        self.watch = DirectoryWatch(self.clock)  # type: ignore[arg-type]
        self.watch._notify = self.kernel  # type: ignore[assignment]

    def make(self, name: str) -> str:
        for part in ("new", "cur"):
            (self.folder / name / part).mkdir(parents=True)
        return str(self.folder / name)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


def ignore() -> None:
    """A callback nobody calls here."""


def test_a_folder_opened_again_soon_costs_no_call(setting: Setting):
    path = setting.make("one")
    for owner in range(5):
        setting.watch.add(owner, path, ignore)
        setting.watch.remove(owner)
        setting.clock.advance(10)
        setting.watch.end_unused()
    assert setting.kernel.calls == 2
    setting.clock.advance(25)
    setting.watch.end_unused()
    assert setting.kernel.watched == []
    assert not setting.watch._inodes
    assert not setting.watch._by_inodes
    assert not setting.watch._unused


def test_what_is_open_stays_watched(setting: Setting):
    path = setting.make("one")
    setting.watch.add(1, path, ignore)
    setting.watch.remove(1)
    setting.watch.add(2, path, ignore)
    setting.clock.advance(100)
    setting.watch.end_unused()
    assert len(setting.kernel.watched) == 2


def test_a_folder_renamed_and_another_of_its_name(setting: Setting):
    path = setting.make("one")
    setting.watch.add(1, path, ignore)
    setting.watch.remove(1)
    os.rename(path, setting.folder / "two")
    setting.watch.add(2, str(setting.folder / "two"), ignore)
    assert all("/two/" in watched for watched in setting.kernel.watched)
    setting.watch.remove(2)
    setting.make("one")
    setting.watch.add(3, path, ignore)
    setting.clock.advance(100)
    setting.watch.end_unused()
    assert sorted(setting.kernel.watched) == [f"{path}/cur", f"{path}/new"]


def test_what_stays_watched_is_bounded_and_ended_in_small_steps(setting: Setting, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mailsrv.store.directory_watch._MOST_UNUSED", 30)
    for number in range(40):
        setting.watch.add(number, setting.make(f"box{number}"), ignore)
        setting.watch.remove(number)
    assert len(setting.kernel.watched) == 60
    setting.clock.advance(100)
    setting.watch.end_unused()
    assert len(setting.kernel.watched) == 20
    setting.watch.end_unused()
    assert setting.kernel.watched == []
    setting.watch.stop()
