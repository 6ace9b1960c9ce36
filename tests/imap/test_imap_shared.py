"""Mailboxes of others over IMAP, where a transcript does not show it."""

from __future__ import annotations

from typing import Any

import pytest

from mailsrv.errors import Unavailable
from mailsrv.imap.command import search
from mailsrv.imap.search.page import Page
from tests.imap.server import ALICE, MESSAGES, Server
from tests.sharing.sharing_setting import SUPPORT

SHARED = '"Other Users/support@example.test"'


def make_server(shared: str) -> Server:
    server = Server()
    server.share(shared)
    return server


def test_answers_kept_for_one_account_are_not_those_of_another():
    """The first messages of two INBOXes have the same numbers."""
    server = make_server("support:read")
    server.add(MESSAGES["plain"])
    server.add(MESSAGES["umlaut"], account=SUPPORT)
    theirs = server.store.account(SUPPORT).find("INBOX")
    theirs.uid_validity = server.mailbox().uid_validity
    assert theirs.mailbox_id == server.mailbox().mailbox_id
    alice = server.connect().select()
    own = alice.ok("UID FETCH 1 (ENVELOPE)")
    alice.ok(f"SELECT {SHARED}")
    other = alice.ok("UID FETCH 1 (ENVELOPE)")
    assert b"Lunch" in own[0]
    assert b"Lunch" not in other[0]
    alice.ok("SELECT INBOX")
    assert alice.ok("UID FETCH 1 (ENVELOPE)") == own


def test_r_auth_7_while_the_directory_is_down_log_in_works_and_shared_names_are_unavailable():
    server = make_server("support:read")
    sharing = server.realm.sharing
    assert sharing is not None
    sharing.trouble = Unavailable(cause="down")
    alice = server.connect().login()
    assert alice.ok("NAMESPACE") == [b'* NAMESPACE (("" "/")) NIL NIL']
    for command in (f"SELECT {SHARED}", f"STATUS {SHARED} (MESSAGES)", 'LIST "" "Other Users/*"'):
        assert b" NO [UNAVAILABLE] " in alice.say(command), command
    assert b" NO [UNAVAILABLE] " in alice.say(f"APPEND {SHARED} {{1000}}")
    assert b" NO [NOPERM] " in alice.say('CREATE "Other Users/x"')
    assert any(b"INBOX" in line for line in alice.ok('LIST "" *'))
    alice.ok("SELECT INBOX")
    sharing.trouble = None
    sharing.next_round()
    assert b'"Other Users/"' in alice.ok("NAMESPACE")[0]
    alice.ok(f"SELECT {SHARED}")
    # What was said before holds in an outage.
    sharing.trouble = Unavailable(cause="down")
    sharing.next_round()
    server.add(MESSAGES["plain"], account=SUPPORT)
    assert alice.ok("NOOP")[0] == b"* 1 EXISTS"


def test_a_right_that_goes_during_an_append_refuses_it_and_its_message_is_discarded():
    server = make_server("support:write")
    alice = server.connect().login()
    assert alice.send(b'a1 APPEND "Other Users/support@example.test" {16}\r\n') == b"+ Ready for literal data\r\n"
    server.share_from_now("")
    said = alice.send(b"Subject: new\r\n\r\n\r\n")
    assert said == b"a1 NO [NONEXISTENT] No such mailbox\r\n"
    sharing = server.realm.sharing
    assert sharing is not None
    assert len(sharing.discarded) == 1
    assert not server.store.account(SUPPORT).find("INBOX").uids


def test_a_right_that_goes_during_a_long_fetch_ends_what_is_read():
    server = make_server("support:read")
    for _ in range(40):
        server.add(MESSAGES["plain"], account=SUPPORT)
    alice = server.connect().login()
    alice.ok(f"SELECT {SHARED}")
    server.share_from_now("")
    said = alice.say("FETCH 1:* (UID BODY.PEEK[])")
    assert b"Soup" not in said
    assert said.endswith(b"* BYE The selected mailbox is there no more\r\n")


def test_a_right_that_goes_while_a_slow_peer_reads_ends_what_is_opened():
    server = make_server("support:read")
    for _ in range(64):
        server.add(MESSAGES["plain"] + (b"x" * 78 + b"\r\n") * 700, account=SUPPORT)
    alice = server.connect().login()
    alice.ok(f"SELECT {SHARED}")
    alice.transport.deliver(b"a FETCH 1:* BODY.PEEK[]\r\n")
    alice.protocol.pauseProducing()
    said = alice.take()
    before = said.count(b"Soup")
    assert 0 < before < 64
    server.share_from_now("")
    alice.protocol.resumeProducing()
    said += alice.take()
    assert said.count(b"Soup") == before
    assert said.endswith(b"* BYE The selected mailbox is there no more\r\n")


def test_two_sessions_hear_of_each_other_in_a_shared_mailbox():
    server = make_server("support:write")
    server.add(MESSAGES["plain"], account=SUPPORT)
    one, two = server.connect().login(), server.connect().login()
    for client in (one, two):
        client.ok(f"SELECT {SHARED}")
    two.send(b"i IDLE\r\n")
    one.ok("STORE 1 +FLAGS (\\Flagged)")
    assert b"FETCH (FLAGS (\\Flagged" in two.take()
    assert server.realm.sharing is not None
    assert server.realm.sharing.asked == [ALICE]


def test_what_a_search_keeps_of_messages_is_kept_under_their_account(monkeypatch: pytest.MonkeyPatch):
    server = make_server("support:read")
    server.add(MESSAGES["parts"], account=SUPPORT)
    keys: list[object] = []

    def noted(*arguments: Any) -> Page:
        page = Page(*arguments)
        keys.append(page.key[0])
        return page

    monkeypatch.setattr(search, "Page", noted)
    alice = server.connect().login()
    alice.ok(f"EXAMINE {SHARED}")
    alice.ok("SEARCH TEXT one")
    assert keys == [str(SUPPORT)]


def test_search_and_sequence_numbers_mean_the_same_as_in_own_mailboxes():
    server = make_server("support:read")
    for name in ("plain", "umlaut", "parts"):
        server.add(MESSAGES[name], account=SUPPORT)
        server.add(MESSAGES[name])
    alice = server.connect().select()
    own = [alice.ok(command) for command in ("SEARCH TEXT one", "FETCH 2:3 (BODYSTRUCTURE)", "UID SEARCH 2:3")]
    alice.ok(f"EXAMINE {SHARED}")
    assert own == [alice.ok(command) for command in ("SEARCH TEXT one", "FETCH 2:3 (BODYSTRUCTURE)", "UID SEARCH 2:3")]
