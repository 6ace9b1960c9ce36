"""The arrays of an open mailbox: in place where they may be, new where they must be."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.interfaces.mailbox import FlagOperation
from mailsrv.store.flag_change import changed_flags
from mailsrv.store.view import MailboxView, flag_set_of, stored_flags
from tests.linear import assert_linear, cpu_seconds


def rows(*uids: int, mod_seq: int = 2, bits: int = 0) -> list[tuple[int, int, int, str]]:
    return [(uid, mod_seq, bits, "") for uid in uids]


def test_new_messages_are_appended_in_place():
    view = MailboxView()
    view.load(rows(1, 2))
    held = view.uids, view.flag_set_numbers, view.mod_seqs
    assert view.apply_changes(rows(3, mod_seq=3), (), 3, 4)
    assert (view.uids, view.flag_set_numbers, view.mod_seqs) == held
    assert view.uids is held[0]
    assert list(view.uids) == [1, 2, 3]


def test_when_messages_go_all_three_arrays_are_new():
    view = MailboxView()
    view.load(rows(1, 2, 3, 4, 5))
    held = view.uids, view.flag_set_numbers, view.mod_seqs
    view.apply_changes((), [2, 5, 99], 3, 6)
    assert list(view.uids) == [1, 3, 4]
    assert len(view.flag_set_numbers) == len(view.mod_seqs) == 3
    assert all(new is not old for new, old in zip((view.uids, view.flag_set_numbers, view.mod_seqs), held, strict=True))
    assert list(held[0]) == [1, 2, 3, 4, 5]


def test_changed_since_beyond_the_log_is_read_from_the_array():
    view = MailboxView(change_log_entries=4)
    view.load(rows(*range(1, 11)))
    for number, uid in enumerate(range(1, 11), 3):
        view.apply_changes(rows(uid, mod_seq=number, bits=8), (), number, 11)
    assert list(view.changed_since(2)) == list(range(1, 11))
    assert list(view.changed_since(9)) == [8, 9, 10]
    assert list(view.changed_since(12)) == []


def test_nothing_new_tells_nobody():
    view = MailboxView()
    view.load(rows(1))
    told: list[int] = []
    view.watch(lambda: told.append(1))
    assert not view.apply_changes(rows(1), (), 2, 2)
    assert told == []


def test_a_watcher_that_fails_keeps_nobody_from_hearing():
    view = MailboxView()
    told: list[int] = []

    def failing() -> None:
        raise ValueError

    view.watch(failing)
    view.watch(lambda: told.append(1))
    view.apply_changes(rows(1), (), 2, 2)
    assert told == [1]


@settings(max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("new"), st.integers(1, 3)),
            st.tuples(st.just("flags"), st.integers(1, 40)),
            st.tuples(st.just("gone"), st.integers(1, 40)),
        ),
        max_size=60,
    )
)
def test_a_view_agrees_with_a_dictionary(steps: list[tuple[str, int]]):
    view, model, mod_seq, uid_next = MailboxView(change_log_entries=8), {}, 1, 1
    for kind, number in steps:
        mod_seq += 1
        if kind == "new":
            fresh = rows(*range(uid_next, uid_next + number), mod_seq=mod_seq)
            uid_next += number
            model.update({uid: (0, mod_seq) for uid, *_ in fresh})
            view.apply_changes(fresh, (), mod_seq, uid_next)
        elif kind == "flags" and number in model:
            model[number] = (number % 32, mod_seq)
            view.apply_changes(rows(number, mod_seq=mod_seq, bits=number % 32), (), mod_seq, uid_next)
        elif kind == "gone":
            model.pop(number, None)
            view.apply_changes((), [number], mod_seq, uid_next)
        assert list(view.uids) == sorted(model)
        for since in (0, mod_seq - 3, mod_seq - 1, mod_seq):
            assert list(view.changed_since(since)) == [uid for uid in sorted(model) if model[uid][1] > since]
    for uid, number in zip(view.uids, view.flag_set_numbers, strict=True):
        assert view.flag_set(number) == flag_set_of(model[uid][0], "")


@given(st.sets(st.sampled_from(["\\Seen", "\\Draft", "\\Recent", "a", "B", "$Forwarded"])))
def test_flags_are_kept_but_for_recent(flags: set[str]):
    assert flag_set_of(*stored_flags(flags)) == flags - {"\\Recent"}


def test_keywords_are_compared_without_case():
    before = stored_flags({"Work", "\\Seen"})
    assert changed_flags(before, FlagOperation.ADD, 0, "work") == before
    assert changed_flags(before, FlagOperation.REMOVE, 0, "WORK") == (8, "")
    assert changed_flags(before, FlagOperation.REPLACE, 0, "later work") == (0, "Work later")


def test_expunge_of_many_costs_in_proportion():
    def cost(count: int) -> float:
        view = MailboxView()
        view.load(rows(*range(1, count + 1)))
        return cpu_seconds(lambda: view.apply_changes((), range(1, count, 2), 3, count + 1))

    assert_linear(cost, 20_000)
