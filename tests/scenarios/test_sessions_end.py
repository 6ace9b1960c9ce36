"""Open sessions end soon after their users may no longer have them; nobody else's do."""

from __future__ import annotations

import imaplib
import poplib
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.server import ALICE, BOB, PASSWORD, WholeServer

SOON_SECONDS = 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WholeServer]:
    made = WholeServer(tmp_path / "server", workers=2, sections={"sessions": "check_seconds = 1\nend_seconds = 2"})
    with made as one:
        yield one


def rewrite(server: WholeServer, old: str, new: str) -> None:
    """Change the passwd-file as an editor does: another file takes its place."""
    text = server.passwd_path.read_text()
    assert old in text
    other = server.passwd_path.with_suffix(".new")
    other.write_text(text.replace(old, new))
    other.rename(server.passwd_path)


def imap(server: WholeServer, user: str) -> imaplib.IMAP4:
    client = imaplib.IMAP4("127.0.0.1", server.ports["imap"], timeout=SOON_SECONDS)
    client.login(user, PASSWORD)
    return client


def pop3(server: WholeServer, user: str) -> poplib.POP3:
    client = poplib.POP3("127.0.0.1", server.ports["pop3"], timeout=SOON_SECONDS)
    client.user(user)
    client.pass_(PASSWORD)
    return client


def submission(server: WholeServer, user: str) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", server.ports["submission"], local_hostname="localhost", timeout=SOON_SECONDS)
    client.login(user, PASSWORD)
    return client


def idle(client: imaplib.IMAP4) -> None:
    client.select()
    client.send(b"i IDLE\r\n")
    assert client.readline().startswith(b"+")


@pytest.mark.slow
def test_a_new_password_ends_sessions_in_the_words_of_each_protocol(server: WholeServer) -> None:
    idling = [imap(server, ALICE) for _ in range(4)]  # over both workers
    for client in idling:
        idle(client)
    bobs_imap, bobs_pop3 = imap(server, BOB), pop3(server, BOB)
    alices_smtp, alices_pop3 = submission(server, ALICE), pop3(server, ALICE)
    in_data = submission(server, ALICE)
    in_data.mail(ALICE)
    in_data.rcpt(BOB)
    in_data.putcmd("data")
    assert in_data.getreply()[0] == 354
    in_data.send(b"Subject: half\r\n\r\nnever ended\r\n")
    rewrite(server, f"{ALICE}:{{PLAIN}}{PASSWORD}", f"{ALICE}:{{PLAIN}}another")
    for client in idling:
        assert client.readline() == b"* BYE The password has changed, log in again\r\n"
        assert client.readline() == b""
    for smtp in (alices_smtp, in_data):
        code, text = smtp.getreply()
        assert (code, text) == (421, b"4.7.0 The password has changed, log in again")
    with pytest.raises(poplib.error_proto, match=r"\[AUTH\] The password has changed"):
        alices_pop3._getresp()  # type: ignore[attr-defined]
    assert bobs_imap.noop()[0] == "OK"
    assert bobs_pop3.stat() == (0, 0)
    assert server.messages("bob") == []
    assert len(server.events_with("is ended: changed")) == 7
    with imaplib.IMAP4("127.0.0.1", server.ports["imap"]) as again:
        assert again.login(ALICE, "another")[0] == "OK"


@pytest.mark.slow
def test_a_deleted_user_is_out_and_changes_that_are_no_password_hurt_nobody(server: WholeServer) -> None:
    alice, bob = imap(server, ALICE), imap(server, BOB)
    idle(alice)
    rewrite(
        server, f"{BOB}:{{PLAIN}}{PASSWORD}::::::", f"{BOB}:{{PLAIN}}{PASSWORD}::::::userdb_quota_rule=*:storage=1G"
    )
    rewrite(server, f"{ALICE}:{{PLAIN}}{PASSWORD}::::::\n", "")
    assert alice.readline() == b"* BYE The account is gone\r\n"
    assert bob.noop()[0] == "OK"


@pytest.mark.slow
def test_a_file_that_cannot_be_read_ends_nothing(server: WholeServer) -> None:
    alice = imap(server, ALICE)
    kept = server.passwd_path.with_suffix(".kept")
    server.passwd_path.rename(kept)
    # Several rounds.
    alice.socket().settimeout(4)
    with pytest.raises(TimeoutError):
        alice.readline()
    kept.rename(server.passwd_path)
