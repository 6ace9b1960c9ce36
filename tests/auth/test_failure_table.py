"""The file of failed log-ins: shared, bounded, and whole whatever is in it."""

from __future__ import annotations

import os

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.auth.failure_table import ExistingFailures, FailureFile, FailureRecord, FailureTable, failures_path

NAMES = st.text(max_size=300)
NUMBERS = st.floats(0, 4e9)


@given(st.dictionaries(NAMES, st.tuples(*[NUMBERS] * 6, st.integers(0, 0xFFFFFFFF)), max_size=20))
def test_what_is_put_is_there(entries):
    records = FailureTable.in_memory(1000).accounts
    for name, numbers in entries.items():
        records.put(FailureRecord(name, *numbers))
    for name, numbers in entries.items():
        assert records.get(name) == FailureRecord(name, *numbers)
    found = {record.name for _, record in records}
    assert {name for name in entries if len(name.encode("utf-8", "surrogatepass")) < 180} <= found
    assert len(found) <= len(entries)


def test_names_that_are_no_text_are_names():
    records = FailureTable.in_memory(10).pairs
    for name in ("\ud800", "", " ", "a\0b", "x" * 5000, "x" * 5001):
        records.put(FailureRecord(name, since=1.0))
        assert records.get(name).since == 1.0
    assert records.get("x" * 5002).since == 0.0


def test_r_lim_2_the_record_used_longest_ago_makes_room():
    records = FailureTable.in_memory(8).networks
    for number in range(1000):
        records.put(FailureRecord(f"10.0.{number // 250}.{number % 250}", last_failure=float(number + 1)))
    kept = {record.last_failure for _, record in records}
    assert len(kept) == records.capacity
    assert 1000.0 in kept
    assert min(kept) > 900


def test_two_processes_share_a_file_that_outlives_them(tmp_path):
    path = failures_path(str(tmp_path / "state"))
    first, second = FailureFile(path, 100), FailureFile(path, 100)
    first.start()
    second.start()
    first.table.accounts.put(FailureRecord("alice@example.test", failures=3))
    assert second.table.accounts.get("alice@example.test").failures == 3
    assert first.table.digests.derive_key(b"x") == second.table.digests.derive_key(b"x")
    again = FailureTable.open(path, 100)
    assert again.accounts.get("alice@example.test").failures == 3
    again.forget_all()
    assert not list(first.table.accounts)
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_another_size_begins_anew(tmp_path):
    path = failures_path(str(tmp_path / "state"))
    table = FailureTable.open(path, 100)
    table.accounts.put(FailureRecord("alice@example.test", failures=3))
    assert not list(FailureTable.open(path, 200).accounts)


def test_who_only_looks_makes_nothing(tmp_path):
    path = failures_path(str(tmp_path / "state"))
    assert ExistingFailures.open(path) is None
    assert not (tmp_path / "state").exists()
    FailureTable.open(path, 100).pairs.put(FailureRecord("192.0.2.1 alice@example.test", failures=1))
    existing = ExistingFailures.open(path)
    assert existing is not None
    assert [record.failures for _, record in existing.table.pairs] == [1]


@pytest.mark.parametrize("octets", [b"x" * 8192, b"mailsrv log-in failures 1 " + bytes(9000), bytes(4096)])
def test_a_foreign_file_is_not_read_as_ours(tmp_path, octets):
    path = tmp_path / "logins"
    path.write_bytes(octets)
    with pytest.raises(ValueError, match="no table of failed log-ins"):
        FailureTable.open_existing(str(path))


def test_where_the_file_cannot_be_had_the_process_counts_alone(tmp_path):
    (tmp_path / "state").write_text("a file where a folder should be")
    file = FailureFile(failures_path(str(tmp_path / "state")), 10)
    file.start()
    file.table.accounts.put(FailureRecord("alice@example.test", failures=1))
    assert file.table.accounts.get("alice@example.test").failures == 1


@given(st.binary(min_size=256 * 8, max_size=256 * 8))
def test_any_octets_are_a_table(octets):
    table = FailureTable.in_memory(8)
    table._memory[-len(octets) :] = octets
    for _, record in [*table.pairs, *table.networks]:
        assert isinstance(record.name, str)
    record = table.pairs.get("192.0.2.1 alice@example.test")
    table.pairs.put(evolve(record, failures=7))
    assert table.pairs.get("192.0.2.1 alice@example.test").failures == 7
