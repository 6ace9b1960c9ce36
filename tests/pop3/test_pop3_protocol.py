"""The shell: back-pressure, prefetching, what is given back at the end, limits, drain."""

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailsrv.errors import Unavailable
from mailsrv.interfaces.account import PasswordCredentials
from mailsrv.interfaces.service import IDrainable
from mailsrv.opened_content import LoadedContent
from mailsrv.pop3.settings import Pop3Settings
from mailsrv.testing.dialogue import DialogueTransport
from mailsrv.wire.settings import LimitsSettings

from .conftest import make_server

LOGIN = b"USER alice\r\nPASS alice secret\r\n"
MESSAGE = b"Subject: a\r\n\r\n" + b"x" * 70 + b"\r\n"


class FileLike(LoadedContent):
    """Content that was too large to be loaded at once."""

    opened: list = []

    def __init__(self, octets):
        super().__init__(octets)
        self.whole, self.octets = octets, None
        self.reads = []
        self.is_closed = False
        self.failure = None
        FileLike.opened.append(self)

    def read(self, offset, count):
        self.reads.append((offset, count))
        if self.failure and offset:
            return fail(self.failure)
        return succeed(self.whole[offset : offset + count])

    def close(self):
        self.is_closed = True


class Connection:
    def __init__(self, server, host="127.0.0.1"):
        self.server = server
        self.protocol = server.factory.buildProtocol(None)
        self.transport = DialogueTransport(self.protocol, peer=IPv4Address("TCP", host, 4000))
        self.protocol.makeConnection(self.transport)

    def say(self, octets):
        self.transport.deliver(octets)
        self.server.clock.advance(0)
        return self.hear()

    def hear(self):
        self.transport.pump()
        return self.transport.take()


