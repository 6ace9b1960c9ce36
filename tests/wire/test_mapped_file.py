"""Files that processes map: what is made, what is taken as it is, and what is refused."""

from __future__ import annotations

import os

import pytest
from twisted.logger import capturedLogs

from mailsrv.wire.mapped_file import (
    HEADER_OCTETS,
    FileKind,
    LateTable,
    TableMemory,
    key_of,
    label_of,
    map_existing,
    map_file,
)

APPLES = FileKind(b"apples 1 ", "apples", lambda size: size * 8)


def test_keys_differ(tmp_path):
    keys = set()
    for number in range(3):
        mapping, descriptor = map_file(str(tmp_path / "x"), b"label %d" % number, 64)
        os.close(descriptor)
        keys.add(key_of(mapping))
        assert label_of(mapping).rstrip(b"\0") == b"label %d" % number
        assert mapping[HEADER_OCTETS:] == bytes(64)
    assert len(keys) == 3


def test_an_existing_file_is_mapped_as_it_is(tmp_path):
    assert map_existing(str(tmp_path / "none")) is None
    (tmp_path / "short").write_bytes(b"x")
    assert map_existing(str(tmp_path / "short")) is None
    map_file(str(tmp_path / "x"), b"label", 64)
    mapping = map_existing(str(tmp_path / "x"))
    assert mapping is not None
    assert len(mapping) == HEADER_OCTETS + 64
    with pytest.raises(ValueError, match="label"):
        map_file(str(tmp_path / "x"), b"x" * 129, 64)


def test_a_kind_of_file_keeps_what_is_in_it(tmp_path):
    path = str(tmp_path / "x")
    assert APPLES.open_existing(path) is None
    first = APPLES.open(path, 3)
    assert (len(first.octets), first.size) == (24, 3)
    first.octets[5] = 7
    for again in (APPLES.open(path, 3), APPLES.open_existing(path)):
        assert again is not None
        assert (again.size, again.key, again.octets[5]) == (3, first.key, 7)
    assert bytes(APPLES.open(path, 4).octets) == bytes(32)


def test_memory_of_a_process_is_of_the_same_size():
    one, two = APPLES.in_memory(3), APPLES.in_memory(3)
    assert bytes(one.octets) == bytes(24)
    assert one.key != two.key


@pytest.mark.parametrize(
    "octets",
    [
        b"x" * 8192,
        bytes(4096),
        b"apples 1 " + bytes(4087),
        b"apples 1 \x02".ljust(HEADER_OCTETS + 8, b"\0"),
        b"apples 1 \xff\xff\xff\xff\xff\xff\xff\xff".ljust(HEADER_OCTETS + 8, b"\0"),
        b"apples 2 \x01".ljust(HEADER_OCTETS + 8, b"\0"),
    ],
)
def test_a_foreign_or_damaged_file_is_replaced_by_who_counts_and_refused_to_who_looks(tmp_path, octets):
    path = tmp_path / "x"
    path.write_bytes(octets)
    with pytest.raises(ValueError, match="is no table of apples"):
        APPLES.open_existing(str(path))
    assert bytes(APPLES.open(str(path), 1).octets) == bytes(8)


def late_table(path: str | None) -> LateTable[TableMemory]:
    return LateTable(path, APPLES.what, lambda path: APPLES.open(path, 1), lambda: APPLES.in_memory(1))


def test_a_late_table_is_opened_when_it_is_wanted(tmp_path):
    path = tmp_path / "rates" / "x"
    late = late_table(str(path))
    assert not path.exists()
    late.table.octets[0] = 1
    assert path.exists()
    started = late_table(str(path))
    started.start()
    assert started.table.octets[0] == 1


def test_a_late_table_without_a_file_is_of_the_process(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    late = late_table(str(tmp_path / "file" / "x"))
    with capturedLogs() as told:
        late.start()
    assert [event["what"] for event in told] == ["apples"]
    assert "cannot be used" in told[0]["log_format"]
    assert late.table is late.table
    assert late_table(None).table.size == 1
