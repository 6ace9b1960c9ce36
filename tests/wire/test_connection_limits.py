"""R-LIM-2 (at, over, recover) and R-NAT-1 for every limit on connections."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from mailsrv.wire.connection_limits import ConnectionTable, RateKind, TooManyConnections
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


KINDS = [RateKind.TRANSACTIONS, RateKind.RECIPIENTS, RateKind.WRONG_RECIPIENTS, RateKind.ERRORS]


@pytest.mark.parametrize("kind", KINDS)
def test_r_lim_2_rates_of_a_network(kind):
    clock = Clock()
    clock.advance(1000)
    table = table_of(clock, **{f"network_{kind.value}": "3 per minute"})
    slot, neighbour, stranger = (table.open(address, "smtp") for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2"))
    assert [slot.take(kind), neighbour.take(kind), slot.take(kind), slot.take(kind)] == [True, True, True, False]
    assert stranger.take(kind)
    assert all(slot.take(other) for other in KINDS if other is not kind)
    clock.advance(20)
    assert [slot.take(kind), slot.take(kind)] == [True, False]
    assert table.refusals == {f"network_{kind.value}": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_r_nat_1_a_user_is_counted_by_name_and_not_by_network(kind):
    clock = Clock()
    table = table_of(clock, **{f"network_{kind.value}": "1 per hour", f"user_{kind.value}": "2 per minute"})
    at_work, at_home, colleague = (table.open(address, "smtp") for address in ("192.0.2.1", "192.0.2.9", "192.0.2.1"))
    for slot in (at_work, at_home):
        slot.authenticate("alice@example.test")
    colleague.authenticate("bob@example.test")
    assert [at_work.take(kind), at_home.take(kind), at_work.take(kind), at_home.take(kind)] == [
        True,
        True,
        False,
        False,
    ]
    assert colleague.take(kind)
    clock.advance(30)
    assert at_home.take(kind)
    stranger = table.open("192.0.2.1", "smtp")
    assert stranger.take(kind)
    assert not stranger.take(kind)


def test_r_lim_2_log_ins_of_a_user():
    clock = Clock()
    table = table_of(clock, user_connections="2 per minute")
    for number in range(2):
        table.open(f"192.0.2.{number}", "imap").authenticate("alice@example.test")
    slot = table.open("192.0.2.9", "imap")
    with pytest.raises(TooManyConnections) as refused:
        slot.authenticate("alice@example.test")
    assert refused.value.limit == "user_connections"
    slot.authenticate("bob@example.test")
    clock.advance(30)
    table.open("192.0.2.9", "imap").authenticate("alice@example.test")


def test_no_rate_and_exempt_networks_are_never_refused():
    table = table_of(network_transactions="", exempt_networks=("10.0.0.0/8",), network_errors="1 per day")
    slot, exempt, local = (table.open(address, "smtp") for address in ("192.0.2.1", "10.0.0.1", ""))
    assert all(slot.take(RateKind.TRANSACTIONS) for _ in range(2000))
    assert all(each.take(RateKind.ERRORS) for each in (exempt, local) for _ in range(100))


def test_a_limit_is_logged_once_a_minute_for_each_client():
    clock = Clock()
    clock.advance(1000)
    table = table_of(clock, network_errors="1 per hour")
    slots = [table.open("192.0.2.1", "smtp"), table.open("192.0.2.1", "smtp"), table.open("192.0.2.2", "smtp")]
    with capturedLogs() as told:
        for slot in slots * 50:
            slot.take(RateKind.ERRORS)
        assert [(event["limit"], event["client"]) for event in told] == [
            ("network_errors", "192.0.2.1"),
            ("network_errors", "192.0.2.2"),
        ]
        clock.advance(61)
        slots[0].take(RateKind.ERRORS)
    assert len(told) == 3


def test_a_rate_that_cannot_be_read_is_refused_with_the_settings():
    with pytest.raises(ValueError, match="expected a rate"):
        LimitsSettings(network_errors="often")
