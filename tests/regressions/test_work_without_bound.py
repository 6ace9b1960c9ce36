"""Commands that are short to say and long to carry out: work without bound (R-LIM-2, R-IMAP-2)."""

from __future__ import annotations

from unittest.mock import patch

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.imap.session import Session
from mailsrv.imap.settings import ImapSettings
from tests.imap.server import Server


class FetchTests(SynchronousTestCase):
    def test_one_part_under_many_names_is_not_held_as_often(self) -> None:
        """Each range of BINARY, and each list of fields, is made before the first octet of the row is sent."""
        settings = ImapSettings(section_octets=20_000)
        server = Server(settings)
        server.add(b"X: y\r\n" * 500 + b"\r\n" + b"z" * 9_000)
        client = server.connect().select()
        at = " ".join(f"BINARY.PEEK[1]<{start}.9000>" for start in range(2))
        assert b"BINARY[1]<1> {8999}" in client.say(f"FETCH 1 ({at})")
        over = " ".join(f"BINARY.PEEK[1]<{start}.9000>" for start in range(150))
        assert b"NO [LIMIT]" in client.say(f"FETCH 1 ({over})")
        fields = " ".join(f"BODY.PEEK[HEADER.FIELDS.NOT (A{number})]" for number in range(150))
        assert b"NO [LIMIT]" in client.say(f"FETCH 1 ({fields})")
        assert b"OK" in client.say("NOOP")


class SearchTests(SynchronousTestCase):
    def test_r_lim_2_texts_to_search_for(self) -> None:
        server = Server(evolve(ImapSettings(), search_text_keys=3))
        server.fill("plain")
        client = server.connect().select()
        assert client.ok("SEARCH TEXT Soup BODY today TEXT Lunch") == [b"* SEARCH 1"]
        for keys in ("TEXT a BODY b TEXT c BODY d", "NOT TEXT a OR BODY b TEXT c NOT BODY d"):
            assert b"BAD [LIMIT]" in client.say(f"SEARCH {keys}")
        assert client.ok("SEARCH TEXT Soup BODY today TEXT Lunch") == [b"* SEARCH 1"]

    def test_many_keys_have_short_slices(self) -> None:
        server = Server()
        for _ in range(400):
            server.add(b"\r\nx")
        client = server.connect().select()
        few = breaths_of(client, "SEARCH UNSEEN")
        many = breaths_of(client, "SEARCH " + " ".join(["NOT KEYWORD k"] * 450))
        assert few == 0
        assert many >= 3


class ListTests(SynchronousTestCase):
    def test_many_patterns_have_short_slices(self) -> None:
        server = Server()
        client = server.connect().login()
        for number in range(60):
            client.ok(f"CREATE box{number}")
        assert breaths_of(client, 'LIST "" *') == 0
        patterns = " ".join(f"*x*{number}*q" for number in range(50))
        assert breaths_of(client, f'LIST "" ({patterns})') >= 5

    def test_lsub_looks_at_each_parent_once(self) -> None:
        server = Server()
        client = server.connect().login()
        for number in range(30):
            client.ok(f"SUBSCRIBE a/b/c/{number}")
        assert client.ok('LSUB "" a/%').count(b'* LSUB (\\Noselect) "/" "a/b"') == 1


def breaths_of(client, command: str) -> int:
    """How often others had their turn while it was carried out."""
    counted = 0
    breathe = Session.breathe

    async def counting(session: Session) -> None:
        nonlocal counted
        counted += 1
        await breathe(session)

    with patch.object(Session, "breathe", counting):
        client.ok(command)
    return counted