class ShellTests(SynchronousTestCase):
    def connect(self, server, login=True):
        connection = Connection(server)
        connection.hear()
        if login:
            assert b"+OK Maildrop" in connection.say(LOGIN)
        return connection

    def large(self, server, size=300_000):
        content = b"Subject: a\r\n\r\n" + b"y" * (size - 14)
        server.add(content)
        FileLike.opened = []
        inbox = server.inbox()
        inbox.contents = lambda uids: succeed([FileLike(inbox._messages[uid].octets) for uid in uids])
        return content

    def test_a_large_message_is_read_no_faster_than_the_peer_takes_it(self):
        server = make_server()
        content = self.large(server)
        connection = self.connect(server)
        connection.protocol.pauseProducing()
        connection.say(b"RETR 1\r\n")
        assert not FileLike.opened  # a peer that takes nothing is not even served
        connection.protocol.resumeProducing()
        said = connection.hear()
        assert said == b"+OK 300000 octets\r\n" + content + b"\r\n.\r\n"
        (opened,) = FileLike.opened
        assert [count for _, count in opened.reads] == [65536] * 5
        assert opened.is_closed

    def test_a_peer_that_stops_taking_octets_stops_the_reading(self):
        server = make_server()
        content = self.large(server)
        connection = self.connect(server)
        written = StringTransport.write

        def write(data):
            written(connection.transport, data)
            connection.protocol.pauseProducing()

        connection.transport.write = write
        said = connection.say(b"RETR 1\r\nNOOP\r\n")
        (opened,) = FileLike.opened
        assert len(opened.reads) == 1
        for reads in range(2, 6):
            said += connection.hear()
            connection.protocol.resumeProducing()
            assert len(opened.reads) == reads
        for _ in range(3):
            connection.protocol.resumeProducing()
        said += connection.hear()
        assert said == b"+OK 300000 octets\r\n" + content + b"\r\n.\r\n+OK Nothing done\r\n"
        assert opened.is_closed

    def test_top_reads_only_what_it_needs(self):
        server = make_server()
        self.large(server)
        connection = self.connect(server)
        assert connection.say(b"TOP 1 0\r\n") == b"+OK Top follows\r\nSubject: a\r\n\r\n.\r\n"
        assert len(FileLike.opened[0].reads) == 1

    def test_a_connection_lost_while_sending_lets_go_of_everything(self):
        server = make_server()
        self.large(server)
        connection = self.connect(server)
        inbox = server.inbox()
        slow: Deferred = Deferred()
        contents = inbox.contents

        def slow_contents(uids):
            (content,) = self.successResultOf(contents(uids))
            content.read = lambda offset, count: slow
            return succeed([content])

        inbox.contents = slow_contents
        connection.say(b"RETR 1\r\n")
        connection.transport.abortConnection()
        connection.transport.pump()
        slow.callback(b"late")
        assert FileLike.opened[0].is_closed
        assert server.realm.logouts == 1
        assert server.factory.connection_count == 0
        self.successResultOf(server.store.account(inbox._owner.account).lock_maildrop())

    def test_a_read_error_in_the_middle_closes_and_one_at_the_start_is_told(self):
        server = make_server()
        self.large(server)
        connection = self.connect(server)
        inbox = server.inbox()
        inbox.contents = lambda uids: fail(Unavailable())
        assert connection.say(b"RETR 1\r\n").startswith(b"-ERR [SYS/TEMP]")
        broken = FileLike(b"z" * 200_000)
        broken.failure = Unavailable(cause="disk")
        inbox.contents = lambda uids: succeed([broken])
        connection.say(b"RETR 1\r\n")
        assert connection.transport.is_aborted
        assert broken.is_closed
        assert len(self.flushLoggedErrors(Unavailable)) == 1

    def test_a_bug_below_is_logged_and_answered_generally(self):
        server = make_server()
        server.add(MESSAGE)
        connection = self.connect(server)
        server.inbox().contents = lambda uids: fail(RuntimeError("/secret/path"))
        said = connection.say(b"RETR 1\r\nNOOP\r\n")
        assert said == b"-ERR [SYS/TEMP] Temporary failure, try again later\r\n+OK Nothing done\r\n"
        assert len(self.flushLoggedErrors(RuntimeError)) == 1

    def test_messages_are_opened_ahead_in_batches_for_who_goes_in_order(self):
        server = make_server(prefetch_messages=10)
        for _ in range(25):
            server.add(MESSAGE)
        connection = self.connect(server)
        inbox = server.inbox()
        asked = record_asked(inbox)
        connection.say(b"DELE 3\r\n")
        for number in [n for n in range(1, 26) if n != 3]:
            assert b"x" * 70 in connection.say(b"RETR %d\r\n" % number)
        assert [len(uids) for uids in asked] == [9, 10, 5]
        assert b"x" * 70 in connection.say(b"RETR 7\r\n")
        assert asked[-1] == [7]

    def test_a_message_that_cannot_be_opened_keeps_nobody_from_those_before_it(self):
        server = make_server(prefetch_messages=10)
        for _ in range(3):
            server.add(MESSAGE)
        connection = self.connect(server)
        inbox = server.inbox()
        contents = inbox.contents
        inbox.contents = lambda uids: fail(Unavailable()) if 2 in uids else contents(uids)
        assert b"x" * 70 in connection.say(b"RETR 1\r\n")
        assert connection.say(b"RETR 2\r\n").startswith(b"-ERR [SYS/TEMP]")
        assert b"x" * 70 in connection.say(b"RETR 3\r\n")

    def test_what_is_opened_ahead_has_a_bound_in_octets(self):
        server = make_server(prefetch_octets=3 * len(MESSAGE))
        for _ in range(10):
            server.add(MESSAGE)
        connection = self.connect(server)
        asked = record_asked(server.inbox())
        connection.say(b"RETR 1\r\n")
        assert asked == [[1, 2, 3]]

    def test_pipelined_input_has_a_bound(self):
        server = make_server(pipeline_octets=1000)
        server.add(MESSAGE)
        connection = self.connect(server)
        waiting: Deferred = Deferred()
        server.inbox().contents = lambda uids: waiting
        connection.say(b"RETR 1\r\n" + b"NOOP\r\n" * 300)
        assert connection.transport.producerState == "paused"
        connection.say(b"STAT\r\n")
        assert connection.transport.has_unread_input
        waiting.callback([LoadedContent(MESSAGE)])
        said = connection.hear()
        assert connection.transport.producerState == "producing"
        assert said.count(b"+OK") == 302

    def test_many_pipelined_retrievals_leave_in_few_writes(self):
        server = make_server()
        for _ in range(50):
            server.add(MESSAGE)
        connection = self.connect(server)
        before = connection.transport.write_calls
        said = connection.say(b"".join(b"RETR %d\r\n" % number for number in range(1, 51)))
        assert said.count(b"x" * 70) == 50
        assert connection.transport.write_calls - before <= 3

    def test_quit_waits_for_the_removal_and_a_failed_one_is_told(self):
        server = make_server()
        server.add(MESSAGE)
        connection = self.connect(server)
        waiting: Deferred = Deferred()
        server.inbox().delete_messages = lambda uids: waiting
        assert connection.say(b"DELE 1\r\nQUIT\r\n") == b"+OK Marked\r\n"
        waiting.errback(Unavailable())
        assert connection.hear().startswith(b"-ERR [SYS/TEMP]")
        assert connection.transport.disconnecting

    def test_a_removal_under_way_keeps_the_lock_although_the_peer_is_gone(self):
        server = make_server()
        server.add(MESSAGE)
        connection = self.connect(server)
        waiting: Deferred = Deferred()
        server.inbox().delete_messages = lambda uids: waiting
        connection.say(b"DELE 1\r\nQUIT\r\n")
        connection.transport.abortConnection()
        connection.transport.pump()
        assert server.realm.logouts == 0
        waiting.callback([1])
        assert server.realm.logouts == 1

    def test_a_login_that_comes_out_after_the_connection_is_lost_is_given_back(self):
        server = make_server()
        connection = self.connect(server, login=False)
        waiting: Deferred = Deferred()
        login = server.realm.login
        server.factory.portal = type("Late", (), {"login": lambda self, *args: waiting})()
        connection.say(LOGIN)
        connection.transport.abortConnection()
        connection.transport.pump()
        login(server_credentials(), None, None).addCallback(waiting.callback)
        assert server.realm.logouts == 1
        self.successResultOf(server.store.account(server.inbox()._owner.account).lock_maildrop())

    def test_what_a_failed_login_took_is_given_back(self):
        server = make_server()
        account = server.store.account(server.inbox()._owner.account)
        account.open_mailbox = lambda name: fail(Unavailable())
        connection = self.connect(server, login=False)
        assert b"-ERR [SYS/TEMP]" in connection.say(LOGIN)
        assert server.realm.logouts == 1
        self.successResultOf(account.lock_maildrop())

    def test_the_credentials_say_where_they_come_from(self):
        server = make_server()
        self.connect(server)
        (seen,) = server.realm.seen
        assert (seen.service, seen.client_address, seen.authcid) == ("pop3", "127.0.0.1", "alice")
        assert len(seen.connection_id) == 12

    def test_r_lim_2_connections_over_the_limit_are_told_and_places_come_free(self):
        server = make_server(limits=LimitsSettings(connections_total=1))
        first = self.connect(server)
        second = Connection(server)
        assert second.hear().startswith(b"-ERR [SYS/TEMP] Too many connections")
        assert second.transport.disconnecting
        first.say(b"QUIT\r\n")
        assert Connection(server).hear().startswith(b"+OK")

    def test_r_trust_1_no_login_without_tls_from_other_networks(self):
        server = make_server()
        connection = Connection(server, host="192.0.2.9")
        connection.hear()
        assert connection.say(b"USER alice\r\n") == b"-ERR Log-in needs TLS\r\n"
        assert b"SASL" not in connection.say(b"CAPA\r\n")

    def test_implicit_tls_may_log_in_from_anywhere_and_offers_no_stls(self):
        server = make_server(tls="implicit", networks="")
        connection = Connection(server, host="192.0.2.9")
        connection.hear()
        said = connection.say(b"CAPA\r\n")
        assert b"SASL PLAIN" in said
        assert b"STLS" not in said
        assert b"+OK Maildrop" in connection.say(LOGIN)

    def test_r_stop_1_drain_tells_everybody_and_fires_with_the_last(self):
        server = make_server()
        verifyObject(IDrainable, server.factory)
        first, second = self.connect(server), self.connect(server, login=False)
        drained = server.factory.drain()
        assert first.transport.take() == b"-ERR [SYS/TEMP] The server stops\r\n"
        first.transport.pump()
        self.assertNoResult(drained)
        second.transport.pump()
        self.successResultOf(drained)
        self.successResultOf(server.factory.drain())
        assert server.factory.buildProtocol(None) is None

    def test_abort_all_closes_at_once(self):
        server = make_server()
        connection = self.connect(server)
        server.factory.abort_all()
        assert connection.transport.is_aborted

    def test_a_closed_session_does_not_wait_for_ever_for_its_peer(self):
        server = make_server()
        connection = self.connect(server)
        connection.transport.pump = lambda: None
        connection.say(b"QUIT\r\n")
        connection.protocol.dataReceived(b"QUIT\r\n")
        server.clock.advance(31)
        assert connection.transport.is_aborted
        connection.protocol.connectionLost()
        assert not server.clock.getDelayedCalls()

    def test_replaced_settings_hold_for_new_sessions(self):
        server = make_server()
        server.factory.replace_settings(Pop3Settings(error_limit=1))
        connection = self.connect(server, login=False)
        connection.say(b"X\r\n")
        assert connection.transport.disconnecting


def server_credentials():
    return PasswordCredentials("alice", "alice secret", "127.0.0.1", "pop3")


def record_asked(inbox):
    """Which UIDs are asked for together."""
    asked = []
    contents = inbox.contents

    def recording(uids):
        asked.append(list(uids))
        return contents(uids)

    inbox.contents = recording
    return asked
