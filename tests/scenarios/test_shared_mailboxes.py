"""Mailboxes of others in a whole server: two workers, rights in the settings, a reload that takes them away."""

from __future__ import annotations

import imaplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.server import ALICE, BOB, PASSWORD, WholeServer

SUPPORT = "support@example.test"
SHARED = '"Other Users/support@example.test"'
RULES = f'[[shared]]\naccount = "{SUPPORT}"\nreaders = ["{ALICE}"]\nwriters = ["{BOB}"]\n'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WholeServer]:
    users = ("alice", "bob", "carol", "support")
    sections = {"sharing": "check_seconds = 1"}
    with WholeServer(tmp_path / "server", users=users, workers=2, extra=RULES, sections=sections) as one:
        yield one


def log_in(server: WholeServer, user: str) -> imaplib.IMAP4:
    client = imaplib.IMAP4("127.0.0.1", server.ports["imap"], timeout=20)
    client.login(user, PASSWORD)
    return client


def read(client: imaplib.IMAP4) -> bytes:
    """The first message, which makes it seen where that is allowed."""
    part = client.fetch("1", "(BODY[])")[1][0]
    assert isinstance(part, tuple)
    return part[1]


def letter(subject: str) -> bytes:
    return f"From: <someone@example.org>\r\nSubject: {subject}\r\n\r\nHello\r\n".encode()


@pytest.mark.slow
def test_readers_and_writers_of_one_mailbox_on_two_workers_and_a_right_that_goes(server: WholeServer) -> None:
    server.deliver(SUPPORT, letter("one"))
    server.deliver(ALICE, letter("own"))
    readers = [log_in(server, ALICE) for _ in range(4)]
    bob = log_in(server, BOB)
    for reader in readers:  # over both workers
        assert reader.namespace()[1][0] == b'(("" "/")) (("Other Users/" "/")) NIL'
        with pytest.raises(imaplib.IMAP4.readonly):
            reader.select(SHARED)
        reader.select(SHARED, readonly=True)
        assert b"Subject: one" in read(reader)
        assert reader.store("1", "+FLAGS", "(\\Flagged)")[0] == "NO"
        assert reader.select("INBOX")[0] == "OK"
        assert b"Subject: own" in read(reader)
        assert reader.select(SHARED, readonly=True)[0] == "OK"
        reader.send(b"i IDLE\r\n")
        assert reader.readline().startswith(b"+")
    assert bob.select(SHARED) == ("OK", [b"1"])
    assert bob.fetch("1", "(FLAGS)")[1] == [b"1 (FLAGS (\\Recent))"]
    bob.store("1", "+FLAGS", "(\\Flagged)")
    for reader in readers:
        assert b"\\Flagged" in reader.readline()
    server.deliver(SUPPORT, letter("two"))
    for reader in readers:
        assert reader.readline() == b"* 2 EXISTS\r\n"
        assert reader.readline().endswith(b" RECENT\r\n")
    bob.noop()
    # Durable, with the source gone: in the other account, and back.
    assert bob.copy("1:2", "INBOX")[0] == "OK"
    bob.store("1:2", "+FLAGS", "(\\Deleted)")
    bob.expunge()
    server.kill()
    server.start()
    assert sorted(b"Subject: one" in message for message in server.messages("bob")) == [False, True]
    assert server.messages("support") == []
    assert log_in(server, "carol").namespace()[1][0] == b'(("" "/")) NIL NIL'
    bob = log_in(server, BOB)
    bob.select("INBOX")
    assert bob.uid("MOVE", "1:*", SHARED)[0] == "OK"
    assert len(server.messages("support")) == 2
    idle = log_in(server, ALICE)
    assert idle.select(SHARED, readonly=True) == ("OK", [b"2"])
    idle.send(b"i IDLE\r\n")
    assert idle.readline().startswith(b"+")
    assert bob.select(SHARED)[0] == "OK"
    server.write_config(extra=RULES.replace(ALICE, "carol@example.test").replace(BOB, "carol@example.test"))
    server.reload()
    assert idle.readline() == b"* BYE The selected mailbox is there no more\r\n"
    assert idle.readline() == b""
    gone = log_in(server, ALICE)
    assert gone.select(SHARED)[0] == "NO"
    assert gone.select("INBOX")[0] == "OK"
    assert log_in(server, "carol").select(SHARED) == ("OK", [b"2"])
