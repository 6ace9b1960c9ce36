"""The reader: whole commands however they are cut, and never more than its budget in memory (R-IMAP-1)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.imap.reader import Budget, CommandRead, CommandReader, CommandTooBig, LiteralAnnounced

BUDGET = Budget(line=40, literal=20, command=80, discard=200)


def drain(reader, *, refuse_over: int = 20):
    """What the session would do: take literals that fit, refuse others. The events as a list."""
    events = []
    while (event := reader.next_event()) is not None:
        if isinstance(event, LiteralAnnounced):
            if reader.fits(event.size):
                reader.take_literal()
            else:
                events.append("refused" if reader.refuse() else "closed")
            continue
        events.append(event)
        if isinstance(event, CommandTooBig) and not event.can_go_on:
            break
    return events


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_commands_and_literals_are_cut_anywhere(size):
    octets = b"a NOOP\r\nb LOGIN {5}\r\nalice {3+}\r\nx\r\n\r\nc X\nd ~{2}\r\n\r\n\r\n"
    reader = CommandReader(BUDGET)
    events = []
    for start in range(0, len(octets), size):
        reader.receive_octets(octets[start : start + size])
        events += drain(reader)
    assert [event.octets for event in events] == [
        b"a NOOP",
        b"b LOGIN {5}\r\nalice {3+}\r\nx\r\n",
        b"c X",
        b"d ~{2}\r\n\r\n",
    ]
    assert reader.buffered == 0
    assert not reader.is_inside_command


def test_a_refused_non_synchronizing_literal_is_read_over():
    reader = CommandReader(BUDGET)
    reader.receive_octets(b"a X {30+}\r\n" + b"y" * 30 + b" {5+}\r\nzzzzz rest\r\nb NOOP\r\n")
    assert drain(reader) == ["refused", CommandRead(b"b NOOP")]


def test_a_refused_synchronizing_literal_does_not_come():
    reader = CommandReader(BUDGET)
    reader.receive_octets(b"a X {30}\r\nb NOOP\r\n")
    assert drain(reader) == ["refused", CommandRead(b"b NOOP")]


def test_a_literal_too_large_to_read_over_closes():
    reader = CommandReader(BUDGET)
    reader.receive_octets(b"a X {201+}\r\nyyy")
    assert drain(reader) == ["closed"]
    reader.receive_octets(b"more")
    assert reader.buffered == 0


def test_a_long_line_is_told_once_and_read_over():
    reader = CommandReader(BUDGET)
    reader.receive_octets(b"tag X " + b"y" * 60)
    [event] = drain(reader)
    assert event.start.startswith(b"tag X")
    assert event.can_go_on
    reader.receive_octets(b"y" * 60 + b" {4+}\r\nabcd\r\nb NOOP\r\n")
    assert drain(reader) == [CommandRead(b"b NOOP")]


def test_a_line_without_end_closes():
    reader = CommandReader(BUDGET)
    events = []
    for _ in range(60):
        reader.receive_octets(b"y" * 10)
        events += drain(reader)
        assert reader.buffered <= 60
    assert [event.can_go_on for event in events] == [True, False]


def test_the_command_budget_counts_lines_and_literals():
    reader = CommandReader(BUDGET)
    reader.receive_octets(
        b"a X" + b" {20+}\r\n" + b"y" * 20 + b" {20+}\r\n" + b"y" * 20 + b" {20+}\r\n" + b"y" * 20 + b"\r\n"
    )
    assert drain(reader)[0] == "refused"
    reader.receive_octets(b"b NOOP\r\n")
    assert drain(reader)[-1] == CommandRead(b"b NOOP")


def test_a_streamed_literal_is_not_kept():
    reader = CommandReader(BUDGET)
    reader.receive_octets(b"a APPEND x {10}\r\n")
    assert isinstance(reader.next_event(), LiteralAnnounced)
    reader.stream_literal()
    taken = b""
    for octet in b"0123456789":
        reader.receive_octets(bytes([octet]))
        taken += reader.take_slice()
    assert taken == b"0123456789"
    reader.receive_octets(b"\r\nb NOOP\r\n")
    assert drain(reader) == [CommandRead(b""), CommandRead(b"b NOOP")]


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([b"a", b" ", b"\r\n", b"{5}\r\n", b"{5+}\r\n", b"{300+}\r\n", b"{", b"}", b"\n"]),
            st.binary(max_size=30),
        ),
        max_size=40,
    )
)
def test_r_imap_1_any_octets_in_any_pieces_stay_within_the_budget(pieces):
    """Invariant: nothing is raised, and what is held is never more than the budget and one piece."""
    reader = CommandReader(BUDGET)
    for piece in pieces:
        reader.receive_octets(piece)
        drain(reader)
        held = reader.buffered + len(reader._command)
        assert held <= BUDGET.command + BUDGET.line + BUDGET.literal + 30


@settings(max_examples=150)
@given(st.binary(max_size=120), st.data())
def test_pieces_do_not_matter(octets, data):
    whole = CommandReader(BUDGET)
    whole.receive_octets(octets)
    expected = drain(whole)
    reader = CommandReader(BUDGET)
    found = []
    position = 0
    while position < len(octets):
        size = data.draw(st.integers(1, 9))
        reader.receive_octets(octets[position : position + size])
        found += drain(reader)
        position += size

    def kinds(events):
        return [event if not isinstance(event, CommandTooBig) else event.can_go_on for event in events]

    assert kinds(found) == kinds(expected)


def test_a_slow_sender_costs_linear_work():
    """The search for a line's end goes on where it stopped."""
    reader = CommandReader(Budget(100_000, 100_000, 100_000, 100_000))
    for _ in range(5000):
        reader.receive_octets(b"xxxx")
        assert reader.next_event() is None
        assert reader._scanned == reader.buffered
