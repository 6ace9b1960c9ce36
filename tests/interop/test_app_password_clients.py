"""App passwords with real clients, over a server with two workers, while the administrator gives and takes them."""

from __future__ import annotations

import contextlib
import imaplib
import json
import poplib
import smtplib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.running import ALICE, BOB, MailServer, run
from tests.scenarios.server import DOMAIN, PASSWORD

STRICT = f"strict@{DOMAIN}"
TIMES = 6
"""Log-ins enough for both workers to have seen some."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    """Without TLS from here, and without the delay of failed log-ins."""
    server = MailServer(
        tmp_path_factory.mktemp("interop"),
        users=("alice", "bob"),
        workers=2,
        sections={
            "smtp": "greeting_delay_seconds = 0.0",
            "limits": 'exempt_networks = ["127.0.0.0/8"]',
            "sessions": "check_seconds = 1.0",
        },
    )
    with server.passwd_path.open("a") as file:
        file.write(f"{STRICT}:{{PLAIN}}{PASSWORD}::::::second_factor=yes\n")
    with server:
        yield server
    server.check_log()


def control(server: MailServer, *words: str, expect: int = 0) -> str:
    program = Path(sys.executable).with_name("mailsrvctl")
    return run(program, "--config", server.config_path, "app-password", *words, expect=expect)


def give(server: MailServer, account: str, name: str, *options: str) -> str:
    secret = json.loads(control(server, "add", account, "--name", name, "--json", *options))["secret"]
    assert isinstance(secret, str)
    return secret


def refused(error: Exception, words: str) -> bool:
    """False; the server has said so in the words for a wrong password."""
    assert words in str(error)
    return False


def by_imap(server: MailServer, user: str, password: str) -> bool:
    client = imaplib.IMAP4("127.0.0.1", server.ports["imap"], timeout=30)
    try:
        client.login(user, password)
    except imaplib.IMAP4.error as error:
        return refused(error, "AUTHENTICATIONFAILED")
    finally:
        client.shutdown()
    return True


def by_pop3(server: MailServer, user: str, password: str) -> bool:
    client = poplib.POP3("127.0.0.1", server.ports["pop3"], timeout=30)
    try:
        client.user(user)
        client.pass_(password)
        client.quit()
    except poplib.error_proto as error:
        return refused(error, "[AUTH]")
    finally:
        with contextlib.suppress(OSError):
            client.close()
    return True


def by_smtp(server: MailServer, user: str, password: str) -> bool:
    with smtplib.SMTP("127.0.0.1", server.ports["submission"], timeout=30) as client:
        client.ehlo()
        client.user, client.password = user, password
        try:
            client.auth("LOGIN", client.auth_login)
        except smtplib.SMTPAuthenticationError as error:
            return refused(error, "535")
    return True


WAYS: dict[str, Callable[[MailServer, str, str], bool]] = {"imap": by_imap, "pop3": by_pop3, "smtp": by_smtp}


def test_one_opens_every_service_in_every_worker_until_it_is_revoked(server: MailServer) -> None:
    secret = give(server, "alice", "everything")
    for way in WAYS.values():
        assert [way(server, ALICE, secret) for _ in range(TIMES)] == [True] * TIMES
        assert way(server, ALICE, PASSWORD)
        assert not way(server, BOB, secret)
    assert control(server, "revoke", "alice", "everything") == f"{ALICE}  everything  revoked\n"
    for way in WAYS.values():
        assert [way(server, ALICE, secret) for _ in range(TIMES)] == [False] * TIMES
        assert way(server, ALICE, PASSWORD)
    assert server.events_with("unknown or revoked app password")
    assert secret not in server.log_text()


@pytest.mark.parametrize("scope", WAYS)
def test_one_opens_what_it_is_for(server: MailServer, scope: str) -> None:
    secret = give(server, ALICE, f"only {scope}", "--scope", scope)
    for service, way in WAYS.items():
        assert way(server, ALICE, secret) is (service == scope)
    (row,) = (one for one in json.loads(control(server, "list", ALICE, "--json")) if one["name"] == f"only {scope}")
    assert (row["last_service"], row["last_network"]) == ("submission" if scope == "smtp" else scope, "127.0.0.1")


def test_where_a_second_factor_is_demanded_nothing_less_will_do(server: MailServer) -> None:
    secret = give(server, STRICT, "phone")
    for way in WAYS.values():
        assert not way(server, STRICT, PASSWORD)
        assert not way(server, STRICT, "wrong")
        assert way(server, STRICT, secret)
    assert server.events_with("a second factor is demanded")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_curl_reads_and_sends_with_one(server: MailServer, tmp_path: Path, mechanism: str) -> None:
    secret = give(server, STRICT, f"curl {mechanism}")
    letter = tmp_path / "letter"
    letter.write_text(f"From: {STRICT}\nTo: {BOB}\nSubject: curl with {mechanism}\n\nHello\n")
    curl = ("curl", "-sS", "--cacert", server.certificate, "--user", f"{STRICT}:{secret}")
    option = ("--login-options", f"AUTH={mechanism}")
    listed = run(*curl, *option, f"imaps://localhost:{server.ports['imaps']}/", "-X", 'LIST "" INBOX')
    assert "INBOX" in listed
    run(*curl, *option, f"pop3s://localhost:{server.ports['pop3s']}/")
    run(
        *(*curl, *option, f"smtps://localhost:{server.ports['submissions']}/"),
        *("--mail-from", STRICT, "--mail-rcpt", BOB, "--upload-file", letter),
    )
    server.wait_for_subject(BOB, f"curl with {mechanism}")
    wrong = ("curl", "-sS", "--cacert", server.certificate, "--user", f"{STRICT}:{PASSWORD}")
    run(*wrong, f"imaps://localhost:{server.ports['imaps']}/", expect=67)


def is_open(client: imaplib.IMAP4) -> bool:
    try:
        client.noop()
    except (imaplib.IMAP4.abort, OSError):
        return False
    return True


def test_an_open_session_ends_with_its_app_password(server: MailServer) -> None:
    secret, kept = give(server, ALICE, "lost phone"), give(server, ALICE, "kept")
    sessions = []
    for password in (secret, kept, PASSWORD):
        client = imaplib.IMAP4("127.0.0.1", server.ports["imap"], timeout=30)
        client.login(ALICE, password)
        sessions.append(client)
    lost, *others = sessions
    control(server, "revoke", ALICE, "lost phone")
    deadline = time.monotonic() + 20
    while is_open(lost) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_open(lost)
    assert server.events_with("revoked")
    for client in others:
        assert client.noop()[0] == "OK"
        client.logout()


def test_what_was_given_out_outlives_a_restart_of_the_server(server: MailServer) -> None:
    secret = give(server, BOB, "laptop")
    server.restart()
    assert all(way(server, BOB, secret) for way in WAYS.values())
