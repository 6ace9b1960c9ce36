"""Draining ends when the last connection is gone, however it goes (R-STOP-1)."""

from __future__ import annotations

from mailsrv.wire.open_connections import OpenConnections


def test_r_stop_1_nothing_open_is_drained_at_once():
    connections: OpenConnections[str] = OpenConnections()
    assert not connections.is_draining
    assert connections.drain(lambda one: None).called
    assert connections.is_draining


def test_r_stop_1_fires_with_the_last_one_for_everyone_who_asked():
    connections: OpenConnections[str] = OpenConnections()
    told: list[str] = []
    connections.add("a")
    connections.add("b")
    fired: list[int] = []
    connections.drain(told.append).addCallback(lambda _: fired.append(1))
    connections.drain(told.append).addCallback(lambda _: fired.append(2))
    assert told == ["a", "b", "a", "b"]
    connections.discard("a")
    connections.discard("never seen")
    assert fired == []
    connections.discard("b")
    assert fired == [1, 2]


def test_connections_may_go_while_they_are_told():
    connections: OpenConnections[str] = OpenConnections()
    for name in "abc":
        connections.add(name)
    assert list(connections) == ["a", "b", "c"]
    assert connections.drain(connections.discard).called
    assert len(connections) == 0
