"""Change notices: within a process, and between workers over sockets (DESIGN decision 10)."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import TestCase

from mailsrv.interfaces.changes import ChangeNotice
from mailsrv.store.bus import LocalChangeBus
from mailsrv.store.worker_bus import EVERYTHING, NoticeParser, WorkerChangeBus, _SenderFactory, format_notice

notices = st.builds(ChangeNotice, st.text(max_size=30), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


def test_listeners_hear_of_their_account_until_they_end():
    bus = LocalChangeBus()
    heard: list[ChangeNotice] = []
    end = bus.listen("a@example.test", heard.append)
    notice = ChangeNotice("a@example.test", 1, 2)
    bus.publish(notice)
    bus.publish(ChangeNotice("b@example.test", 1, 2))
    end()
    end()
    bus.publish(notice)
    assert heard == [notice]


@given(st.lists(notices, max_size=5))
def test_notices_are_read_whole_and_octet_by_octet(sent: list[ChangeNotice]):
    octets = b"".join(map(format_notice, sent))
    assert NoticeParser().receive_octets(octets) == sent
    parser = NoticeParser()
    found = [notice for octet in octets for notice in parser.receive_octets(bytes([octet]))]
    assert found == sent


@given(st.binary(max_size=60))
def test_what_is_no_notice_is_refused_or_waited_for(octets: bytes):
    parser = NoticeParser()
    try:
        parser.receive_octets(octets)
    except (ValueError, UnicodeDecodeError):
        return
    assert len(parser._octets) <= len(octets)


class Peer:
    """A sender on a transport of its own."""

    def __init__(self, most_waiting: int = 4) -> None:
        self.clock = Clock()
        self.bus = WorkerChangeBus(self.clock, "/nowhere", most_waiting)
        self.bus._senders["/nowhere/x"] = None
        self.sender = _SenderFactory(self.bus, "/nowhere/x").buildProtocol(None)
        self.transport = StringTransport()
        self.sender.makeConnection(self.transport)
        self.sent()

    def sent(self) -> list[ChangeNotice]:
        self.clock.advance(0)
        octets = self.transport.value()
        self.transport.clear()
        return NoticeParser().receive_octets(octets)


def test_notices_to_a_slow_worker_coalesce():
    peer = Peer()
    peer.sender.pauseProducing()
    for mod_seq in range(10):
        peer.bus.publish(ChangeNotice("a@example.test", 1, mod_seq))
    peer.bus.publish(ChangeNotice("a@example.test", 2, 5))
    assert peer.sent() == []
    peer.sender.resumeProducing()
    assert peer.sent() == [ChangeNotice("a@example.test", 1, 9), ChangeNotice("a@example.test", 2, 5)]


def test_r_lim_2_too_many_notices_become_one():
    peer = Peer(most_waiting=4)
    peer.sender.pauseProducing()
    for number in range(4):
        peer.bus.publish(ChangeNotice("a@example.test", number, 1))
    assert len(peer.sender._dirty) == 4
    peer.bus.publish(ChangeNotice("a@example.test", 9, 1))
    peer.sender.resumeProducing()
    assert peer.sent() == [EVERYTHING]
    peer.bus.publish(ChangeNotice("a@example.test", 9, 2))
    assert peer.sent() == [ChangeNotice("a@example.test", 9, 2)]


def test_everything_is_told_to_every_listener():
    bus = WorkerChangeBus(Clock(), "/nowhere")
    heard: list[ChangeNotice] = []
    bus.listen("a", heard.append)
    bus.listen("b", heard.append)
    bus.heard(EVERYTHING)
    assert heard == [ChangeNotice("a", 0, 0), ChangeNotice("b", 0, 0)]


class WorkersTests(TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="bus-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def bus(self) -> WorkerChangeBus:
        bus = WorkerChangeBus(reactor, self.folder)
        bus.start()
        self.addCleanup(bus.stop)
        return bus

    async def until(self, condition: Any) -> None:
        for _ in range(500):
            if condition():
                return
            pause: Deferred[None] = Deferred()
            reactor.callLater(0.01, pause.callback, None)
            await pause
        pytest.fail("it did not come to pass")

    def test_workers_find_each_other_and_hear_of_changes(self):
        async def story() -> None:
            # A socket that a killed worker left behind is cleared away.
            # No process has a number beyond the greatest; that of this one is of a worker about to listen.
            left = os.path.join(self.folder, f"{1 << 30}-dead.changes")
            starting = os.path.join(self.folder, f"{os.getpid()}-starting.changes")
            for path in (left, starting):
                open(path, "w").close()
            one, other, third = self.bus(), self.bus(), self.bus()
            heard: list[ChangeNotice] = []
            other.listen("a@example.test", heard.append)
            own: list[ChangeNotice] = []
            one.listen("a@example.test", own.append)
            await self.until(lambda: one.peers == other.peers == third.peers == 2)
            notice = ChangeNotice("a@example.test", 3, 17)
            one.publish(notice)
            assert own[-1] == notice
            await self.until(lambda: notice in heard)
            await third.stop()
            await self.until(lambda: one.peers == 1)
            assert not os.path.exists(left)
            assert os.path.exists(starting)
            one.publish(ChangeNotice("a@example.test", 3, 18))
            await self.until(lambda: heard[-1].mod_seq == 18)

        return Deferred.fromCoroutine(story())
