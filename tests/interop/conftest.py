"""One whole server for all programs of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.running import MailServer

USERS = ("alice", "bob", "fetch-imap", "fetch-pop3", "mutt", "imaplib", "imapclient", "poplib")


@pytest.fixture(scope="module")
def mail_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    """Log-in without TLS is refused, as in production."""
    server = MailServer(
        tmp_path_factory.mktemp("interop"),
        users=USERS,
        sections={"smtp": "greeting_delay_seconds = 0.0"},
        plaintext_networks="[]",
    )
    with server:
        yield server
    server.check_log()
