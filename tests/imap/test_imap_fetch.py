"""Rows of FETCH: what the cache may and may not change, and that work grows with what is asked."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import fail

from mailsrv.imap.fetch.row_cache import RowCache
from mailsrv.imap.numbering import Numbering
from mailsrv.imap.settings import ImapSettings
from mailsrv.interfaces.mailbox import FlagOperation, UnreadableMessage
from mailsrv.message import scan
from tests.imap.server import MESSAGES, Server

LISTING = "UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (From Subject X-Label)])"


def test_warm_rows_are_the_cold_ones():
    server = Server()
    server.fill("plain*5,umlaut*5,parts*5")
    first, second = server.connect().select(), server.connect().select()
    cold = first.ok(LISTING)
    assert [line.replace(b" \\Recent", b"").replace(b"\\Recent", b"") for line in cold] == second.ok(LISTING)


def test_warm_rows_ask_the_index_for_nothing_and_show_flags_as_they_are():
    server = Server()
    server.fill("plain*3")
    client = server.connect().select()
    client.ok(LISTING)
    mailbox = server.mailbox()
    mailbox.store_flags([2], FlagOperation.ADD, frozenset({"\\Flagged"}))
    mailbox.summaries = None
    rows = [line for line in client.ok(LISTING) if b" RFC822.SIZE" in line]
    assert [b"\\Flagged" in row for row in rows] == [False, True, False]


def test_often_asked_fields_do_not_open_the_message():
    server = Server()
    server.fill("plain*3")
    client = server.connect().select()
    server.mailbox().contents = None
    assert b"Subject: Lunch" in client.ok(LISTING)


def test_no_literal_has_nul_wherever_its_octets_come_from():
    server = Server()
    server.add(b"Subject: n\0l\r\nX-Other: n\0l\r\n\r\nn\0l\r\n")
    client = server.connect().select()
    for section in ("", "TEXT", "HEADER", "HEADER.FIELDS (Subject)", "HEADER.FIELDS (X-Other)"):
        said = b"".join(client.ok(f"FETCH 1 (BODY.PEEK[{section}])"))
        assert b"\0" not in said, section
        assert b"n\x80l" in said


def test_fields_that_are_not_in_the_index_come_from_the_message():
    server = Server()
    server.add(b"Subject: " + b"x" * 20_000 + b"\r\n\r\nbody\r\n")
    server.fill("plain")
    client = server.connect().select()
    rows = client.ok("FETCH 1:2 (UID BODY.PEEK[HEADER.FIELDS (Subject)])")
    assert b"Subject: " + b"x" * 20_000 in rows
    assert b"Subject: Lunch" in rows
    assert client.ok("FETCH 1 (BODY.PEEK[HEADER.FIELDS (Subject)])")[1] == b"Subject: " + b"x" * 20_000


def test_the_cache_keeps_to_its_budget():
    cache = RowCache(10_000)
    for mailbox in range(20):
        rows = cache.rows(("a", mailbox, 1), b"x")
        cache.add(rows, dict.fromkeys(range(10), b"y" * 100))
        assert cache.octets <= 10_000
    assert sum(len(cache.rows(("a", mailbox, 1), b"x")) for mailbox in range(20)) > 0
    big = cache.rows(("b", 1, 1), b"x")
    cache.add(big, dict.fromkeys(range(1000), b"y" * 100))
    assert len(big) == 0


def test_rows_that_were_dropped_while_somebody_answers_are_not_counted():
    cache = RowCache(5_000)
    old = cache.rows(("a", 1, 1), b"x")
    cache.add(old, dict.fromkeys(range(10), b"y" * 100))
    new = cache.rows(("a", 2, 1), b"x")
    cache.add(new, dict.fromkeys(range(15), b"y" * 100))
    assert (len(old), len(new)) == (0, 15)
    before = cache.octets
    cache.add(old, dict.fromkeys(range(3), b"y"))
    assert (len(old), cache.octets) == (0, before)


def test_neither_lists_of_items_nor_structures_pile_up():
    cache = RowCache(5_000)
    for number in range(5000):
        cache.rows(("a", 1, 1), b"%d" % number)
    assert len(cache._rows) == 4096
    structure = scan(MESSAGES["parts"])
    for uid in range(5000):
        cache.keep_structure(("a", 1, 1), uid, structure)
    assert sum(len(kept.parts) for kept in cache._structures.values()) <= 10_000
    assert cache.structure(("a", 1, 1), 4999) is structure
    assert cache.structure(("a", 1, 1), 1) is None


def test_seen_is_stored_once_a_slice_before_the_octets_go_out():
    server = Server()
    server.fill("plain*8")
    client = server.connect().select()
    mailbox = server.mailbox()
    calls = []
    store = mailbox.store_flags

    def counting(uids, *rest):
        calls.append(list(uids))
        return store(uids, *rest)

    mailbox.store_flags = counting
    said = client.say("FETCH 1:8 BODY[TEXT]")
    assert len(calls) == 1
    assert said.count(b"\\Seen") == 8
    assert client.say("FETCH 1:8 BODY[TEXT]").count(b"\\Seen") == 0


def test_a_set_with_holes_is_answered_in_as_few_steps_as_one_without():
    server = Server()
    server.fill("plain*40")
    client = server.connect().select()
    mailbox = server.mailbox()
    calls = []
    summaries = mailbox.summaries

    def counting(uids, **options):
        calls.append(list(uids))
        return summaries(uids, **options)

    mailbox.summaries = counting
    rows = client.ok("FETCH 1,3,5,7,9,11:15,21,23,25,39 (UID ENVELOPE)")
    assert [int(row.split()[1]) for row in rows] == [1, 3, 5, 7, 9, 11, 12, 13, 14, 15, 21, 23, 25, 39]
    assert len(calls) == 1


def test_header_fields_without_peek_set_seen():
    server = Server()
    server.fill("plain")
    client = server.connect().select()
    assert b"\\Seen" in client.say("FETCH 1 BODY[HEADER.FIELDS (Subject)]")


def test_a_nul_octet_never_gets_into_a_literal():
    server = Server()
    server.add(b"A: b\r\n\r\na\0b\r\n")
    client = server.connect().select()
    assert b"a\x80b" in client.say("FETCH 1 BODY.PEEK[]")
    assert b"BINARY[] ~{13}\r\nA: b\r\n\r\na\0b\r\n)" in client.say("FETCH 1 BINARY.PEEK[]")


def test_large_parts_are_found_and_sent_piece_by_piece():
    server = Server()
    big = b"x" * 76 + b"\r\n"
    octets = (
        b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nfirst\r\n--b\r\n"
        b"Content-Type: text/plain\r\n\r\n" + big * 10_000 + b"--b--\r\n"
    )
    server.add(octets)
    client = server.connect().select()
    said = client.say("FETCH 1 (BODY.PEEK[2])")
    start = said.index(b"}\r\n") + 3
    assert said[start:].startswith(big)
    assert b"BODY[2] {%d}" % (len(big) * 10_000 - 2) in said
    partial = client.say("FETCH 1 (BODY.PEEK[2]<78.78>)")
    assert partial.startswith(b"* 1 FETCH (BODY[2]<78> {78}\r\n" + big)


@given(st.sets(st.integers(1, 400), max_size=60), st.sets(st.integers(1, 400), max_size=60), st.integers(0, 5))
def test_what_is_gone_is_found(known, removed, added):
    uids = array("I", sorted(known))
    now = array("I", sorted(known - removed) + [1000 + extra for extra in range(added)])
    gone = Numbering(uids, len(uids)).expunged(now)
    assert gone == [number for number, uid in enumerate(uids, 1) if uid in removed]


def test_finding_one_among_many_takes_few_looks():
    class Counting(array):
        looks = 0

        def __getitem__(self, key):
            Counting.looks += 1
            return array.__getitem__(self, key)

    uids = Counting("I", range(1, 100_001))
    now = array("I", [uid for uid in range(1, 100_001) if uid not in (5, 70_000)])
    assert Numbering(uids, len(uids)).expunged(now) == [5, 70_000]
    assert Counting.looks < 60


def test_r_bomb_1_a_search_over_bombs_is_answered():
    server = Server()
    server.add(b"Subject: (" + b"(" * 50_000 + b"\r\n\r\nbody\r\n")
    server.add(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 3000 + b"--b--\r\n")
    server.add(MESSAGES["plain"])
    client = server.connect().select()
    assert client.ok("SEARCH TEXT soup") == [b"* SEARCH 3"]
    assert client.ok("SEARCH OR BODY soup SUBJECT nothing") == [b"* SEARCH 3"]
    assert client.ok("FETCH 2 BODY.PEEK[2999]") == [b"* 2 FETCH (BODY[2999] {1}", b"x)"]


def test_keys_are_asked_cheapest_first():
    server = Server(ImapSettings(search_slice_messages=2))
    server.fill("plain*5")
    client = server.connect().select()
    server.mailbox().store_flags([3], FlagOperation.ADD, frozenset({"\\Flagged"}))
    opened = []
    contents = server.mailbox().contents

    def counting(uids):
        opened.extend(uids)
        return contents(uids)

    server.mailbox().contents = counting
    assert client.ok("SEARCH TEXT soup SINCE 1-Jan-2000 FLAGGED")[-1] == b"* SEARCH 3"
    assert opened == [3]


def unreadable(server: Server, bad: set[int]) -> list[list[int]]:
    """These messages have files that cannot be read; what is asked for from now on."""
    mailbox = server.mailbox()
    contents = mailbox.contents
    asked: list[list[int]] = []

    def open_them(uids):
        asked.append(list(uids))
        found = [uid for uid in uids if uid in bad]
        return fail(UnreadableMessage(found[0], "Input/output error")) if found else contents(uids)

    mailbox.contents = open_them
    return asked


def test_a_message_that_cannot_be_read_keeps_nobody_from_the_others():
    server = Server()
    server.fill("plain*3")
    client = server.connect().select()
    unreadable(server, {2})
    said = client.say("FETCH 1:3 (UID BODY[TEXT])").splitlines()
    assert [line[:9] for line in said if b"FETCH (" in line] == [b"* 1 FETCH", b"* 3 FETCH"]
    assert said[-1].endswith(b"NO [UNAVAILABLE] Temporary failure, try again later")
    assert client.ok("FETCH 1:3 (FLAGS)") == [
        b"* 1 FETCH (FLAGS (\\Seen \\Recent))",
        b"* 2 FETCH (FLAGS (\\Recent))",
        b"* 3 FETCH (FLAGS (\\Seen \\Recent))",
    ]


def test_a_message_nobody_could_look_into_yet_is_unreadable_and_not_expunged():
    server = Server()
    server.fill("plain*3")
    client = server.connect().select()
    unreadable(server, {2})
    mailbox = server.mailbox()
    summaries = mailbox.summaries
    # The store leaves out what it cannot make a summary of.
    mailbox.summaries = lambda uids, **kw: summaries([uid for uid in uids if uid != 2], **kw)
    said = client.say("FETCH 1:3 (ENVELOPE)").splitlines()
    assert [line[:9] for line in said if b"FETCH (" in line] == [b"* 1 FETCH", b"* 3 FETCH"]
    assert said[-1].endswith(b"NO [UNAVAILABLE] Temporary failure, try again later")


def test_a_disk_that_cannot_be_read_is_not_asked_for_every_message():
    server = Server()
    server.fill("plain*200")
    client = server.connect().select()
    asked = unreadable(server, set(range(1, 201)))
    assert client.say("FETCH 1:200 (UID BODY.PEEK[TEXT])").endswith(b"Temporary failure, try again later\r\n")
    assert len(asked) < 40
