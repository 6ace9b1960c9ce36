"""Power cuts and disk errors at every operation of a workload (RELIABILITY: R-DUR-1, R-DUR-4, R-DUR-5, R-DUR-6, R-Q-2).

The workload commits messages of all kinds, with the threads stepped in an order drawn from a seed. What
was promised is recorded when the answer comes; then the disk dies (or one operation fails), the journal
starts again on what the disk may have kept, and the mailboxes are compared with the promises.
"""

from __future__ import annotations

import errno
import random
from collections import Counter
from typing import Any

import pytest
from attrs import evolve
from twisted.python.failure import Failure

from mailsrv.address import Address
from mailsrv.errors import InsufficientStorage, Unavailable
from mailsrv.testing.disk import ModelDisk
from tests.journal.rig import ALICE, BOB, MAIL, SMALL, Rig, message

SETTINGS = evolve(SMALL, segment_octets=12 * 1024, inline_limit=1000, spool_buffer=2000, stuck_after=2)
PEOPLE = (ALICE, BOB)


class Promises:
    """What the clients were told."""

    def __init__(self, disk: ModelDisk) -> None:
        self.disk = disk
        self.sent: dict[bytes, tuple[Address, ...]] = {}
        self.kept: set[bytes] = set()
        self.refused: set[bytes] = set()
        self.uids: dict[str, int] = {}

    def watch(self, texts: list[bytes], accounts: tuple[Address, ...], deferred: Any) -> None:
        for text in texts:
            self.sent[text] = accounts

        def answered(result: object) -> None:
            if self.disk.is_dead:
                return  # Nobody heard it.
            if isinstance(result, Failure):
                assert result.check(InsufficientStorage, Unavailable), result
                self.refused.update(texts)
            else:
                self.kept.update(texts)
                for applied in result or ():  # type: ignore[attr-defined]
                    self.uids[applied.key.to_octets().hex()] = applied.uid

        deferred.addBoth(answered)


def commit_something(rig: Rig, promises: Promises, chance: random.Random, number: int) -> None:
    text = b"%04d " % number + chance.randbytes(4).hex().encode() * chance.choice((1, 20, 90))
    kind = chance.random()
    accounts = PEOPLE if chance.random() < 0.3 else (chance.choice(PEOPLE),)
    if kind < 0.2:
        # An APPEND of two messages is all or none.
        both = [text, text + b" second"]
        messages = tuple(message(one, accounts[0]) for one in both)
        promises.watch(both, accounts[:1], rig.journal.commit_and_note(_record(messages)))
    elif kind < 0.35:
        large = text + b"L" * 1500
        promises.sent[large] = accounts
        writer = rig.journal.spool.begin()
        writer.write(large[:700])
        writer.write(large[700:])

        def commit(content: Any) -> None:
            promises.watch([large], accounts, rig.journal.commit(_record((message(content, *accounts),))))

        writer.finish().addCallbacks(commit, lambda failure: None)
    else:
        promises.watch([text], accounts, rig.journal.commit(_record((message(text, *accounts),))))


def _record(messages: Any) -> Any:
    from mailsrv.interfaces.journal import JournalRecord

    return JournalRecord(messages, "t", "sender@example.org")


def start(disk: ModelDisk) -> Rig | None:
    """None where the disk does not let it."""
    try:
        return Rig(disk, SETTINGS).start()
    except OSError:
        return None


def work(disk: ModelDisk, seed: int, *, failing_account: bool = False) -> Promises:
    chance = random.Random(seed)
    promises = Promises(disk)
    rig = start(disk) or (None if disk.is_dead else start(disk))
    if rig is None:
        return promises
    names = ("commit", "apply", "keeper", "spool-0")
    for number in range(45):
        if disk.is_dead:
            return promises
        if failing_account and number in (10, 30):
            rig.applier.failing = {ALICE: Unavailable()} if number == 10 else {}
        for _ in range(chance.choice((0, 1, 1, 3))):
            commit_something(rig, promises, chance, number * 10 + _)
        for _ in range(chance.randrange(6)):
            rig.step(chance.choice(names))
            if chance.random() < 0.7:
                rig.reactor.run_calls()
        if chance.random() < 0.1:
            rig.tick(chance.choice((0.3, 2, 61)))
    rig.pump()
    return promises


def audit(promises: Promises, disk: ModelDisk, *, crash_again: int | None = None) -> None:
    """Start on what the disk kept (perhaps with another cut in the middle), and compare."""
    if crash_again is not None:
        disk.cut_power_at(crash_again)
        start(disk)
        disk = disk.after_power_cut(crash_again)
    rig = start(disk)
    assert rig is not None
    rig.tick(1)
    # The dead process had the slot that is taken now; anybody else's would be replayed, too.
    for account in PEOPLE:
        found = Counter(rig.applier.texts(account))
        stuck = _stuck(rig, account)
        for text, accounts in promises.sent.items():
            count = found[text]
            assert count <= 1, f"{count} copies of {text[:20]!r}"
            if account not in accounts:
                assert count == 0
            elif text in promises.kept:
                assert count == 1 or text in stuck, f"{text[:20]!r} was promised and is lost"
            elif text in promises.refused:
                assert count == 0, f"{text[:20]!r} was refused and is there"
        assert set(found) <= set(promises.sent), "a message that nobody sent"
    for account in PEOPLE:
        directory = rig.applier.directory(account)
        if disk.status(directory) is not None:
            for entry in disk.list_directory(directory):
                key, _, uid = entry.name.partition(".")
                assert promises.uids.get(key, int(uid)) == int(uid), "a UID that was told is another one now"
    # And once more: a replay after the replay changes nothing.
    before = {account: sorted(rig.applier.mail(account)) for account in PEOPLE}
    again = start(disk.after_power_cut(0))
    assert again is not None
    for account in PEOPLE:
        assert sorted(again.applier.mail(account)) == before[account]


