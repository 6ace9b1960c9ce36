"""The store against a model of a few lines: whatever is done in whatever order, both agree."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from mailsrv.disk import RealDisk
from mailsrv.interfaces.queue import AT_ONCE, Consignment, Delivered, Ending, Finished, Postponed, QueueSettlement
from mailsrv.queue.admin import Command, QueueAdministration
from mailsrv.queue.selection import Selection
from tests.queue.queue_setting import A, B, QueueSetting

DESTINATIONS = [A, B]
WAITING, LEASED, HELD, ENDED = "waiting", "leased", "held", "ended"


class QueueMachine(RuleBasedStateMachine):
    """Recipients are named by (message id, number); the model knows state, destination and due time of each."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.setting = QueueSetting(self.folder).start()
        self.admin = QueueAdministration(str(self.folder / "queue"), RealDisk(), clock=lambda: self.setting.now)
        self.model: dict[tuple[int, int], list[Any]] = {}
        self.records: list[tuple[int, tuple[int, ...]]] = []
        self.runs = 1
        self.next_place = 4096

    def teardown(self) -> None:
        self.admin.close()
        self.setting.stop()
        shutil.rmtree(self.folder)

    # -- what happens ------------------------------------------------------------------

    @rule(where=st.lists(st.sampled_from([0, 1]), min_size=1, max_size=4))
    def enqueue(self, where: list[int]) -> None:
        place, self.next_place = self.next_place, self.next_place + 4096
        self.records.append((place, tuple(where)))
        self._apply(place, where, is_replay=False)
        db = self.setting.store._thread.db
        assert db is not None
        message = db.row("SELECT id FROM message WHERE transaction_id=?", (f"T{place}",))[0]
        for number, destination in enumerate(where):
            self.model[message, number] = [WAITING, DESTINATIONS[destination], self.setting.now]

    def _apply(self, place: int, where: list[int] | tuple[int, ...], *, is_replay: bool) -> None:
        recipients = [(f"u{number}@x.test", DESTINATIONS[each]) for number, each in enumerate(where)]
        self.setting.enqueue(*recipients, at=place, is_replay=is_replay, accepted_at=int(self.setting.now))

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        if self.records:
            place, where = data.draw(st.sampled_from(self.records))
            self._apply(place, where, is_replay=True)

    @rule(target=taken, destination=st.sampled_from(DESTINATIONS), messages=st.integers(1, 5), most=st.integers(1, 3))
    def take(self, destination, messages, most):
        found = self.setting.take(destination, messages, most)
        due = {
            key
            for key, (state, where, at) in self.model.items()
            if state == WAITING and where == destination and at <= self.setting.now
        }
        got = {(each.entry.id, recipient.id) for each in found for recipient in each.recipients}
        assert got <= due
        assert bool(got) is bool(due)
        assert len(found) <= messages
        assert all(len(each.recipients) <= most for each in found)
        if len(found) < messages:
            assert {key for key, _ in due} == {key for key, _ in got}
        for key in got:
            self.model[key][0] = LEASED
        return found

    @rule(consignments=consumes(taken), how=st.integers(0, 3), wait=st.sampled_from([0.0, 50.0]))
    def settle(self, consignments: list[Consignment], how: int, wait: float) -> None:
        for each in consignments:
            for recipient in each.recipients:
                row = self.model[each.entry.id, recipient.id]
                if how == 0:
                    self.setting.settle(each, Delivered(recipient.id, "250"))
                    row[0] = ENDED
                elif how == 1:
                    self.setting.settle(each, Finished(recipient.id, Ending.EXPIRED))
                    row[0] = ENDED
                elif how == 2:
                    self.setting.settle_journaled(
                        QueueSettlement(each.entry.id, (recipient.id,), Ending.BOUNCED), at=self.next_place
                    )
                    self.next_place += 4096
                    row[0] = ENDED
                elif row[0] in (LEASED, "leased, held"):
                    self.setting.settle(each, Postponed(recipient.id, self.setting.now + wait, "451"))
                    row[0] = WAITING if row[0] == LEASED else HELD
                    row[2] = self.setting.now + wait
                else:
                    self.setting.settle(each, Postponed(recipient.id, self.setting.now + wait, "451"))

    @rule(consignments=consumes(taken))
    def give_back(self, consignments: list[Consignment]) -> None:
        for each in consignments:
            self.setting.store.give_back(each)
            self.setting.pump()
            for recipient in each.recipients:
                row = self.model[each.entry.id, recipient.id]
                row[0] = {LEASED: WAITING, "leased, held": HELD}.get(str(row[0]), row[0])

    @rule(seconds=st.sampled_from([10.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.setting.now += seconds

    @rule(command=st.sampled_from(Command), destination=st.sampled_from(DESTINATIONS))
    def administer(self, command: Command, destination) -> None:
        target = B if command is Command.REROUTE else None
        self.admin.change(command, Selection(destination=str(destination)), destination=target)
        now = self.setting.now
        for row in self.model.values():
            if row[1] != destination or row[0] == ENDED:
                continue
            if command is Command.HOLD:
                row[0] = {WAITING: HELD, LEASED: "leased, held"}.get(str(row[0]), row[0])
            elif command is Command.RELEASE:
                row[0] = {HELD: WAITING, "leased, held": LEASED}.get(str(row[0]), row[0])
            elif command is Command.DROP:
                row[0] = ENDED
            elif command is Command.FLUSH and row[0] == WAITING:
                row[2] = AT_ONCE
            elif command is Command.REQUEUE and row[0] in (WAITING, HELD):
                row[0], row[2] = WAITING, now
            elif command is Command.REROUTE:
                row[1], row[2] = B, min(row[2], now)

    @rule()
    def checkpoint(self) -> None:
        self.setting.store.applier.take_touched()

    @rule()
    def end_and_start_again(self) -> None:
        """Killed: what was leased waits again, once the journal was replayed."""
        now = self.setting.now
        self.setting.stop()
        self.runs += 1
        self.setting = QueueSetting(self.folder, run_id=b"run-%d" % self.runs)
        self.setting.now = now
        for place, where in self.records:
            self._apply(place, where, is_replay=True)
        self.setting.start()
        for row in self.model.values():
            row[0] = {LEASED: WAITING, "leased, held": HELD}.get(str(row[0]), row[0])

    # -- what always holds -----------------------------------------------------------------

    @invariant()
    def the_counts_agree(self) -> None:
        expected: dict[str, int] = {}
        for state, destination, _ in self.model.values():
            if state == WAITING:
                expected[str(destination)] = expected.get(str(destination), 0) + 1
        assert self.setting.waiting() == expected
        for destination in DESTINATIONS:
            due = [row[2] for row in self.model.values() if row[:2] == [WAITING, destination]]
            state = self.setting.result(self.setting.store.state(destination))
            assert state.next_due == min(due, default=float("inf"))

    @invariant()
    def what_is_owed_has_its_content(self) -> None:
        owed = {message for (message, _), row in self.model.items() if row[0] != ENDED}
        statistics = self.admin.statistics(0)
        assert statistics.messages == len(owed)
        for message in owed:
            fresh = self.setting.store.content.fresh(message)
            path = Path(self.setting.store.content.path(message))
            assert (fresh is not None) is not path.exists()
        assert len(self.setting.files()) <= len(owed)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
