"""The table that workers share: in a file, with several processes, and after some of them died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from mailsrv.wire.connection_limits import ConnectionTable, RateKind, TooManyConnections
from mailsrv.wire.rates import Rate
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.shared_table import NoColumn, SharedTable

NOW = 1_700_000_000.0
RUN = b"r" * 16


def shared(path, *, run_id=RUN, buckets=100, connections=50, workers=2):
    return SharedTable.open(
        str(path / "rates" / "clients"), run_id, buckets=buckets, connections=connections, workers=workers
    )


def test_workers_see_each_other(tmp_path):
    one, two = shared(tmp_path), shared(tmp_path)
    rate = Rate(2, 60, 2)
    assert one.buckets.take("k", "n", rate, NOW)
    assert two.buckets.take("k", "n", rate, NOW)
    assert not one.buckets.take("k", "n", rate, NOW)
    one.publish("n", 3)
    two.publish("n", 4)
    assert (one.elsewhere("n"), two.elsewhere("n")) == (4, 3)
    one.publish("n", 0)
    assert two.elsewhere("n") == 0
    assert two.elsewhere("other") == 0


def test_a_table_of_one_process_counts_nobody_else():
    table = SharedTable.in_memory(10)
    table.publish("n", 3)
    assert table.elsewhere("n") == 0
    table.close()


def test_the_file_is_ours_alone_and_not_sparse(tmp_path):
    shared(tmp_path / "state")
    status = os.stat(tmp_path / "state" / "rates" / "clients")
    assert status.st_mode & 0o777 == 0o600
    for folder in (tmp_path / "state", tmp_path / "state" / "rates"):
        assert os.stat(folder).st_mode & 0o777 == 0o700
    assert status.st_blocks * 512 >= status.st_size


@pytest.mark.parametrize("change", [{"run_id": b"s" * 16}, {"buckets": 200}, {"connections": 99}, {"workers": 3}])
def test_another_run_or_size_begins_anew_and_the_old_one_goes_on(tmp_path, change):
    old = shared(tmp_path)
    old.publish("n", 5)
    rate = Rate(1, 60, 1)
    assert old.buckets.take("k", "n", rate, NOW)
    new = shared(tmp_path, **change)
    assert new.elsewhere("n") == 0
    assert new.buckets.take("k", "n", rate, NOW)
    assert not old.buckets.take("k", "n", rate, NOW)


def test_a_foreign_or_broken_file_is_replaced(tmp_path):
    path = tmp_path / "rates" / "clients"
    path.parent.mkdir()
    for content in (b"", b"x" * 100, b"\xff" * 100_000):
        path.write_bytes(content)
        shared(tmp_path).publish("n", 1)
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    path.unlink()
    path.symlink_to(target)
    shared(tmp_path).publish("n", 1)
    assert not path.is_symlink()
    assert target.read_bytes() == b"precious"


def test_there_is_room_for_all_workers_and_their_successors_and_then_no_more(tmp_path):
    tables = [shared(tmp_path, workers=1) for _ in range(4)]
    with pytest.raises(NoColumn):
        shared(tmp_path, workers=1)
    tables[1].close()
    shared(tmp_path, workers=1)


def test_a_worker_that_ends_takes_its_counts_with_it(tmp_path):
    one, two = shared(tmp_path), shared(tmp_path)
    one.publish("n", 3)
    assert two.elsewhere("n") == 3
    one.close()
    one.close()
    assert two.elsewhere("n") == 0


def test_a_full_set_counts_no_more_but_does_no_harm(tmp_path):
    one, two = shared(tmp_path, connections=1), shared(tmp_path, connections=1)
    for number in range(40):
        one.publish(str(number), 1)
    seen = sum(two.elsewhere(str(number)) for number in range(40))
    assert seen == 8
    for number in range(40):
        one.publish(str(number), 0)
    assert sum(two.elsewhere(str(number)) for number in range(40)) == 0


CHILD = textwrap.dedent(
    """
    import sys
    from mailsrv.wire.rates import Rate
    from mailsrv.wire.shared_table import SharedTable
    table = SharedTable.open(sys.argv[1], b"r" * 16, buckets=100, connections=50, workers=4)
    table.publish("crowd", 7)
    taken = 0
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(20000):
        taken += table.buckets.take("k", "n", Rate(1, 86400.0, 3000), 1_700_000_000.0)
    print(taken, flush=True)
    sys.stdin.readline()
    """
)


def test_several_processes_on_one_table(tmp_path):
    """Racing for the same bucket they take no more than it holds, but for a lost count now and then."""
    path = str(tmp_path / "rates" / "clients")
    children: list[Any] = [
        subprocess.Popen([sys.executable, "-c", CHILD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    try:
        for child in children:
            assert child.stdout.readline() == "ready\n"
        table = shared(tmp_path, workers=4)
        assert table.elsewhere("crowd") == 21
        for child in children:
            child.stdin.write("\n")
            child.stdin.flush()
        taken = sum(int(child.stdout.readline()) for child in children)
        # A count is lost where two were at the same place at the same moment; at worst everybody had a bucket's own.
        assert 3000 <= taken <= 9000
        assert not table.buckets.take("k", "n", Rate(1, 86400.0, 3000), NOW)
        children[0].send_signal(signal.SIGKILL)
        children[0].wait()
        # Counted until somebody takes the place of the dead, who is cleared then.
        replacement = shared(tmp_path, workers=4)
        assert table.elsewhere("crowd") == 14
        replacement.publish("crowd", 1)
        assert table.elsewhere("crowd") == 15
    finally:
        for child in children:
            child.kill()
            child.communicate()


def connection_tables(tmp_path, count=2, **settings):
    limits = LimitsSettings(exempt_networks=(), **settings)
    return [ConnectionTable(limits, lambda: NOW, shared(tmp_path, workers=count)) for _ in range(count)]


def test_r_lim_2_connections_of_all_workers_together(tmp_path):
    one, two = connection_tables(tmp_path, smtp_connections_per_network=2)
    first, _second = one.open("192.0.2.1", "smtp"), two.open("192.0.2.1", "smtp")
    for table in (one, two):
        with pytest.raises(TooManyConnections) as refused:
            table.open("192.0.2.1", "smtp")
        assert refused.value.limit == "smtp_connections_per_network"
    one.open("192.0.2.1", "imap")
    first.close()
    two.open("192.0.2.1", "smtp")
    with pytest.raises(TooManyConnections):
        one.open("192.0.2.1", "smtp")


def test_r_lim_2_connections_of_a_user_of_all_workers_together(tmp_path):
    one, two = connection_tables(tmp_path, connections_per_user_and_network=2)
    first, second = one.open("192.0.2.1", "imap"), two.open("192.0.2.1", "imap")
    first.authenticate("alice@example.test")
    second.authenticate("alice@example.test")
    third = one.open("192.0.2.1", "imap")
    with pytest.raises(TooManyConnections):
        third.authenticate("alice@example.test")
    second.close()
    third.authenticate("alice@example.test")


def test_r_lim_2_new_connections_of_all_workers_together(tmp_path):
    one, two = connection_tables(tmp_path, new_connections_per_minute=4)
    for table in (one, two, one, two):
        table.open("2001:db8::1", "smtp").close()
    for table in (one, two):
        with pytest.raises(TooManyConnections):
            table.open("2001:db8:0:0:ffff::2", "smtp")


def test_r_lim_2_rates_of_all_workers_together(tmp_path):
    one, two = connection_tables(tmp_path, network_transactions="3 per minute")
    slots = [one.open("192.0.2.1", "smtp"), two.open("192.0.2.1", "smtp")]
    assert [slots[number % 2].take(RateKind.TRANSACTIONS) for number in range(5)] == [True, True, True, False, False]


def test_a_worker_that_ends_in_order_frees_its_connections(tmp_path):
    one, two = connection_tables(tmp_path, smtp_connections_per_network=1)
    one.open("192.0.2.1", "smtp")
    with pytest.raises(TooManyConnections):
        two.open("192.0.2.1", "smtp")
    one.close()
    two.open("192.0.2.1", "smtp")
