"""A message whose file cannot be read, in a real mailbox: what is said to the client, and what to the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.server import BOB, WholeServer

pytestmark = pytest.mark.slow


def letter(subject: str) -> bytes:
    return f"From: <a@example.test>\r\nTo: <{BOB}>\r\nSubject: {subject}\r\nX-Own: {subject}\r\n\r\nsoup\r\n".encode()


def make_unreadable(path: Path) -> None:
    """Even for root: a link to itself (ELOOP)."""
    path.unlink()
    path.symlink_to(path.name)


def test_a_search_goes_over_the_others_and_the_log_names_the_one(make_server) -> None:
    server: WholeServer = make_server()
    server.start()
    for number in range(1, 4):
        server.deliver(BOB, letter(f"number {number}"))
    with server.imap(BOB) as client:
        client.select("INBOX")
        assert client.search(None, "BODY", "soup") == ("OK", [b"1 2 3"])
        files = [path for path in server.mail_folder.rglob("[nc]*/*") if path.is_file()]
        [bad] = [path for path in files if b"number 2" in path.read_bytes()]
        make_unreadable(bad)
        assert client.search(None, "OR", "BODY", "soup", "HEADER", "X-Own", "number") == ("OK", [b"1 3"])
        assert client.untagged_responses["NO"] == [b"1 message cannot be read and was not searched"]
        told = server.events_with("cannot be read")
        assert [(event["uid"], event["account"]) for event in told] == [(2, BOB)]
        assert told[0]["mailbox"] is not None
        assert str(bad) in told[0]["error"]
        assert "Too many levels" in told[0]["error"]
        for keys in (
            ["SUBJECT", "number"],
            ["UNSEEN"],
            ["LARGER", "5"],
            ["SINCE", "1-Jan-2000"],
            ["SENTBEFORE", "1-Jan-2000"],
        ):
            assert client.search(None, *keys)[0] == "OK"
            assert "NO" not in client.untagged_responses
        assert client.search(None, "SUBJECT", "number") == ("OK", [b"1 2 3"])
        assert len(server.events_with("cannot be read")) == 1
    server.stop()
    server.check_log()
