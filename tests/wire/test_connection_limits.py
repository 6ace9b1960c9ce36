"""R-LIM-2 (at, over, recover) and R-NAT-1 for every limit on connections."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from mailsrv.wire.connection_limits import ConnectionTable, TooManyConnections
from mailsrv.wire.settings import LimitsSettings


def table_of(clock: Clock | None = None, **settings: object) -> ConnectionTable:
    return ConnectionTable(LimitsSettings(**settings), (clock or Clock()).seconds)  # type: ignore[arg-type]


def test_r_lim_2_total():
    table = table_of(connections_total=2)
    first, _ = table.open("127.0.0.1", "smtp"), table.open("", "imap")
    with pytest.raises(TooManyConnections) as refused:
        table.open("127.0.0.1", "smtp")
    assert refused.value.limit == "connections_total"
    first.close()
    first.close()
    table.open("127.0.0.1", "smtp")
    assert table.total == 2
    assert table.refusals == {"connections_total": 1}


def test_r_lim_2_per_network():
    table = table_of(smtp_connections_per_network=2)
    first, _ = table.open("192.0.2.1", "smtp"), table.open("192.0.2.1", "smtp")
    with pytest.raises(TooManyConnections, match="Too many connections"):
        table.open("192.0.2.1", "smtp")
    table.open("192.0.2.2", "smtp")
    table.open("192.0.2.1", "imap")
    first.close()
    table.open("192.0.2.1", "smtp")


def test_r_nat_1_only_connections_that_are_not_logged_in_count():
    table = table_of(imap_connections_per_network=1, new_connections_per_minute=2)
    slots = []
    for number in range(100):
        slot = table.open("192.0.2.1", "imap")
        slot.authenticate(f"user{number}@example.test")
        slots.append(slot)
    stranger = table.open("192.0.2.1", "imap")
    with pytest.raises(TooManyConnections):
        table.open("192.0.2.1", "imap")
    for slot in [*slots, stranger]:
        slot.close()
    assert table.total == 0
    assert not table._per_network
    assert not table._per_user


def test_r_lim_2_per_user_and_network():
    table = table_of(connections_per_user_and_network=2)
    slots = [table.open("192.0.2.1", "imap") for _ in range(3)]
    slots[0].authenticate("alice@example.test")
    slots[1].authenticate("alice@example.test")
    with pytest.raises(TooManyConnections):
        slots[2].authenticate("alice@example.test")
    slots[2].authenticate("bob@example.test")
    elsewhere = table.open("192.0.2.9", "imap")
    elsewhere.authenticate("alice@example.test")
    slots[0].close()
    table.open("192.0.2.1", "imap").authenticate("alice@example.test")


def test_r_lim_2_new_connections_a_minute():
    clock = Clock()
    table = table_of(clock, new_connections_per_minute=6)
    for _ in range(6):
        table.open("2001:db8::1", "smtp").close()
    with pytest.raises(TooManyConnections) as refused:
        table.open("2001:db8::2", "smtp")
    assert refused.value.limit == "new_connections_per_minute"
    assert refused.value.is_temporary
    clock.advance(10)
    table.open("2001:db8::2", "smtp").close()
    with pytest.raises(TooManyConnections):
        table.open("2001:db8::2", "smtp")
    clock.advance(600)
    for _ in range(6):
        table.open("2001:db8::1", "smtp").close()


def test_exempt_networks_count_only_in_the_total():
    table = table_of(exempt_networks=("10.0.0.0/8",), smtp_connections_per_network=1, new_connections_per_minute=1)
    slots = [table.open("10.1.2.3", "smtp") for _ in range(50)]
    assert all(slot.is_exempt for slot in slots)
    for slot in slots:
        slot.authenticate("alice@example.test")
    assert table.total == 50


def test_the_memory_of_rates_is_bounded():
    table = table_of(networks_remembered=10)
    memory = table._buckets.capacity
    for number in range(100):
        table.open(f"192.0.2.{number}", "smtp").close()
    assert table._buckets.capacity == memory < 50
    assert not table._per_network


def test_new_settings_hold_for_new_connections():
    table = table_of(smtp_connections_per_network=1)
    first = table.open("192.0.2.1", "smtp")
    table.replace_settings(LimitsSettings(smtp_connections_per_network=2, exempt_networks=("192.0.2.9",)))
    table.open("192.0.2.1", "smtp")
    with pytest.raises(TooManyConnections):
        table.open("192.0.2.1", "smtp")
    assert table.open("192.0.2.9", "smtp").is_exempt
    first.close()
    table.open("192.0.2.1", "smtp")
    assert table.total == 3
