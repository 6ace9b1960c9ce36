"""Records that hold what goes to the queue: applied, replayed, put aside and tried again like all others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from attrs import evolve
from zope.interface import implementer

from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.journal import (
    Applied,
    DeliveryKey,
    IApplier,
    JournaledMessage,
    JournalRecord,
    LocalDelivery,
    NotApplied,
    PendingDelivery,
)
from mailsrv.interfaces.queue import (
    Destination,
    Ending,
    OnwardDelivery,
    OnwardRecipient,
    QueueSettlement,
    Transport,
)
from mailsrv.journal.entry import QUEUE_LANE
from mailsrv.queue.split_applier import SplitApplier
from mailsrv.testing.disk import ModelDisk
from tests.journal.rig import ALICE, BOB, SMALL, FileApplier, Rig

ONWARD = OnwardDelivery(ALICE, (OnwardRecipient(BOB, Destination(Transport.MX, "b.test")),), account="alice")
SETTLEMENT = QueueSettlement(7, (0, 3), Ending.BOUNCED, "550 no")


@implementer(IApplier)
class ListedQueue:
    """Remembers what it was given, each key once."""

    def __init__(self) -> None:
        self.have: dict[DeliveryKey, object] = {}
        self.transactions: list[str] = []
        self.failure: MailError | None = None
        self.checkpoint_failure: Exception | None = None

    def apply(self, deliveries: Sequence[PendingDelivery[Any]]) -> Sequence[Applied | NotApplied]:
        if self.failure is not None:
            return [NotApplied(pending.key, self.failure) for pending in deliveries]
        for pending in deliveries:
            self.have.setdefault(pending.key, pending.delivery)
            self.transactions.append(pending.transaction_id)
        return [Applied(pending.key, 0, 0, 0) for pending in deliveries]

    def take_touched(self) -> Collection[str]:
        if self.checkpoint_failure is not None:
            raise self.checkpoint_failure
        return ()

    def checkpoint_failed(self, keys: Collection[DeliveryKey]) -> None: ...


class QueueRig(Rig):
    """With a queue beside the mailboxes."""

    def __init__(self, disk: ModelDisk, segment_octets: int = SMALL.segment_octets) -> None:
        self.mailboxes = FileApplier(disk)
        self.queue = ListedQueue()
        applier: Any = SplitApplier(self.mailboxes, self.queue)
        super().__init__(disk, evolve(SMALL, segment_octets=segment_octets), applier)

    def put(self, *deliveries: Any, octets: bytes = b"mail") -> list[object]:
        result: list[object] = []
        message = JournaledMessage(InlineContent(octets), deliveries, 1_700_000_000)
        self.journal.commit(JournalRecord((message,), "T1", "alice@example.test")).addBoth(result.append)
        self.pump()
        return result


def test_a_record_goes_to_mailboxes_and_queue():
    rig = QueueRig(ModelDisk()).start()
    assert rig.put(LocalDelivery(ALICE), ONWARD) == [None]
    assert rig.mailboxes.texts() == [b"mail"]
    assert list(rig.queue.have.values()) == [ONWARD]
    assert rig.queue.transactions == ["T1"]


def test_a_settlement_alone_is_a_record():
    rig = QueueRig(ModelDisk()).start()
    assert rig.put(SETTLEMENT, octets=b"") == [None]
    assert list(rig.queue.have.values()) == [SETTLEMENT]


def test_a_replay_gives_everything_again_under_its_keys():
    disk = ModelDisk()
    rig = QueueRig(disk).start()
    rig.put(LocalDelivery(ALICE), ONWARD, SETTLEMENT)
    again = QueueRig(disk.after_power_cut(1)).start()
    assert again.queue.have == rig.queue.have
    assert again.mailboxes.texts() == [b"mail"]


def test_trouble_with_the_queue_holds_up_no_mailbox():
    rig = QueueRig(ModelDisk()).start()
    rig.queue.failure = Unavailable()
    rig.put(LocalDelivery(ALICE), ONWARD)
    rig.put(LocalDelivery(BOB))
    assert rig.mailboxes.texts(ALICE) == rig.mailboxes.texts(BOB) == [b"mail"]
    assert rig.journal.status().blocked_deliveries == 1
    rig.queue.failure = None
    rig.tick(5)
    assert list(rig.queue.have.values()) == [ONWARD]
    assert rig.journal.status().blocked_deliveries == 0


def test_what_the_queue_never_takes_is_put_aside_and_tried_again_later():
    rig = QueueRig(ModelDisk(), segment_octets=1 << 20).start()
    rig.queue.failure = Unavailable(cause="the queue is broken")
    many = OnwardDelivery(ALICE, ONWARD.recipients * 3000)
    rig.put(ONWARD, many, SETTLEMENT)
    for _ in range(10):
        rig.tick(60)
    listed: list[Any] = []
    rig.journal.list_stuck().addCallback(listed.extend)
    rig.pump()
    assert [each.account for each in listed] == [QUEUE_LANE] * 3
    assert listed[0].recipient == "bob@example.test (mx:b.test)"
    assert listed[1].recipient == "3000 recipients"
    assert "bounced" in listed[2].recipient
    rig.queue.failure = None
    retried: list[Any] = []
    rig.journal.retry_stuck().addCallback(retried.extend)
    rig.pump()
    assert all(each.is_delivered for each in retried)
    assert sorted(map(str, rig.queue.have.values())) == sorted(map(str, [ONWARD, many, SETTLEMENT]))
    assert set(rig.queue.transactions) == {"T1"}


def test_r_dur_4_a_checkpoint_the_queue_cannot_make_recycles_nothing():
    disk = ModelDisk()
    rig = QueueRig(disk).start()
    rig.put(LocalDelivery(ALICE), ONWARD)
    rig.queue.checkpoint_failure = OSError(28, "no room")
    for _ in range(3):
        rig.tick(100)
    assert rig.journal.status().failed_checkpoints > 0
    assert rig.journal.status().live_segments == 1
    rig.queue.checkpoint_failure = None
    for _ in range(4):
        rig.tick(100)
    assert rig.journal.status().live_segments == 0


def test_a_stop_whose_checkpoint_fails_leaves_the_record_for_the_next_start():
    disk = ModelDisk()
    rig = QueueRig(disk).start()
    rig.put(ONWARD)
    rig.queue.checkpoint_failure = Unavailable()
    rig.stop()
    again = QueueRig(disk).start()
    assert again.queue.have == rig.queue.have
