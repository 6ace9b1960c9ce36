"""STORE .SILENT (RFC 3501 6.4.6): silence about what the client can work out, and about nothing else."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from mailsrv.interfaces.mailbox import FlagOperation
from tests.imap.server import Server


def flag(server: Server, flags: set[str]) -> None:
    server.mailbox()._store_flags([1], FlagOperation.ADD, frozenset(flags), None)


def test_a_silent_store_is_silent():
    server = Server()
    server.fill("plain*2")
    client = server.connect().select()
    assert client.ok("STORE 1:2 +FLAGS.SILENT (\\Seen)") == []
    assert client.ok("STORE 1:2 FLAGS.SILENT ()") == []
    assert client.ok("STORE 1:2 -FLAGS.SILENT (\\Seen)") == []
    assert client.ok("NOOP") == []


def test_what_another_session_changed_before_is_told():
    server = Server()
    server.fill("plain*2")
    client = server.connect().select()
    flag(server, {"\\Flagged"})
    assert client.ok("STORE 1:2 +FLAGS.SILENT (\\Seen)") == [b"* 1 FETCH (FLAGS (\\Flagged \\Seen \\Recent))"]
    assert client.ok("NOOP") == []


def test_what_another_session_changed_meanwhile_is_told():
    server = Server()
    server.fill("plain*2")
    client = server.connect().select()
    mailbox = server.mailbox()
    store = mailbox.store_flags

    def slow(*arguments):
        answer: Deferred[object] = Deferred()

        def work():
            flag(server, {"\\Flagged"})
            store(*arguments).chainDeferred(answer)

        server.clock.callLater(0, work)
        return answer

    mailbox.store_flags = slow
    assert client.ok("STORE 1:2 +FLAGS.SILENT (\\Seen)") == [b"* 1 FETCH (FLAGS (\\Flagged \\Seen \\Recent))"]


def test_others_hear_of_a_silent_store():
    server = Server()
    server.fill("plain")
    first, second = server.connect().select(), server.connect().select()
    first.ok("STORE 1 +FLAGS.SILENT (\\Seen)")
    assert second.ok("NOOP") == [b"* 1 FETCH (FLAGS (\\Seen))"]
