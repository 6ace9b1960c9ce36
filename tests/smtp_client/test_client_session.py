"""The client engine, value by value and octet by octet."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.smtp.client.events import (
    Authenticated,
    AuthenticationRefused,
    ContentWanted,
    Phase,
    Problem,
    Ready,
    SessionEnded,
    Stage,
    TlsAgreed,
    TlsRefused,
    TransactionEnded,
)
from mailsrv.smtp.client.session import SmtpClientSession
from tests.smtp_client.client_harness import events, hear, make_session, message, said


def ended(found: list) -> Any:
    (event,) = (one for one in found if isinstance(one, TransactionEnded))
    return event.outcomes


def problem(found: list) -> Problem | None:
    (event,) = (one for one in found if isinstance(one, SessionEnded))
    return event.problem


def test_the_greeting_is_awaited_and_ehlo_follows():
    session = make_session()
    assert session.phase is Phase.GREETING
    assert said(session) == []
    assert hear(session, "220-hop.example", "220 ready") == []
    assert said(session) == ["EHLO mail.example.test"]
    (ready,) = hear(session, "250-hop.example", "250-size 1000", "250-AUTH=LOGIN", "250-AUTH PLAIN", "250 8BITMIME")
    assert isinstance(ready, Ready)
    assert ready.capabilities.size_limit == 1000
    assert ready.capabilities.mechanisms == {"LOGIN", "PLAIN"}
    assert session.is_idle


def test_helo_where_ehlo_is_unknown():
    session = make_session()
    hear(session, "220 old")
    assert hear(session, "502 what") == []
    assert said(session) == ["EHLO mail.example.test", "HELO mail.example.test"]
    (ready,) = hear(session, "250 fine")
    assert not ready.capabilities.is_extended
    session.begin(message())
    assert said(session) == ["MAIL FROM:<ann@example.test>"]


def test_lhlo_has_no_older_form():
    session = make_session(is_lmtp=True)
    hear(session, "220 lmtp")
    assert said(session) == ["LHLO mail.example.test"]
    assert problem(hear(session, "500 what")) is Problem.REFUSED


def test_without_pipelining_one_command_waits_for_the_other():
    session = make_session("SIZE")
    session.begin(message("bob", "eve"), b"text\r\n")
    assert said(session) == ["MAIL FROM:<ann@example.test> SIZE=10"]
    hear(session, "250 ok")
    assert said(session) == ["RCPT TO:<bob@example.net>"]
    hear(session, "250 ok")
    assert said(session) == ["RCPT TO:<eve@example.net>"]
    hear(session, "550 5.1.1 no")
    assert said(session) == ["DATA"]
    assert session.phase.value == "data start"
    hear(session, "354 go")
    assert said(session) == ["text", "."]
    assert session.phase.value == "data end"
    bob, eve = ended(hear(session, "250 taken"))
    assert bob.is_taken
    assert (eve.stage, eve.is_taken) == (Stage.RCPT, False)
    assert session.is_idle


def test_with_pipelining_the_envelope_goes_in_one_piece():
    session = make_session("PIPELINING")
    session.begin(message("bob"))
    assert said(session) == ["MAIL FROM:<ann@example.test>", "RCPT TO:<bob@example.net>", "DATA"]
    (wanted,) = hear(session, "250 ok", "250 ok", "354 go")
    assert isinstance(wanted, ContentWanted)
    session.write_content(b".a\r", is_last=False)
    session.write_content(b"\n.", is_last=True)
    assert session.octets_to_send() == b"..a\r\n..\r\n.\r\n"
    assert ended(hear(session, "250 taken"))[0].is_taken


def test_rfc_2920_354_without_a_recipient_gets_an_empty_message():
    session = make_session("PIPELINING")
    session.begin(message("bob"), b"secret\r\n")
    said(session)
    assert hear(session, "250 ok", "550 no", "354 go") == []
    assert said(session) == ["."]
    (outcome,) = ended(hear(session, "554 no recipients"))
    assert (outcome.stage, outcome.reply.code) == (Stage.RCPT, 550)
    session.begin(message("eve"))
    assert said(session)[:2] == ["RSET", "MAIL FROM:<ann@example.test>"]


def test_354_after_a_refused_mail_ends_the_session_for_an_end_might_be_that_of_an_older_message():
    session = make_session("PIPELINING")
    session.begin(message("bob"), b"secret\r\n")
    said(session)
    events = hear(session, "503 nested", "250 ok", "354 go")
    assert said(session) == []
    assert session.is_closed
    (outcome,) = ended(events)
    assert not outcome.is_taken
    assert not outcome.is_uncertain


def test_rset_goes_before_the_next_where_the_last_was_refused_at_its_end():
    session = make_session("PIPELINING")
    session.begin(message("bob"), b"text\r\n")
    hear(session, "250 ok", "250 ok", "354 go", "554 no")
    said(session)
    session.begin(message("eve"))
    assert said(session)[:2] == ["RSET", "MAIL FROM:<ann@example.test>"]


def test_rset_goes_before_the_next_where_one_was_left_in_the_midst():
    session = make_session("PIPELINING")
    session.begin(message("bob"))
    hear(session, "250 ok", "550 no", "503 no recipients")
    said(session)
    session.begin(message("eve"))
    assert said(session)[:2] == ["RSET", "MAIL FROM:<ann@example.test>"]


def test_a_small_message_goes_with_its_envelope_in_a_chunk():
    session = make_session("PIPELINING,CHUNKING")
    session.begin(message("bob"), b".one\nline")
    assert session.octets_to_send() == (
        b"MAIL FROM:<ann@example.test>\r\nRCPT TO:<bob@example.net>\r\nBDAT 12 LAST\r\n.one\r\nline\r\n"
    )
    assert ended(hear(session, "250 ok", "250 ok", "250 taken"))[0].is_taken


def test_chunks_are_sent_while_replies_are_owed_but_not_without_end():
    session = make_session("PIPELINING,CHUNKING")
    session.begin(message("bob"))
    hear(session, "250 ok", "250 ok")
    said(session)
    count = 0
    while session.wants_content():
        session.write_content(b"x\r\n", is_last=False)
        count += 1
    assert count == 4
    hear(session, "250 more")
    assert session.wants_content()
    hear(session, "552 5.3.4 enough")
    assert not session.wants_content()
    (outcome,) = ended(hear(session, "503 no", "503 no"))
    assert outcome.reply.code == 552
    assert session.is_idle


def test_lmtp_answers_come_for_each_accepted_recipient():
    session = make_session("PIPELINING,CHUNKING", is_lmtp=True)
    session.begin(message("a", "b", "c"), b"x\r\n")
    found = hear(session, "250 ok", "250 ok", "550 no", "250 ok", "250 a taken")
    assert found == []
    a, b, c = ended(hear(session, "452 4.2.2 c full"))
    assert (a.is_taken, b.reply.code, c.reply.code) == (True, 550, 452)


def test_421_ends_everything_anywhere():
    session = make_session("PIPELINING")
    session.begin(message("bob", "eve"))
    found = hear(session, "250 ok", "250 ok", "421 4.3.2 closing")
    assert [outcome.reply.code for outcome in ended(found)] == [421, 421]
    assert not any(outcome.is_uncertain for outcome in ended(found))
    assert problem(found) is Problem.CLOSED_BY_SERVER


@pytest.mark.parametrize(
    "lines", [["250 ok"], ["354 go"], ["250 ok", "250 ok", "250 ok"], ["250 ok", "220 x"], ["junk"], ["250-a", "251 b"]]
)
def test_answers_nobody_asked_for_close_the_connection(lines):
    session = make_session("PIPELINING")
    found = hear(session, *lines)
    assert problem(found) is Problem.CONFUSED
    assert session.is_closed
    assert hear(session, "250 ok") == []


def test_an_answer_too_many_after_the_end_does_not_take_the_message_back():
    session = make_session("PIPELINING,CHUNKING")
    session.begin(message("bob"), b"x\r\n")
    found = hear(session, "250 ok", "250 ok", "250 taken", "250 taken again")
    assert ended(found)[0].is_taken
    assert problem(found) is Problem.CONFUSED


def test_what_was_sent_whole_and_not_answered_is_uncertain():
    session = make_session("PIPELINING,CHUNKING")
    session.begin(message("bob", "eve"), b"x\r\n")
    hear(session, "250 ok", "250 ok", "550 no")
    session.receive_eof()
    bob, eve = ended(events(session))
    assert bob.is_uncertain
    assert not eve.is_uncertain


@pytest.mark.parametrize("cut", [b"2", b"250", b"250 ok", b"250 ok\r", b"250-ok\r\n", b"250-ok\r\n250 ok", b"550 no"])
def test_an_answer_that_is_cut_off_is_none(cut):
    session = make_session("PIPELINING,CHUNKING")
    session.begin(message("bob"), b"x\r\n")
    hear(session, "250 ok", "250 ok")
    session.receive_octets(cut)
    session.receive_eof()
    (bob,) = ended(events(session))
    assert bob.is_uncertain
    assert not bob.is_taken


def test_what_was_not_begun_is_untouched():
    session = make_session("PIPELINING")
    session.begin(message("bob"))
    session.receive_eof()
    (outcome,) = ended(events(session))
    assert outcome.is_untouched
    assert not outcome.is_uncertain


def test_a_refusal_in_the_midst_of_the_text_is_final_and_closes():
    session = make_session("PIPELINING")
    session.begin(message("bob"))
    hear(session, "250 ok", "250 ok", "354 go")
    session.write_content(b"x\r\n", is_last=False)
    found = hear(session, "552 5.3.4 too much")
    assert ended(found)[0].reply.code == 552
    assert not ended(found)[0].is_uncertain
    assert session.is_closed


def test_r_tls_2_starttls():
    session = make_session("STARTTLS,PIPELINING")
    session.request_tls()
    assert said(session) == ["STARTTLS"]
    (agreed,) = hear(session, "220 go")
    assert isinstance(agreed, TlsAgreed)
    assert session.phase is Phase.TLS
    session.tls_established()
    assert said(session) == ["EHLO mail.example.test"]
    assert not session.capabilities.offers("PIPELINING")


@pytest.mark.parametrize("cut", range(1, 30))
def test_r_tls_2_octets_behind_the_220_abort(cut):
    session = make_session("STARTTLS")
    session.request_tls()
    octets = b"220 go\r\n250 injected\r\n"
    session.receive_octets(octets[:cut])
    session.receive_octets(octets[cut:])
    assert problem(events(session)) is Problem.CONFUSED


def test_starttls_refused_leaves_the_connection_as_it_was():
    session = make_session("STARTTLS,PIPELINING")
    session.request_tls()
    (refused,) = hear(session, "454 4.7.0 later")
    assert isinstance(refused, TlsRefused)
    assert session.is_idle
    assert session.capabilities.can_pipeline


def test_no_password_goes_out_in_the_clear():
    session = make_session("AUTH PLAIN LOGIN")
    assert not session.authenticate("ann", "secret")
    assert said(session) == []


@pytest.mark.parametrize(("reply", "kind"), [("235 fine", Authenticated), ("535 no", AuthenticationRefused)])
def test_auth_plain(reply, kind):
    session = make_session("AUTH PLAIN LOGIN")
    session.is_tls = True
    assert session.authenticate("ann", "secret")
    assert said(session) == ["AUTH PLAIN AGFubgBzZWNyZXQ="]
    (event,) = hear(session, reply)
    assert isinstance(event, kind)


def test_a_server_that_asks_for_ever_is_cancelled():
    session = make_session("AUTH LOGIN")
    session.is_tls = True
    session.authenticate("ann", "secret")
    hear(session, "334 a", "334 b", "334 c")
    assert said(session)[-1] == "*"


@pytest.mark.parametrize("name", ["", "a b", "a\r\nMAIL", "ü"])
def test_the_name_for_ehlo_is_one(name):
    with pytest.raises(ValueError, match="host name"):
        SmtpClientSession(make_session()._settings, hostname=name)


REPLIES = st.sampled_from(
    ["220 x", "250 ok", "250-a", "354 go", "421 bye", "450 later", "550 no", "503 what", "334 ", "junk", "", "221 bye"]
)


@given(
    st.lists(REPLIES, max_size=14),
    st.sampled_from(["", "PIPELINING", "CHUNKING", "PIPELINING,CHUNKING"]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 3),
)
def test_whatever_the_server_says_there_is_one_outcome_for_each(lines, keywords, is_lmtp, is_eager, count):
    octets = "".join(line + "\r\n" for line in lines).encode()
    seen = []
    for size in (len(octets) or 1, 1, 7):
        session = make_session(keywords, is_lmtp=is_lmtp)
        session.begin(message(*"abc"[:count]), b".x\r\n" if is_eager else None)
        found = []
        for start in range(0, len(octets), size):
            session.receive_octets(octets[start : start + size])
            found += events(session)
            if session.wants_content():
                session.write_content(b"x", is_last=True)
        session.receive_eof()
        found += events(session)
        outcomes = ended(found)
        assert len(outcomes) == count
        assert sum(isinstance(event, SessionEnded) for event in found) == 1
        for outcome in outcomes:
            assert outcome.is_taken is (outcome.stage is Stage.CONTENT and outcome.reply is not None
                                        and outcome.reply.is_positive and outcome.problem is None)  # fmt: skip
            if outcome.is_taken:
                assert not outcome.is_uncertain
        seen.append(outcomes)
    if is_eager:
        assert seen[0] == seen[1] == seen[2]
