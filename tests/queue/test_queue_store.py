"""The durable queue: what goes in comes out once, whoever asks, whatever ends in between."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from zope.interface.verify import verifyObject

from mailsrv.disk import RealDisk
from mailsrv.errors import InsufficientStorage, Unavailable
from mailsrv.interfaces.content import FileContent
from mailsrv.interfaces.envelope import BodyType, EnvelopeParameters, Notify
from mailsrv.interfaces.journal import Applied, DeliveryKey, IApplier, JournalRecord, LocalDelivery, NotApplied
from mailsrv.interfaces.queue import (
    LOCAL,
    Delivered,
    DestinationState,
    Ending,
    Finished,
    IQueueStore,
    OnwardDelivery,
    OnwardRecipient,
    Postponed,
    QueueSettlement,
)
from mailsrv.journal.format import RecordType, encode_deliveries
from mailsrv.journal.lookup import JournalReader
from mailsrv.journal.segment import Segment
from mailsrv.journal.spool import new_digest
from mailsrv.queue import housekeeping
from mailsrv.queue.content import return_path_octets
from mailsrv.queue.schema import RecipientState
from mailsrv.queue.settings import QueueSettings
from mailsrv.queue.split_applier import SplitApplier
from tests.queue.queue_setting import BODY, CONTENT, NOW, SEGMENT, A, B, QueueSetting, address, mx, names, onward


@pytest.fixture
def queue(tmp_path: Path):
    setting = QueueSetting(tmp_path).start()
    yield setting
    setting.stop()


# -- in and out ----------------------------------------------------------------------


def test_what_was_enqueued_is_taken_as_it_was_said(queue: QueueSetting):
    parameters = EnvelopeParameters(BodyType.EIGHT_BIT, is_smtputf8=True, envelope_id="x y", requires_tls=True)
    recipient = OnwardRecipient(address('ü"x@a.test'), A, Notify.SUCCESS | Notify.DELAY, "rfc822;bob@other.test")
    delivery = OnwardDelivery(address("sender@example.org"), (recipient,), parameters, "user@here.test")
    [answer] = queue.store.applier.apply(queue.pending(delivery, at=4096))
    assert answer == Applied(DeliveryKey(SEGMENT, 4096, 0), 0, 0, 0)
    [consignment] = queue.take()
    entry = consignment.entry
    assert (entry.transaction_id, entry.reverse_path, entry.account) == (
        "T4096",
        delivery.reverse_path,
        "user@here.test",
    )
    assert (entry.parameters, entry.accepted_at, entry.size) == (parameters, NOW, len(BODY))
    [queued] = consignment.recipients
    assert (queued.address, queued.notify, queued.original_recipient) == (
        recipient.address,
        recipient.notify,
        recipient.original_recipient,
    )
    assert queue.octets(consignment) == BODY
    assert queue.take() == []


def test_recipients_of_a_destination_go_together_up_to_the_limit(queue: QueueSetting):
    queue.enqueue(*((f"u{number}@a.test", A) for number in range(5)), ("v@b.test", B))
    assert queue.waiting() == {"mx:a.test": 5, "mx:b.test": 1}
    first, second = queue.take(recipients=3), queue.take(recipients=3)
    assert names(first + second) == [["u0@a.test", "u1@a.test", "u2@a.test"], ["u3@a.test", "u4@a.test"]]
    assert queue.waiting() == {"mx:b.test": 1}


def test_a_null_reverse_path_stays_one(queue: QueueSetting):
    queue.enqueue(("u@a.test", A), sender=None)
    [consignment] = queue.take()
    assert consignment.entry.reverse_path is None


def test_delivered_and_finished_recipients_are_owed_nothing_more(queue: QueueSetting):
    queue.enqueue(("u@a.test", A), ("v@a.test", A), ("w@a.test", A))
    [consignment] = queue.take()
    queue.settle(consignment, Delivered(0, "250 ok"), Finished(1, Ending.EXPIRED), Postponed(2, NOW + 300, "451 later"))
    assert queue.take() == []
    assert queue.result(queue.store.state(A)) == DestinationState(A, 1, NOW + 300)
    queue.now = NOW + 300
    [again] = queue.take()
    [recipient] = again.recipients
    assert (recipient.id, recipient.attempts, recipient.last_reply) == (2, 1, "451 later")
    queue.settle(again, Delivered(2))
    assert queue.waiting() == {}
    assert queue.result(queue.store.state(A)) == DestinationState(A, 0, math.inf)


def test_postponing_can_change_the_destination_and_need_not_be_an_attempt(queue: QueueSetting):
    queue.enqueue(("u@a.test", A))
    [consignment] = queue.take()
    queue.settle(consignment, Postponed(0, NOW, is_attempt=False, is_delay_told=True, destination=B))
    assert queue.take(A) == []
    [moved] = queue.take(B)
    assert (moved.recipients[0].attempts, moved.recipients[0].is_delay_told) == (0, True)


def test_what_is_given_back_is_due_as_before(queue: QueueSetting):
    queue.enqueue(("u@a.test", A))
    [consignment] = queue.take()
    queue.store.give_back(consignment)
    queue.pump()
    assert names(queue.take()) == [["u@a.test"]]


def test_settling_twice_does_nothing_the_second_time(queue: QueueSetting):
    queue.enqueue(("u@a.test", A), ("v@b.test", B))
    [consignment] = queue.take()
    queue.settle(consignment, Delivered(0))
    queue.settle(consignment, Delivered(0), Postponed(0, NOW))
    assert queue.take() == []
    assert queue.waiting() == {"mx:b.test": 1}


def test_mail_held_for_later_is_due_then(queue: QueueSetting):
    queue.enqueue(("u@a.test", A), parameters=EnvelopeParameters(hold_until=int(NOW) + 60))
    assert queue.take() == []
    assert queue.result(queue.store.state(A)).next_due == NOW + 60
    queue.now = NOW + 60
    assert len(queue.take()) == 1


# -- order ---------------------------------------------------------------------------


def test_higher_priority_goes_first_then_the_oldest(queue: QueueSetting):
    for number, priority in enumerate((0, -3, 4, 0)):
        queue.enqueue((f"u{number}@a.test", A), parameters=EnvelopeParameters(priority=priority))
    assert names(queue.take()) == [["u2@a.test"], ["u0@a.test"], ["u3@a.test"], ["u1@a.test"]]


def test_senders_take_turns(queue: QueueSetting):
    for number in range(6):
        queue.enqueue((f"a{number}@a.test", A), sender="flood@example.org")
    for number in range(2):
        queue.enqueue((f"b{number}@a.test", A), account="user@here.test")
    order = [name for [name] in names(queue.take(messages=2) + queue.take(messages=2) + queue.take(messages=9))]
    assert order == [f"{name}@a.test" for name in ("a0", "b0", "a1", "b1", "a2", "a3", "a4", "a5")]


def test_a_flood_of_one_sender_costs_others_a_turn_only(queue: QueueSetting):
    for number in range(200):
        queue.enqueue((f"a{number}@a.test", A), sender="flood@example.org")
    for number in range(3):
        queue.enqueue((f"b{number}@a.test", A), sender=f"{number}@example.org", accepted_at=int(NOW))
    taken = [name for _ in range(4) for [name] in names(queue.take(messages=1))]
    assert set(taken) == {"a0@a.test", "b0@a.test", "b1@a.test", "b2@a.test"}


# -- who is told -----------------------------------------------------------------------


def test_what_is_enqueued_is_told_whole(queue: QueueSetting):
    queue.enqueue(("u@a.test", A), ("v@b.test", B))
    queue.enqueue(("w@a.test", A))
    assert queue.told == [DestinationState(A, 1, NOW), DestinationState(B, 1, NOW), DestinationState(A, 2, NOW)]


def test_another_worker_is_told_within_a_second_and_what_is_its_own_doing_is_not(tmp_path: Path):
    here = QueueSetting(tmp_path, worker=0, workers=2).start()
    there = QueueSetting(tmp_path, worker=1, workers=2).start()
    here.enqueue(("u@a.test", A))
    there.tick()
    assert there.told == [DestinationState(A, 1, NOW)]
    [consignment] = here.take()
    here.told.clear()
    here.settle(consignment, Postponed(0, NOW + 5, "451"))
    here.tick()
    assert here.told == []
    there.tick()
    assert there.told[-1] == DestinationState(A, 1, NOW + 5)
    here.stop()
    there.stop()


# -- leases ----------------------------------------------------------------------------


def test_a_worker_that_starts_again_frees_its_own_leases_only(tmp_path: Path):
    zero = QueueSetting(tmp_path, worker=0, workers=2).start()
    one = QueueSetting(tmp_path, worker=1, workers=2).start()
    zero.enqueue(("u@a.test", A))
    zero.enqueue(("v@b.test", B))
    zero.take(A)
    one.take(B)
    again = QueueSetting(tmp_path, worker=0, workers=2).start()
    assert again.waiting() == {"mx:a.test": 1}
    # Another worker may be replaying the journal of the one that died: that comes first.
    assert again.take() == []
    again.now += 5
    one.tick()
    assert one.told[-1].waiting == 1
    assert len(again.take()) == 1


def test_leases_of_an_earlier_run_end_when_all_workers_have_replayed(tmp_path: Path):
    old = QueueSetting(tmp_path, worker=1, workers=2).start()
    old.enqueue(("u@a.test", A))
    old.take()
    die(old)
    zero = QueueSetting(tmp_path, run_id=b"run-2", worker=0, workers=2).start()
    assert zero.waiting() == {}
    one = QueueSetting(tmp_path, run_id=b"run-2", worker=1, workers=2)
    # What the last run decided and did not carry out comes before.
    one.settle_journaled(QueueSettlement(zero_id(old), (0,), Ending.BOUNCED), is_replay=True)
    one.start()
    assert one.waiting() == zero.waiting() == {}
    assert zero.take() == one.take() == []


def zero_id(setting: QueueSetting) -> int:
    db = setting.store._thread.db
    assert db is not None
    return int(db.row("SELECT min(id) FROM message")[0])


def test_leases_of_a_worker_that_died_and_is_not_replaced_go_back_after_its_journal(tmp_path: Path):
    first, second = (QueueSetting(tmp_path, worker=number, workers=2).start() for number in range(2))
    first.enqueue(("u@a.test", A))
    assert first.take()
    steps: list[str] = []

    def recover() -> Deferred[None]:
        steps.append("recovered")
        return succeed(None)

    second.store.recover_journal = recover
    second.tick()
    assert not steps
    assert second.take() == []
    die(first)
    second.tick()
    assert steps == ["recovered"]
    assert second.take() == []
    second.now += 10
    assert names(second.take()) == [["u@a.test"]]
    second.tick(2)
    assert steps == ["recovered"]


def die(queue: QueueSetting) -> None:
    """Its lock ends with the process."""
    held = queue.store._seats._held
    assert held is not None
    os.close(held[0])


def test_leases_of_a_worker_of_the_last_run_that_still_lives_are_left_to_it(tmp_path: Path):
    old = QueueSetting(tmp_path, run_id=b"run-1", worker=1, workers=2).start()
    old.enqueue(("u@a.test", A), ("v@b.test", B))
    [taken] = old.take()
    new = [QueueSetting(tmp_path, run_id=b"run-2", worker=number, workers=2).start() for number in range(2)]
    new[0].tick()
    assert new[0].take() == new[1].take() == []
    assert names(new[0].take(B)) == [["v@b.test"]]
    old.settle(taken, Postponed(0, NOW, text="450 later"))
    assert names(new[1].take()) == [["u@a.test"]]
    old.stop()


def test_a_lease_nobody_speaks_of_expires(queue: QueueSetting):
    queue.enqueue(("u@a.test", A))
    [consignment] = queue.take()
    queue.tick()
    # The clock is set: nothing has taken longer for that.
    queue.now += 36000
    queue.tick(61)
    assert queue.waiting() == {}
    queue.now += 1801
    queue.tick(1801)
    assert queue.waiting() == {"mx:a.test": 1}
    [again] = queue.take()
    # The first one was only slow. Its word on the delivery counts.
    queue.settle(consignment, Delivered(0))
    assert queue.waiting() == {}
    queue.settle(again, Postponed(0, NOW))
    assert queue.waiting() == {}


def test_the_attempt_that_was_refused_for_good_counts(queue: QueueSetting):
    queue.enqueue(("u@a.test", A), ("v@a.test", A))
    [consignment] = queue.take()
    for _ in range(2):
        queue.settle_journaled(QueueSettlement(consignment.entry.id, (0,), Ending.BOUNCED, "550 no"))
        queue.settle_journaled(QueueSettlement(consignment.entry.id, (1,), Ending.EXPIRED, "451 later"))
    db = queue.store._thread.db
    assert db is not None
    assert list(db.connection.execute("SELECT attempts FROM recipient ORDER BY number")) == [(1,), (0,)]


def test_a_lease_that_is_renewed_does_not_expire(queue: QueueSetting):
    queue.enqueue(("u@a.test", A), ("v@a.test", A))
    [consignment] = queue.take(recipients=1)
    queue.take()
    for _ in range(4):
        queue.now += 600
        queue.store.renew([consignment.entry.id])
        queue.tick(600)
    assert queue.waiting() == {}
    queue.now += 1801
    queue.tick(1801)
    assert queue.waiting() == {"mx:a.test": 2}
    # What is not ours any more is not renewed.
    queue.store.renew([consignment.entry.id])
    assert queue.waiting() == {"mx:a.test": 2}


def test_destinations_of_long_ago_are_forgotten_while_the_server_runs(
    queue: QueueSetting, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(housekeeping, "_MANY_DESTINATIONS", 2)
    queue.enqueue(("u@a.test", A), ("v@b.test", B))
    queue.settle(queue.take(B)[0], Delivered(1))
    db = queue.store._thread.db
    assert db is not None
    db.connection.execute("DELETE FROM recipient WHERE number=1")
    queue.tick(6 * 3600 + 1)
    assert list(db.connection.execute("SELECT name FROM destination")) == [("mx:a.test",)]
    # Who still knows its number is not misled.
    queue.enqueue(("w@b.test", B))
    assert names(queue.take(B)) == [["w@b.test"]]
    assert queue.waiting() == {"mx:a.test": 1}


# -- replay ------------------------------------------------------------------------------


def test_a_replayed_record_is_queued_once(queue: QueueSetting):
    queue.enqueue(("u@a.test", A), at=4096)
    queue.enqueue(("u@a.test", A), at=4096, is_replay=True)
    [consignment] = queue.take()
    queue.settle(consignment, Delivered(0))
    queue.enqueue(("u@a.test", A), at=4096, is_replay=True)
    assert queue.waiting() == {}


def test_given_twice_without_a_word_it_is_still_queued_once(queue: QueueSetting):
    queue.enqueue(("u@a.test", A), at=4096)
    [answer] = queue.enqueue(("u@a.test", A), at=4096)
    assert isinstance(answer, Applied)
    assert queue.waiting() == {"mx:a.test": 1}


def test_a_forgotten_message_is_not_queued_again_while_its_segment_lives(tmp_path: Path):
    queue = QueueSetting(tmp_path, history_messages=0).start()
    queue.enqueue(("u@a.test", A), at=4096)
    [consignment] = queue.take()
    queue.settle(consignment, Delivered(0))
    queue.tick(61)
    db = queue.store._thread.db
    assert db is not None
    assert db.row("SELECT count(*) FROM message") == db.row("SELECT count(*) FROM recipient") == (0,)
    queue.enqueue(("u@a.test", A), at=4096, is_replay=True)
    assert queue.waiting() == {}
    queue.live = frozenset()
    queue.tick(61)
    assert db.row("SELECT count(*) FROM tombstone") == db.row("SELECT count(*) FROM segment") == (0,)
    # Another segment never gives an id again.
    queue.enqueue(("u@a.test", A), at=4096, segment=b"segment-number-2")
    [other] = queue.take()
    assert other.entry.id != consignment.entry.id
    queue.stop()


def test_a_settlement_ends_recipients_and_its_replay_does_nothing(queue: QueueSetting):
    queue.enqueue(("u@a.test", A), ("v@a.test", A))
    [consignment] = queue.take()
    settlement = QueueSettlement(consignment.entry.id, (0,), Ending.BOUNCED, "550 no")
    for is_replay in (False, True):
        [answer] = queue.settle_journaled(settlement, at=1 << 20, is_replay=is_replay)
        assert isinstance(answer, Applied)
    queue.store.give_back(consignment)
    queue.pump()
    assert names(queue.take()) == [["v@a.test"]]


def test_a_notice_and_its_settlement_are_one(queue: QueueSetting):
    queue.enqueue(("u@a.test", A))
    [consignment] = queue.take()
    settlement = QueueSettlement(consignment.entry.id, (0,), Ending.BOUNCED)
    notice = onward(("sender@example.org", LOCAL), sender=None)
    answers = queue.store.applier.apply(queue.pending(notice, settlement))
    assert [type(answer) for answer in answers] == [Applied, Applied]
    assert queue.waiting() == {"local": 1}


def test_both_sides_of_a_record_get_their_part_and_answer_in_order(queue: QueueSetting):
    class Mailboxes:
        def __init__(self) -> None:
            self.seen: list[object] = []

        def apply(self, deliveries):
            self.seen += [pending.delivery for pending in deliveries]
            return [Applied(pending.key, 7, 8, 9) for pending in deliveries]

        def take_touched(self):
            return {"/mail"}

        def checkpoint_failed(self, keys):
            self.seen += keys

    mailboxes = Mailboxes()
    applier = SplitApplier(mailboxes, queue.store.applier)  # type: ignore[arg-type]
    local = LocalDelivery(address("alice@here.test"))
    answers = applier.apply(queue.pending(onward(("u@a.test", A)), local, onward(("v@b.test", B))))
    assert [answer.uid for answer in answers if isinstance(answer, Applied)] == [0, 8, 0]
    assert mailboxes.seen == [local]
    assert queue.waiting() == {"mx:a.test": 1, "mx:b.test": 1}
    assert {"/mail", str(queue.directory / "queue")} <= set(applier.take_touched())


def test_the_id_of_a_message_survives_the_loss_of_its_row(tmp_path: Path):
    """A power cut may take the end of the log; what the replay puts back is the message that was meant."""
    first = QueueSetting(tmp_path).start()
    first.enqueue(("t@a.test", A), at=4096)
    first.enqueue(("u@a.test", A), at=8192)
    ids = [each.entry.id for each in first.take()]
    db = first.store._thread.db
    assert db is not None
    with db.transaction(is_durable=True) as connection:
        connection.execute("DELETE FROM message; DELETE FROM recipient; UPDATE destination SET waiting=0")
    again = QueueSetting(tmp_path, run_id=b"run-2")
    again.enqueue(("u@a.test", A), at=8192, is_replay=True)
    again.start()
    [consignment] = again.take()
    assert consignment.entry.id == ids[1]


def lose_messages(queue: QueueSetting) -> None:
    """What a power cut does where nothing was synced since the segment got its number."""
    db = queue.store._thread.db
    assert db is not None
    with db.transaction(is_durable=True) as connection:
        connection.execute("DELETE FROM message; DELETE FROM recipient; UPDATE destination SET waiting=0")
        connection.execute("UPDATE queue SET messages=0, octets=0, finished=0")


@pytest.mark.parametrize("settled", [(0,), (0, 1), (1,)])
def test_r_q_2_a_settlement_in_another_journal_may_be_replayed_before_its_message(
    tmp_path: Path, settled: tuple[int, ...]
):
    """Each worker replays its own first. What was delivered must not be sent again."""
    first = QueueSetting(tmp_path, workers=2).start()
    first.enqueue(("u@a.test", A), ("v@a.test", A), at=4096)
    [consignment] = first.take()
    settlement = QueueSettlement(consignment.entry.id, settled, Ending.DELIVERED, "Delivered here")
    first.settle_journaled(settlement, segment=b"of-another-slot!", at=8192)
    lose_messages(first)
    first.stop()
    again = QueueSetting(tmp_path, run_id=b"run-2")
    for _ in range(2):
        [answer] = again.settle_journaled(settlement, segment=b"of-another-slot!", at=8192, is_replay=True)
        assert isinstance(answer, Applied)
    for _ in range(2):
        again.enqueue(("u@a.test", A), ("v@a.test", A), at=4096, is_replay=True)
    again.start()
    left = [name for number, name in enumerate(("u@a.test", "v@a.test")) if number not in settled]
    assert names(again.take()) == ([left] if left else [])
    again.store.applier.take_touched()
    assert len(again.files()) == bool(left)
    db = again.store._thread.db
    assert db is not None
    assert db.row("SELECT messages, finished FROM queue") == (bool(left), not left)
    assert sorted(db.connection.execute("SELECT address, state FROM recipient").fetchall()) == [
        (name, RecipientState.LEASED if name in left else RecipientState.ENDED) for name in ("u@a.test", "v@a.test")
    ]
    again.stop()


def test_what_was_settled_before_a_message_that_never_comes_goes_with_its_segment(tmp_path: Path):
    first = QueueSetting(tmp_path).start()
    first.enqueue(("u@a.test", A), at=4096)
    [consignment] = first.take()
    lose_messages(first)
    first.stop()
    again = QueueSetting(tmp_path, run_id=b"run-2").start()
    again.settle_journaled(QueueSettlement(consignment.entry.id, (0,), Ending.DROPPED), at=8192, is_replay=True)
    db = again.store._thread.db
    assert db is not None
    assert db.row("SELECT count(*) FROM recipient") == (1,)
    housekeeping.forget_segments(db, lambda: again.live)
    assert db.row("SELECT count(*) FROM recipient") == (1,)
    housekeeping.forget_segments(db, frozenset)
    assert db.row("SELECT count(*) FROM recipient") == (0,)
    again.settle_journaled(QueueSettlement(consignment.entry.id, (0,), Ending.DROPPED), at=8192, is_replay=True)
    assert db.row("SELECT count(*) FROM recipient") == (0,)
    again.stop()


# -- content -------------------------------------------------------------------------------


def test_fresh_content_has_no_file_until_the_checkpoint(queue: QueueSetting):
    queue.enqueue(("u@a.test", A))
    assert queue.files() == []
    touched = set(queue.store.applier.take_touched())
    [file] = queue.files()
    assert {str(queue.directory / "queue"), str(file.parent)} <= touched
    assert file.read_bytes() == CONTENT
    [consignment] = queue.take()
    assert queue.octets(consignment) == BODY
    queue.settle(consignment, Delivered(0))
    assert queue.files() == []


def test_what_left_before_the_checkpoint_never_gets_a_file(queue: QueueSetting):
    queue.enqueue(("u@a.test", A))
    [consignment] = queue.take()
    queue.settle(consignment, Delivered(0))
    queue.store.applier.take_touched()
    assert queue.files() == []


def test_over_its_bound_memory_is_left_alone(tmp_path: Path):
    queue = QueueSetting(tmp_path, memory_octets=len(CONTENT)).start()
    queue.enqueue(("u@a.test", A))
    queue.enqueue(("v@a.test", A))
    assert len(queue.files()) == 1
    assert [queue.octets(each) for each in queue.take()] == [BODY, BODY]


def test_a_spool_file_is_linked_and_large_content_is_read_in_pieces(queue: QueueSetting, tmp_path: Path):
    octets = CONTENT + b"x" * (3 << 20)
    spooled = tmp_path / "spooled"
    spooled.write_bytes(octets)
    digest = new_digest()
    digest.update(octets)
    queue.enqueue(("u@a.test", A), content=FileContent(str(spooled), len(octets), digest.digest()))
    [file] = queue.files()
    assert file.samefile(spooled)
    spooled.unlink()
    [consignment] = queue.take()
    content = queue.result(queue.store.open_content(consignment.entry))
    assert (content.size, content.octets) == (len(octets) - (len(CONTENT) - len(BODY)), None)
    assert queue.result(content.read(0, len(BODY) + 3)) == BODY + b"xxx"
    assert queue.result(content.read(content.size - 2, 100)) == b"xx"
    content.close()


def test_where_links_cannot_be_a_spool_file_is_copied(tmp_path: Path):
    class NoLinks(RealDisk):
        def link(self, source: str, target: str) -> None:
            raise OSError(18, "no links")

    queue = QueueSetting(tmp_path, disk=NoLinks()).start()
    spooled = tmp_path / "spooled"
    spooled.write_bytes(CONTENT)
    digest = new_digest()
    digest.update(CONTENT)
    queue.enqueue(("u@a.test", A), content=FileContent(str(spooled), len(CONTENT), digest.digest()))
    spooled.unlink()
    assert queue.octets(queue.take()[0]) == BODY


@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], CONTENT[:-1] + b"!", None])
def test_damaged_content_is_set_aside_and_its_recipients_are_held(queue: QueueSetting, damage: bytes | None):
    queue.enqueue(("u@a.test", A), ("v@b.test", B))
    queue.store.applier.take_touched()
    [file] = queue.files()
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    [consignment] = queue.take()
    with pytest.raises(Unavailable):
        queue.octets(consignment)
    queue.settle(consignment, Postponed(0, NOW, "trouble"))
    assert queue.take(A) == queue.take(B) == []
    assert queue.waiting() == {}
    corrupt = queue.directory / "queue" / "corrupt" / file.name
    assert (corrupt.read_bytes() if damage is not None else None) == damage


def test_after_a_restart_content_comes_back_with_the_replay(tmp_path: Path):
    first = QueueSetting(tmp_path).start()
    first.enqueue(("u@a.test", A), at=4096)
    again = QueueSetting(tmp_path, run_id=b"run-2")
    again.enqueue(("u@a.test", A), at=4096, is_replay=True)
    again.start()
    assert queue_octets(again) == BODY


def test_r_dur_1_a_replay_that_does_not_fit_into_memory_is_in_files_after_the_checkpoint(tmp_path: Path):
    first = QueueSetting(tmp_path).start()
    for number in range(3):
        first.enqueue((f"u{number}@a.test", A), at=4096 * number)
    again = QueueSetting(tmp_path, run_id=b"run-2", memory_octets=len(CONTENT))
    for number in range(3):
        again.enqueue((f"u{number}@a.test", A), at=4096 * number, is_replay=True)
    again.store.applier.take_touched()
    again.live = frozenset()
    again.start()
    assert [again.octets(each) for each in again.take()] == [BODY] * 3
    assert len(again.files()) == 3


def queue_octets(setting: QueueSetting) -> bytes:
    [consignment] = setting.take()
    return setting.octets(consignment)


def test_a_replay_puts_a_file_back_that_a_power_cut_took(tmp_path: Path):
    first = QueueSetting(tmp_path).start()
    first.enqueue(("u@a.test", A), at=4096)
    first.store.applier.take_touched()
    [file] = first.files()
    file.write_bytes(bytes(len(CONTENT)))
    again = QueueSetting(tmp_path, run_id=b"run-2")
    again.enqueue(("u@a.test", A), at=4096, is_replay=True)
    again.start()
    assert queue_octets(again) == BODY


def test_r_dur_1_a_file_that_a_replay_finds_in_place_is_synced_by_the_next_checkpoint(tmp_path: Path):
    """Its checkpoint was never finished: nothing says that it is on the disk."""
    first = QueueSetting(tmp_path).start()
    first.enqueue(("u@a.test", A), at=4096)
    first.store.applier.take_touched()
    [file] = first.files()
    again = QueueSetting(tmp_path, run_id=b"run-2")
    again.enqueue(("u@a.test", A), at=4096, is_replay=True)
    assert str(file.parent) in again.store.applier.take_touched()


def test_another_worker_reads_fresh_content_from_the_journal(tmp_path: Path):
    disk = RealDisk()
    slot = tmp_path / "journal" / "slot-0"
    slot.mkdir(parents=True)
    segment = Segment.initialise(disk, str(slot / "000000000001.segment"), SEGMENT, 1, 65536)
    here = QueueSetting(tmp_path, worker=0, workers=2).start()
    there = QueueSetting(tmp_path, worker=1, workers=2, journal_directory=str(tmp_path / "journal")).start()
    pending = here.pending(onward(("u@a.test", A)), at=4096)
    record = JournalRecord((pending[0].message,), "T4096")
    segment.append(segment.encode(RecordType.DELIVERIES, 0, 4096, encode_deliveries(record)))
    here.store.applier.apply(pending)
    [consignment] = there.take()
    assert there.octets(consignment) == BODY
    # The segment has a new life, the message a file.
    here.store.applier.take_touched()
    segment.renew(bytes(16), 2)
    assert JournalReader(disk, str(tmp_path / "journal")).message(SEGMENT, 4096, 0) is None
    assert there.octets(consignment) == BODY
    segment.close()


@pytest.mark.parametrize(
    ("field", "is_whole"),
    [
        (b"Return-Path: <a@b>\r\n", True),
        (b"return-path:\r\n <a@b>\r\n\t\r\n", True),
        (b"Return-Path : <>\r\n", True),
        (b"Return-Pathology: x\r\n", False),
        (b"Received: x\r\n", False),
        (b"", False),
    ],
)
def test_only_a_return_path_field_of_its_own_is_left_out(field: bytes, is_whole: bool):
    assert return_path_octets(field + BODY) == (len(field) if is_whole else 0)


def test_stray_files_are_swept_and_young_ones_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from mailsrv.queue.housekeeping import sweep_content

    queue = QueueSetting(tmp_path).start()
    queue.enqueue(("u@a.test", A))
    queue.store.applier.take_touched()
    [kept] = queue.files()
    stray = kept.parent / "12345"
    stray.write_bytes(b"left by a crash")
    db = queue.store._thread.db
    assert db is not None
    disk = RealDisk()
    assert sweep_content(db, disk, queue.store.content, lambda: False) == 0
    monkeypatch.setattr("mailsrv.queue.housekeeping._YOUNG_NS", -(10**12))
    assert sweep_content(db, disk, queue.store.content, lambda: False) == 1
    assert queue.files() == [kept]


# -- bounds and trouble ------------------------------------------------------------------------


def test_r_dur_5_a_full_queue_refuses_with_452(tmp_path: Path):
    queue = QueueSetting(tmp_path, queue_settings=QueueSettings(max_messages=2), max_octets=10_000)
    assert isinstance(queue.store.check_acceptance(1, 1), Unavailable)
    queue.start()
    assert queue.store.check_acceptance(1, 1) is None
    refusal = queue.store.check_acceptance(10_001, 1)
    assert isinstance(refusal, InsufficientStorage)
    assert str(refusal.status) == "4.3.1"
    queue.enqueue(("u@a.test", A))
    queue.enqueue(("v@a.test", A))
    assert isinstance(queue.store.check_acceptance(1, 1), InsufficientStorage)
    for consignment in queue.take():
        queue.settle(consignment, Delivered(0))
    queue.tick()
    assert queue.store.check_acceptance(1, 1) is None


def test_below_the_disk_floor_it_refuses_too(tmp_path: Path):
    class FullDisk(RealDisk):
        def space_left(self, path: str):
            return evolve(super().space_left(path), free_octets=10)

    queue = QueueSetting(tmp_path, disk=FullDisk())
    queue.store._storage = evolve(queue.store._storage, free_space_floor=11)
    queue.start()
    queue.tick()
    assert isinstance(queue.store.check_acceptance(1, 1), InsufficientStorage)


def test_a_record_that_cannot_be_applied_does_not_hold_up_others(queue: QueueSetting, tmp_path: Path):
    gone = FileContent(str(tmp_path / "gone"), 10, bytes(16))
    batch = [
        *queue.pending(onward(("u@a.test", A))),
        *queue.pending(onward(("v@a.test", A)), content=gone),
        *queue.pending(onward(("w@a.test", A))),
    ]
    assert [type(answer) for answer in queue.store.applier.apply(batch)] == [Applied, NotApplied, Applied]
    assert names(queue.take()) == [["u@a.test"], ["w@a.test"]]


def test_a_checkpoint_that_failed_writes_everything_anew(queue: QueueSetting):
    queue.enqueue(("u@a.test", A), at=4096)
    queue.store.applier.take_touched()
    [file] = queue.files()
    inode = file.stat().st_ino
    queue.store.applier.checkpoint_failed([DeliveryKey(SEGMENT, 4096, 0)])
    queue.enqueue(("u@a.test", A), at=4096, is_replay=True)
    [file] = queue.files()
    assert file.read_bytes() == CONTENT
    assert str(queue.directory / "queue") in queue.store.applier.take_touched()
    assert file.stat().st_ino != inode or file.stat().st_nlink == 1
    assert queue.waiting() == {"mx:a.test": 1}


def test_a_queue_that_is_not_open_says_so(tmp_path: Path):
    queue = QueueSetting(tmp_path)
    with pytest.raises(Unavailable):
        queue.take()
    queue.start()
    queue.enqueue(("u@a.test", A))
    [consignment] = queue.take()
    queue.stop()
    assert isinstance(queue.store.check_acceptance(1, 1), Unavailable)
    queue.store.give_back(consignment)
    for call in (queue.take, lambda: queue.settle(consignment, Delivered(0))):
        with pytest.raises(Unavailable):
            call()


def test_it_keeps_its_interface(queue: QueueSetting):
    assert verifyObject(IQueueStore, queue.store)
    assert verifyObject(IApplier, queue.store.applier)


def test_a_row_nobody_understands_is_held_and_not_deleted(queue: QueueSetting):
    queue.enqueue(("u@a.test", A))
    queue.enqueue(("v@a.test", A))
    db = queue.store._thread.db
    assert db is not None
    with db.transaction(is_durable=True) as connection:
        connection.execute("UPDATE recipient SET address='no address' WHERE address='u@a.test'")
    assert names(queue.take()) == [["v@a.test"]]
    assert db.row("SELECT state FROM recipient WHERE address='no address'") == (2,)
    assert queue.waiting() == {}


def test_destinations_are_told_apart(queue: QueueSetting):
    for number in range(30):
        queue.enqueue((f"u@d{number}.test", mx(f"d{number}.test")))
    assert queue.waiting() == {f"mx:d{number}.test": 1 for number in range(30)}
