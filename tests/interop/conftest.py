"""All tests of this folder need real programs; one whole server for all programs of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.running import MailServer

USERS = ("alice", "bob", "fetch-imap", "fetch-pop3", "mutt", "imaplib", "imapclient", "poplib")


_FOLDER = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before ``-m`` selects."""
    for item in items:
        if item.path.parent == _FOLDER:
            item.add_marker(pytest.mark.interop)


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