def _stuck(rig: Rig, account: Address) -> set[bytes]:
    if rig.disk.status("/state/journal/stuck") is None:
        return set()
    texts = set()
    for entry in rig.disk.list_directory("/state/journal/stuck"):
        if entry.name.endswith(".stuck"):
            octets = rig.applier.read(f"/state/journal/stuck/{entry.name}")
            head, _, text = octets.partition(b"\n")
            if account.local_part.encode() in head:
                texts.add(text)
    return texts


def count_operations(seed: int, **options: Any) -> int:
    disk = ModelDisk()
    promises = work(disk, seed, **options)
    assert len(promises.kept) > 30
    assert options or not promises.refused
    assert disk.status(MAIL) is not None
    return len(disk.operations)


@pytest.mark.parametrize("part", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_r_dur_1_r_q_2_power_cut_at_any_operation(seed, part):
    """Every acknowledged message is there once and whole; none is there twice; none that was refused."""
    total = count_operations(seed)
    for cut in range(seed + 7 * part, total, 14):
        disk = ModelDisk()
        disk.cut_power_at(cut)
        promises = work(disk, seed)
        for state in (0, 1, cut + 2):
            audit(promises, disk.after_power_cut(state))


@pytest.mark.slow
def test_r_q_2_power_cut_during_the_recovery():
    total = count_operations(4)
    for cut in range(40, total, 37):
        disk = ModelDisk()
        disk.cut_power_at(cut)
        promises = work(disk, 4)
        for second in range(0, 60, 4):
            audit(promises, disk.after_power_cut(cut + second), crash_again=second)


@pytest.mark.slow
def test_power_cut_while_an_account_fails():
    total = count_operations(5, failing_account=True)
    for cut in range(0, total, 7):
        disk = ModelDisk()
        disk.cut_power_at(cut)
        promises = work(disk, 5, failing_account=True)
        audit(promises, disk.after_power_cut(cut))


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_r_dur_4_r_dur_5_any_single_operation_fails(number):
    """Whatever fails, and whichever way the power goes at the end: promises are kept, refusals are final."""
    total = count_operations(6)
    for at in range(0, total, 8):
        disk = ModelDisk()
        disk.fail_at(at, number)
        promises = work(disk, 6)
        for state in (0, at + 2):
            audit(promises, disk.after_power_cut(state))


@pytest.mark.slow
@pytest.mark.parametrize("names", [["sync"], ["write"]])
def test_r_dur_4_a_write_fails_and_soon_after_the_power_goes(names):
    """What was refused does not come back, although its octets may have reached the disk."""
    total = count_operations(9)
    refused = 0
    for at in range(60, total, 9):
        disk = ModelDisk()
        disk.fail_from(at, errno.EIO, names)
        # Only the first of them fails.
        disk.on_operation = lambda name, path, disk=disk, at=at: _heal_after(disk, at, name in names)
        disk.cut_power_at(at + 4 + at % 29)
        promises = work(disk, 9)
        refused += len(promises.refused)
        for state in (0, 1, at + 2):
            audit(promises, disk.after_power_cut(state))
    assert refused > 4


def _heal_after(disk: ModelDisk, at: int, is_wanted: bool) -> None:
    number = len(disk.operations) - 1
    if is_wanted and number >= at and disk._fail_from is not None:
        disk.heal()
        disk.fail_at(number, errno.EIO)


@pytest.mark.parametrize(
    "names",
    [
        ["sync"],
        ["write", "fill"],
        pytest.param(["sync_paths"], marks=pytest.mark.slow),
        pytest.param(["create", "rename"], marks=pytest.mark.slow),
        ["sync_directory"],
    ],
)
def test_r_dur_4_a_kind_of_operation_fails_for_good(names):
    """No message is lost, though the disk takes nothing more (a refusal that could not be sealed may come back)."""
    total = count_operations(7)
    for at in range(0, total, 41):
        disk = ModelDisk()
        disk.fail_from(at, errno.EIO, names)
        promises = work(disk, 7)
        promises.refused.clear()
        disk.heal()
        audit(promises, disk.after_power_cut(at))


def test_a_full_disk_recovers():
    for capacity in range(60_000, 140_000, 9000):
        disk = ModelDisk(capacity=capacity)
        promises = work(disk, 8)
        assert promises.kept or promises.refused or capacity < 70_000
        disk.space.free += 1 << 20
        disk.space.total += 1 << 20
        for state in (0, capacity):
            audit(promises, disk.after_power_cut(state))
