"""Records by name: as a dictionary that forgets when it is full, shared by processes, whatever is in the memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from mailsrv.wire.mapped_file import FileKind
from mailsrv.wire.named_records import NO_TIMES, TIMES, NamedRecord, NamedRecords, RecordShape
from mailsrv.wire.rates import WAYS

SHAPE = RecordShape(128, lasting=slice(2, 4))
KIND = FileKind(b"named records ", "records", lambda sets: sets * SHAPE.set_octets)
KEY = b"k" * 32
NAMES = st.text(st.characters(), max_size=30)  # surrogates too
INSTANTS = st.floats(0, 4e9)
COUNTS = st.integers(0, 0xFFFFFFFF)


def records_of(sets: int, memory: bytearray | None = None) -> NamedRecords:
    return NamedRecords(memoryview(memory or bytearray(sets * SHAPE.set_octets)), KEY, SHAPE)


def used_at(number: int, instant: float) -> NamedRecord:
    return NamedRecord(f"name {number}", (0.0, 0.0, instant, 0.0, 0.0, 0.0), number)


class Dictionary(RuleBasedStateMachine):
    """In a table that is large enough everything is remembered, seen by both of two who share the memory."""

    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        memory = bytearray(30 * SHAPE.set_octets)
        self.tables = records_of(0, memory), records_of(0, memory)
        self.known: dict[str, NamedRecord] = {}

    @rule(target=names, name=NAMES)
    def name(self, name):
        return name

    @rule(name=names, times=st.tuples(*[INSTANTS] * TIMES), count=COUNTS, which=st.sampled_from((0, 1)))
    def store(self, name, times, count, which):
        self.known[name] = NamedRecord(name, times, count)
        self.tables[which].store(self.known[name])

    @rule(name=names, number=st.integers(0, TIMES - 1), value=INSTANTS, which=st.sampled_from((0, 1)))
    def change(self, name, number, value, which):
        slot = self.tables[which].find_or_make(name)
        self.tables[which].set_time(slot, number, value)
        self.tables[which].add_to_count(slot)
        before = self.known.get(name, NamedRecord(name, NO_TIMES, 0))
        times = (*before.times[:number], value, *before.times[number + 1 :])
        self.known[name] = NamedRecord(name, times, (before.count + 1) % 2**32)
        assert self.tables[1 - which].time(slot, number) == value

    @rule(name=names, which=st.sampled_from((0, 1)))
    def forget(self, name, which):
        slot = self.tables[which].find(name)
        assert (slot is None) == (name not in self.known)
        if slot is not None:
            self.tables[which].forget(slot)
            del self.known[name]

    @invariant()
    def both_know_the_same(self):
        for table in self.tables:
            for name, record in self.known.items():
                slot = table.find(name)
                assert slot is not None
                stored = table.record(slot)
                assert (stored.times, stored.count) == (record.times, record.count)
                assert name.startswith(stored.name)
            listed = {record.name for _, record in table.stored()}
            assert len(listed) <= len(self.known)
            assert {name for name in self.known if not SHAPE.may_be_cut(name)} <= listed


TestDictionary = Dictionary.TestCase
TestDictionary.settings = settings(max_examples=25, stateful_step_count=30)


def test_a_full_set_is_bounded_and_the_least_used_makes_room():
    table = records_of(1)
    for number in range(WAYS):
        table.store(used_at(number, 100.0 - number))
    table.store(used_at(100, 200.0))
    assert table.find("name 7") is None
    table.store(used_at(101, 50.0))
    assert table.find("name 6") is None
    table.store(used_at(102, 200.0))
    assert table.find("name 101") is None
    assert {record.count for _, record in table.stored()} == {0, 1, 2, 3, 4, 5, 100, 102}
    assert table.capacity == WAYS


@given(st.lists(INSTANTS, min_size=50, max_size=100))
def test_r_lim_2_any_number_of_names_takes_the_same_room(instants):
    table = records_of(3)
    for number, instant in enumerate(instants):
        table.store(used_at(number, instant))
        slot = table.find(f"name {number}")
        assert slot is not None
        assert table.record(slot) == used_at(number, instant)
    assert len(list(table.stored())) <= table.capacity == 3 * WAYS


@pytest.mark.parametrize(
    "character", ["x", "\N{LATIN SMALL LETTER U WITH DIAERESIS}", "\u20ac", "\U0001f4e7", "\ud800"]
)
def test_long_names_are_cut_between_characters_and_count_as_themselves(character):
    table = records_of(10)
    long = [character * 200, character * 201]
    for count, name in enumerate(long):
        table.store(NamedRecord(name, NO_TIMES, count))
    for count, name in enumerate(long):
        slot = table.find(name)
        assert slot is not None
        assert table.record(slot).count == count
    for _, record in table.stored():
        assert long[0].startswith(record.name)
        assert SHAPE.may_be_cut(record.name)
    assert len(list(table.stored())) == 2


def test_the_count_begins_anew_after_32_bits():
    table = records_of(1)
    table.store(NamedRecord("n", NO_TIMES, 2**32 - 1))
    slot: Any = table.find("n")
    table.add_to_count(slot)
    assert table.record(slot).count == 0


@given(st.binary(min_size=SHAPE.set_octets, max_size=SHAPE.set_octets), NAMES)
def test_damaged_memory_is_a_table(octets, name):
    table = records_of(1, bytearray(octets))
    for slot, record in table.stored():
        assert 0 <= slot < WAYS
        assert isinstance(record.name, str)
    record = NamedRecord(name, (1.0,) * TIMES, 7)
    table.store(record)
    made: Any = table.find(name)
    assert (table.record(made).times, table.record(made).count) == (record.times, 7)


def test_a_record_that_is_half_replaced_is_not_listed():
    memory = bytearray(SHAPE.set_octets)
    table = records_of(1, memory)
    table.store(used_at(1, 1.0))
    place = memory.index(b"name 1")
    memory[place : place + 6] = b"name 2"
    assert list(table.stored()) == []


@pytest.mark.parametrize("octets", [0, SHAPE.set_octets - 8, SHAPE.set_octets + 8])
def test_memory_is_whole_sets(octets):
    with pytest.raises(ValueError, match="whole sets"):
        NamedRecords(memoryview(bytearray(octets)), KEY, SHAPE)


@pytest.mark.parametrize("octets", [0, 64, 129, 1 << 20])
def test_a_record_has_room_for_a_name(octets):
    with pytest.raises(ValueError, match="room for a name"):
        RecordShape(octets, lasting=slice(1))


CHILD = textwrap.dedent(
    """
    import sys
    from tests.wire.test_named_records import KIND, SHAPE, used_at
    from mailsrv.wire.named_records import NamedRecords
    memory = KIND.open(sys.argv[1], 8)
    table = NamedRecords(memory.octets, memory.key, SHAPE)
    print("ready", flush=True)
    sys.stdin.readline()
    for turn in range(10):
        for number in range(100):
            table.store(used_at(number, float(turn)))
            table.add_to_count(table.find_or_make("both"))
        for slot, record in table.stored():
            assert record.name == "both" or record.name == used_at(int(record.name[5:]), 0.0).name, record
            assert record.times[2] in range(10) and record.count < 3000, record
    """
)


def test_two_processes_write_at_once(tmp_path):
    """A count may be lost, and no more: names and numbers are whole, though both make room in the same sets."""
    path = str(tmp_path / "x")
    children: list[Any] = [
        subprocess.Popen([sys.executable, "-c", CHILD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for child in children:
            assert child.stdout.readline() == "ready\n"
        for child in children:
            child.stdin.write("\n")
            child.stdin.flush()
        assert [child.wait(timeout=60) for child in children] == [0, 0]
    finally:
        for child in children:
            child.kill()
            child.communicate()
    memory = KIND.open_existing(path)
    assert memory is not None
    table = NamedRecords(memory.octets, memory.key, SHAPE)
    assert 0 < len(list(table.stored())) <= table.capacity
    table.store(used_at(1, 1.0))
    slot: Any = table.find("name 1")
    assert table.record(slot) == used_at(1, 1.0)
