"""A real OpenLDAP that becomes slow while people log in and mail comes in: nobody hears a lasting refusal."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.interop.slapd import person
from tests.interop.test_ldap_directory import Site, ldap_table, log_in, make_site
from tests.scenarios.server import WholeServer

USERS = 12


class Slowly:
    """In front of a server: each answer comes ``seconds`` later."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self._target = (parts.hostname or "", parts.port or 389)
        self.seconds = 0.0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"ldap://localhost:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for ends in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while octets := source.recv(65536):
                if is_answer:
                    time.sleep(self.seconds)
                sink.sendall(octets)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    users = (person(f"u{number}", f"pw{number}") for number in range(USERS))
    made = make_site(tmp_path / "site", 2, (*users, person("alice", "sesame")))
    yield made
    for server in made.servers:
        server.kill()


@pytest.mark.parametrize("seconds", [0.05, 0.15, 4.0])
def test_r_auth_7_log_ins_and_deliveries_through_a_server_that_becomes_slow(
    site: Site, tmp_path: Path, seconds: float
) -> None:
    """A little; so that the steps of a connection together take more than ``attempt_seconds``; so that each does."""
    first = Slowly(site.servers[0].uri)
    table = ldap_table(site, *site.servers, cache_seconds=0.1).replace(site.servers[0].uri, first.uri)
    server = WholeServer(tmp_path / "mail", users=(), extra=table, sections={"auth": "cache_seconds = 0.0"})
    server.passwd_path.touch()
    answers: dict[int, str] = {}
    refused: list[int] = []

    def log_in_some(numbers: range) -> None:
        for number in numbers:
            answers[number] = log_in(server, f"u{number}", f"pw{number}")

    def deliver_some(numbers: range) -> None:
        for number in numbers:
            try:
                server.deliver(f"u{number}@example.test", b"Subject: hello\r\n\r\nhello\r\n")
            except smtplib.SMTPRecipientsRefused as error:
                refused.extend(code for code, _ in error.recipients.values())

    with server:
        assert log_in(server, "alice", "sesame") == "OK"
        first.seconds = seconds
        parts = [range(start, USERS, 3) for start in range(3)]
        threads = [
            threading.Thread(target=each, args=(part,)) for each in (log_in_some, deliver_some) for part in parts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert answers == dict.fromkeys(range(USERS), "OK")
        assert refused == []
        assert "AUTHENTICATIONFAILED" in log_in(server, "alice", "wrong")
    first.close()
    server.check_log()
