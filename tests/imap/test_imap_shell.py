"""The Twisted shell: order of replies, back-pressure, limits, draining, and what a connection leaves behind."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.imap.settings import ImapSettings
from mailsrv.interfaces.mailbox import NoSuchMailbox
from mailsrv.wire.settings import LimitsSettings
from tests.imap.server import MESSAGES, Client, Server


class OrderTests(SynchronousTestCase):
    def test_replies_keep_the_order_of_commands_while_a_login_waits(self):
        server = Server()
        client = server.connect()
        assert client.send(b"a LOGIN slow secret\r\nb NOOP\r\nc SELECT INBOX\r\n") == b""
        server.checker.waiting[0].callback("slow")
        said = client.take()
        assert said.index(b"a OK") < said.index(b"b OK")
        assert said.index(b"b OK") < said.index(b"c OK")

    def test_r_imap_1_reading_pauses_behind_a_command_that_waits(self):
        server = Server()
        client = server.connect()
        client.send(b"a LOGIN slow secret\r\n")
        for number in range(10):
            client.send(b"n%d NOOP\r\n" % number)
        assert client.transport.producerState == "paused"
        assert client.transport.has_unread_input
        server.checker.waiting[0].callback("slow")
        said = client.take()
        assert said.count(b" OK NOOP") == 10

    def test_many_pipelined_commands_share_the_reactor(self):
        server = Server()
        client = server.connect()
        client.transport.deliver(b"".join(b"n%d NOOP\r\n" % number for number in range(100)))
        first = client.transport.take()
        assert first.count(b" OK ") < 100
        assert (first + client.take()).count(b" OK ") == 100

    def test_a_client_that_goes_during_a_login_leaves_nothing(self):
        server = Server()
        client = server.connect()
        client.send(b"a LOGIN slow secret\r\n")
        client.transport.close_from_client()
        client.take()
        assert server.factory.connection_count == 1
        server.checker.waiting[0].callback("slow")
        assert server.factory.connection_count == 0
        assert server.realm.users[0].logged_out == 1


class BackPressureTests(SynchronousTestCase):
    def big(self, settings=None):
        server = Server(settings)
        server.add(MESSAGES["plain"] + b"x" * 78 + b"\r\n" + (b"y" * 78 + b"\r\n") * 20_000)
        return server, server.connect().select()

    def test_a_large_body_waits_for_a_slow_peer(self):
        _server, client = self.big()
        protocol = client.protocol
        client.transport.deliver(b"a FETCH 1 BODY.PEEK[]\r\n")
        protocol.pauseProducing()
        client.pump()
        first = len(client.transport.take())
        assert first <= 2 * ImapSettings().output_slice_octets
        client.pump()
        assert client.transport.take() == b""
        protocol.resumeProducing()
        rest = client.take()
        assert rest.endswith(b"a OK FETCH completed\r\n")
        assert first + len(rest) > 1600000

    def test_a_peer_that_takes_nothing_is_closed(self):
        server, client = self.big()
        client.transport.deliver(b"a FETCH 1 BODY.PEEK[]\r\n")
        client.protocol.pauseProducing()
        client.pump()
        for _ in range(70):
            server.clock.advance(5)
        assert client.transport.is_aborted
        client.take()
        assert server.factory.connection_count == 0

    def test_a_client_that_idled_long_has_time_to_take_news(self):
        server, client = self.big()
        client.say("IDLE")
        for _ in range(200):
            server.clock.advance(5)
        client.protocol.pauseProducing()
        server.clock.advance(5)
        assert not client.transport.is_aborted
        client.protocol.resumeProducing()
        assert b"OK IDLE terminated" in client.send(b"DONE\r\n")

    def test_a_long_listing_is_made_in_slices(self):
        server = Server(ImapSettings(output_slice_messages=10))
        server.fill("plain*60")
        client = server.connect().select()
        client.transport.deliver(b"a FETCH 1:* (FLAGS ENVELOPE)\r\n")
        first = client.transport.take()
        said = first + client.take()
        assert said.count(b" FETCH (") == 60

    def test_a_client_that_goes_in_the_middle_of_a_body_leaves_nothing(self):
        server, client = self.big()
        client.transport.deliver(b"a FETCH 1 BODY.PEEK[]\r\n")
        client.protocol.pauseProducing()
        client.transport.close_from_client()
        client.take()
        assert server.factory.connection_count == 0

    def test_append_waits_for_the_spool(self):
        server = Server()
        server.spool.is_slow = True
        client = server.connect().login()
        client.send(b"a APPEND INBOX {100000+}\r\n" + b"x" * 50_000)
        assert client.transport.producerState == "producing"
        for _ in range(10):
            client.send(b"x" * 5000)
        assert client.transport.producerState == "paused"
        client.send(b"\r\nb NOOP\r\n")
        said = b""
        while server.spool.waiting:
            server.spool.waiting.pop(0).callback(None)
            said += client.take()
        assert b"a OK [APPENDUID" in said
        assert b"b OK" in said

    def test_a_client_that_goes_during_append_leaves_nothing(self):
        server = Server()
        client = server.connect().login()
        client.send(b"a APPEND INBOX {6+}\r\nA: b\r\n {1000+}\r\nabc")
        assert server.spool.finished == 1
        client.transport.close_from_client()
        client.take()
        assert (server.spool.open, server.spool.discarded) == (0, 1)
        assert server.mailbox().count == 0


class LimitTests(SynchronousTestCase):
    def test_r_lim_2_too_many_connections_are_told_so(self):
        server = Server(limits=LimitsSettings(imap_connections_per_network=1))
        first = server.connect()
        protocol: Any = server.factory.buildProtocol(None)
        second = Client.__new__(Client)
        second.server, second.protocol = server, protocol
        from mailsrv.testing.dialogue import DialogueTransport
        from tests.imap.server import CLIENT

        second.transport = DialogueTransport(protocol, peer=CLIENT)
        protocol.makeConnection(second.transport)
        assert b"* BYE [LIMIT]" in second.transport.take()
        first.login()
        assert server.connect().ok("NOOP") == []

    def test_too_many_connections_of_a_user(self):
        server = Server(limits=LimitsSettings(connections_per_user_and_network=1))
        server.connect().login()
        assert b"t1 NO " in server.connect().say("LOGIN alice secret")
        assert server.realm.users[-1].logged_out == 1

    def test_a_rate_of_commands_is_kept_by_waiting(self):
        server = Server(ImapSettings(commands_per_minute=5))
        client = server.connect()
        said = client.send(b"".join(b"n%d NOOP\r\n" % number for number in range(8)))
        assert said.count(b" OK") == 5
        server.clock.advance(60)
        assert client.take().count(b" OK") == 3

    def test_r_imap_1_hostile_connections_hold_little(self):
        server = Server(limits=LimitsSettings(exempt_networks=("192.0.2.0/24",)))
        for _ in range(20):
            client = server.connect()
            for _ in range(100):
                client.transport.deliver(b"x" * 4096)
            session = client.protocol._session
            held = 0 if session is None else session.reader.buffered + len(session.reader._command)
            assert held <= 70000


class StopTests(SynchronousTestCase):
    def test_r_stop_1_every_session_is_told(self):
        server = Server(limits=LimitsSettings(exempt_networks=("192.0.2.0/24",)))
        fresh, idle = server.connect(), server.connect().select()
        idle.say("IDLE")
        done = server.factory.drain()
        for client in (fresh, idle):
            assert b"* BYE [UNAVAILABLE] Server shutting down" in client.take()
        self.successResultOf(done)
        assert server.factory.buildProtocol(None) is None
        self.successResultOf(server.factory.drain())

    def test_what_is_in_flight_is_finished_first(self):
        server = Server()
        client = server.connect()
        client.send(b"a LOGIN slow secret\r\n")
        done = server.factory.drain()
        client.pump()
        self.assertNoResult(done)
        server.checker.waiting[0].callback("slow")
        said = client.take()
        assert said.index(b"a OK") < said.index(b"* BYE")
        self.successResultOf(done)

    def test_abort_all(self):
        server = Server()
        client = server.connect().select()
        server.factory.abort_all()
        client.take()
        assert client.transport.is_aborted
        assert server.factory.connection_count == 0
        assert server.clock.getDelayedCalls() == []

    def test_new_settings_are_for_new_connections(self):
        server = Server()
        first = server.connect().login()
        server.factory.replace_settings(ImapSettings(append_octets=1000))
        assert b"APPENDLIMIT=52428800" in first.say("CAPABILITY")
        server2 = server.connect().login()
        assert b"APPENDLIMIT=1000" in server2.say("CAPABILITY")


class FaultTests(SynchronousTestCase):
    def test_an_unknown_error_is_answered_generally_and_logged(self):
        server = Server()
        client = server.connect().select()
        server.mailbox().expunge = lambda uids=None: 1 / 0
        assert client.say("EXPUNGE") == b"t3 NO [SERVERBUG] Internal error, it has been noted\r\n"
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1
        assert client.ok("NOOP") == []

    def test_a_message_that_cannot_be_read_to_its_end_closes_the_connection(self):
        server = Server()
        server.add(b"A: b\r\n\r\n" + b"x" * 600_000)
        client = server.connect().select()
        mailbox = server.mailbox()

        class Short:
            octets = None
            size = 600_008

            def read(self, offset, count):
                from twisted.internet.defer import succeed

                return succeed(b"x" * (count if offset < 100_000 else 1))

            def close(self):
                closed.append(1)

        closed: list[int] = []

        def contents(uids):
            from twisted.internet.defer import succeed

            return succeed([Short() for _ in uids])

        mailbox.contents = contents
        said = client.say("FETCH 1 BODY.PEEK[]")
        assert b"{600008}" in said
        assert b" OK" not in said
        assert client.transport.disconnecting
        assert closed == [1]

    def test_a_mailbox_that_goes_while_it_is_fetched(self):
        server = Server()
        server.fill("plain")
        client = server.connect().select()

        def summaries(uids, *, with_structure=True):
            from twisted.internet.defer import fail

            return fail(NoSuchMailbox())

        server.mailbox().summaries = summaries
        assert client.say("FETCH 1 ENVELOPE") == b"t3 NO [NONEXISTENT] No such mailbox\r\n"

    def test_the_poll_of_idle_finds_what_no_notice_told(self):
        server = Server()
        server.fill("plain")
        client = server.connect().select()
        refreshed = []
        mailbox = server.mailbox()

        def refresh():
            refreshed.append(1)
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done

        mailbox.refresh = refresh
        client.say("IDLE")
        refreshed.clear()
        for _ in range(13):
            server.clock.advance(5)
        assert refreshed


class MemoryTests(SynchronousTestCase):
    def test_an_idle_session_keeps_no_buffers(self):
        server = Server()
        server.fill("plain*5")
        client = server.connect().select()
        client.say(b"UID FETCH 1:* (FLAGS ENVELOPE BODY.PEEK[])")
        client.send(b"x SEARCH SUBJECT {9000+}\r\n" + b"y" * 9000 + b"\r\n")
        client.say("IDLE")
        session = client.protocol._session
        assert len(session.reader._buffer) == 0
        assert session.reader._command == b""
        assert session._out == []
        assert session.selected.numbering.uids is server.mailbox().uids
