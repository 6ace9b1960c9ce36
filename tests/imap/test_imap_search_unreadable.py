"""SEARCH where files cannot be read: the others are searched, a warning is told, and nothing is guessed."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import fail
from twisted.logger import LogLevel, globalLogPublisher

from mailsrv.interfaces.mailbox import UnreadableMessage
from mailsrv.opened_content import LoadedContent
from tests.imap.server import Server

WARNING = b"* NO 1 message cannot be read and was not searched"


class Broken:
    """Three messages in INBOX, of which some cannot be read. ``opened``: what was asked for."""

    def __init__(self, bad: set[int], count: int = 3) -> None:
        server = Server()
        server.fill(f"plain*{count}")
        self.client = server.connect().select()
        self.mailbox = mailbox = server.mailbox()
        contents = mailbox.contents
        self.opened: list[int] = []

        def open_them(uids):
            for uid in uids:
                self.opened.append(uid)
                if uid in bad:
                    return fail(UnreadableMessage(uid, "Input/output error"))
            return contents(uids)

        mailbox.contents = open_them

    def search(self, keys: str) -> list[bytes]:
        return [line for line in self.client.say(f"SEARCH {keys}").splitlines() if line.startswith(b"* ")]


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ("TEXT soup", b"* SEARCH 1 3"),
        ("BODY soup", b"* SEARCH 1 3"),
        ("NOT BODY nowhere", b"* SEARCH 1 3"),
        ("HEADER X-None nowhere", b"* SEARCH"),
        ("NOT HEADER X-None nowhere", b"* SEARCH 1 3"),
        ("OR BODY soup BODY nowhere", b"* SEARCH 1 3"),
        ("NOT (BODY soup BODY nowhere)", b"* SEARCH 1 3"),
        ("NOT NOT BODY soup", b"* SEARCH 1 3"),
        ("RETURN (COUNT MIN MAX) TEXT soup", b'* ESEARCH (TAG "t3") MIN 1 MAX 3 COUNT 2'),
    ],
)
def test_what_cannot_be_read_matches_neither_a_key_nor_its_opposite(keys: str, found: bytes) -> None:
    assert Broken({2}).search(keys) == [WARNING, found]


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ("ALL", b"1 2 3"),
        ("UNSEEN LARGER 1 SINCE 1-Jan-2000", b"1 2 3"),
        ("NOT SENTSINCE 1-Jan-2100", b"1 2 3"),
        ("SUBJECT lunch", None),
        ("OR ALL BODY nowhere", b"1 2 3"),
        ("NOT (UID 1 BODY nowhere)", b"1 2 3"),
        ("OR BODY nowhere NOT (UID 1 BODY nowhere)", b"1 2 3"),
        ("NOT (BODY soup (OR UID 1 BODY nowhere) (OR UID 3 SUBJECT lunch) NOT 2)", None),
        ("NOT 2 BODY soup", b"1 3"),
    ],
)
def test_what_needs_no_content_and_what_is_certain_without_it_is_not_affected(keys: str, found: bytes | None) -> None:
    said = Broken({2}).search(keys)
    assert len(said) == 1
    assert said[0].startswith(b"* SEARCH")
    assert found is None or said == [b"* SEARCH " + found]


def test_none_is_asked_for_twice() -> None:
    broken = Broken({2})
    broken.search("OR BODY nothing BODY nowhere")
    assert broken.opened.count(2) == 1
    assert broken.search("BODY nowhere") == [WARNING, b"* SEARCH"]


def test_where_nothing_can_be_read_the_search_has_failed() -> None:
    broken = Broken({1, 2, 3})
    assert b" NO [UNAVAILABLE] Temporary failure" in broken.client.say("SEARCH BODY soup")
    assert broken.search("OR 3 BODY soup") == [b"* NO 2 messages cannot be read and were not searched", b"* SEARCH 3"]


def test_a_disk_that_cannot_be_read_is_not_asked_for_every_message() -> None:
    broken = Broken(set(range(3, 201)), 200)
    assert b" NO [UNAVAILABLE] Temporary failure" in broken.client.say("SEARCH BODY soup")
    assert len(broken.opened) < 60


def test_a_read_that_fails_after_the_file_was_opened_is_one_message_that_cannot_be_read() -> None:
    server = Server()
    server.fill("plain*3")
    client = server.connect().select()
    mailbox = server.mailbox()
    contents = mailbox.contents

    class Failing(LoadedContent):
        def __init__(self, octets):
            super().__init__(octets)
            self.octets = None

        def read(self, offset, count):
            return fail(OSError(5, "Input/output error"))

    def open_them(uids):
        return contents(uids).addCallback(
            lambda found: [Failing(b"x") if uid == 2 else each for uid, each in zip(uids, found, strict=True)]
        )

    mailbox.contents = open_them
    events: list[Any] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    try:
        said = client.say("SEARCH TEXT soup").splitlines()
    finally:
        globalLogPublisher.removeObserver(observer)
    assert said[:2] == [WARNING, b"* SEARCH 1 3"]
    [told] = [event for event in events if event["log_level"] is LogLevel.error]
    assert (told["uid"], told["name"], told["account"]) == (2, "INBOX", "alice@example.test")
    assert "Input/output error" in told["cause"]


def test_what_nobody_could_look_into_is_known_by_what_the_index_has() -> None:
    broken = Broken({2})
    summaries = broken.mailbox.summaries

    def of_those_looked_into(uids, *, with_structure=True):
        return summaries([uid for uid in uids if uid != 2] if with_structure else uids, with_structure=with_structure)

    broken.mailbox.summaries = of_those_looked_into
    assert broken.search("LARGER 1") == [b"* SEARCH 1 2 3"]
    assert broken.search("SENTSINCE 1-Jan-2000") == [WARNING, b"* SEARCH 1 3"]
    assert broken.search("NOT SENTSINCE 1-Jan-2000") == [WARNING, b"* SEARCH"]
    assert broken.search("UNSEEN SINCE 1-Jan-2000") == [b"* SEARCH 1 2 3"]
