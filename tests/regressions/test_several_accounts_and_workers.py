"""What belongs to one account is nobody else's (R-ACL-1, R-PATH-1), and is one thing in all workers."""

from __future__ import annotations

import imaplib
import poplib
from collections.abc import Iterator

import pytest

from tests.scenarios.server import ALICE, BOB, PASSWORD, WholeServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    running = WholeServer(tmp_path_factory.mktemp("s"), workers=2)
    try:
        running.start()
        yield running
        running.stop()
        running.check_log()
    finally:
        running.kill()


def test_r_acl_1_no_spelling_of_a_name_leads_to_another_account(server: WholeServer) -> None:
    with server.imap(BOB) as bob:
        bob.create("Secret")
    bobs = server.mail_folder / "example.test" / "bob"
    before = sorted(str(path) for path in bobs.rglob("*"))
    with server.imap(ALICE) as alice:
        for name in (
            "../bob",
            "../bob/.Secret",
            "../../example.test/bob/INBOX",
            "#user/bob/Secret",
            '"Other Users/bob/Secret"',
            "INBOX/../../bob",
        ):
            assert alice.select(name)[0] == "NO", name
            assert alice.delete(name)[0] == "NO", name
            assert alice.status(name, "(MESSAGES)")[0] == "NO", name
            if alice.create(name)[0] == "OK":
                assert alice.rename(name, "Mine")[0] == "OK", name
                assert alice.delete("Mine")[0] == "OK", name
    assert sorted(str(path) for path in bobs.rglob("*")) == before


def test_names_of_files_are_names_like_any_other(server: WholeServer) -> None:
    with server.imap(ALICE) as alice:
        for name in ("cur", "..", "mailsrv.index", "../bob/x"):
            assert alice.create(name)[0] == "OK", name
            assert alice.select(name)[0] == "OK", name
            alice.close()
            assert alice.delete(name)[0] == "OK", name
        assert alice.select("INBOX")[0] == "OK"


def test_one_maildrop_is_locked_in_all_workers(server: WholeServer) -> None:
    with server.pop3(BOB):
        for _ in range(6):
            other = poplib.POP3_SSL("localhost", server.ports["pop3s"], context=server.client_context(), timeout=30)
            other.user(BOB)
            with pytest.raises(poplib.error_proto, match="IN-USE"):
                other.pass_(PASSWORD)
            other.close()
    with server.pop3(BOB) as again:
        assert again.stat()[0] == 0


def test_an_expunge_reaches_idle_sessions_of_all_workers(server: WholeServer) -> None:
    server.deliver(ALICE, b"Subject: a\r\n\r\nx\r\n")
    sessions = []
    for _ in range(4):
        session = imaplib.IMAP4_SSL("localhost", server.ports["imaps"], ssl_context=server.client_context(), timeout=30)
        session.login(ALICE, PASSWORD)
        session.select()
        session.send(b"i IDLE\r\n")
        assert session.readline().startswith(b"+")
        sessions.append(session)
    with server.imap(ALICE) as other:
        other.select()
        other.store("1", "+FLAGS", "(\\Deleted)")
        other.expunge()
    for session in sessions:
        while not (line := session.readline()).startswith(b"* 1 EXPUNGE"):
            assert b"FETCH" in line
        session.send(b"DONE\r\n")
        assert session.readline().startswith(b"i OK")
        session.shutdown()
