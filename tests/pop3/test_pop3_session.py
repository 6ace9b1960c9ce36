"""The engine by values: any input in any pieces, the beginning of messages, marks."""

from array import array

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.account import InvalidCredentials
from mailsrv.interfaces.mailbox import Uid
from mailsrv.pop3.events import (
    ENDED,
    NEED_DATA,
    PAUSED,
    SEND,
    TLS_REQUESTED,
    LoginRequested,
    MessageRequested,
    UpdateRequested,
)
from mailsrv.pop3.maildrop import Maildrop
from mailsrv.pop3.session import Pop3Session
from mailsrv.pop3.settings import Pop3Settings
from mailsrv.pop3.top import TopReader
from mailsrv.status import NOT_AUTHORISED

MESSAGE = b"Subject: x\r\n\r\n.\r\n.. two\r\nlast"


def make_session(**settings):
    session = Pop3Session(
        Pop3Settings(**settings), hostname="h", is_encrypted=False, may_start_tls=True, may_log_in_plainly=True
    )
    session.octets_to_send()
    return session


def drop(messages=2):
    return Maildrop(7, array("I", range(1, messages + 1)), array("Q", [len(MESSAGE)] * messages))


def logged_in(messages=2, **settings):
    session = make_session(**settings)
    session.receive_octets(b"USER a\r\nPASS b\r\n")
    assert session.next_event() == LoginRequested("a", "b")
    session.login_succeeded(drop(messages))
    assert session.next_event() is NEED_DATA
    session.octets_to_send()
    return session


def drive(session, octets, sizes=None):
    """Feed octets in pieces and answer every event; everything the session says."""
    said = b""
    position = 0
    sizes = iter(sizes or [])
    while True:
        event = session.next_event()
        said += session.octets_to_send()
        match event:
            case LoginRequested(authcid="a"):
                session.login_succeeded(drop())
            case LoginRequested():
                session.refuse(InvalidCredentials())
            case MessageRequested():
                session.send_message(MESSAGE)
            case UpdateRequested():
                session.update_done()
            case _ if event is TLS_REQUESTED:
                assert session.tls_started() is False
            case _ if event is ENDED:
                return said
            case _ if event is NEED_DATA:
                if position >= len(octets):
                    return said
                size = next(sizes, len(octets))
                session.receive_octets(octets[position : position + size])
                position += size
            case _:
                assert event is SEND


COMMANDS = st.sampled_from(
    [
        b"USER a",
        b"PASS b",
        b"USER x",
        b"CAPA",
        b"AUTH PLAIN",
        b"AGEAYg==",
        b"*",
        b"STAT",
        b"LIST",
        b"LIST 1",
        b"UIDL",
        b"RETR 1",
        b"TOP 2 1",
        b"DELE 1",
        b"RSET",
        b"NOOP",
        b"\x00",
        b"x" * 3000,
        b"\xff",
        b"",
    ]
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.lists(COMMANDS, max_size=25), st.lists(st.integers(1, 9), max_size=40))
def test_commands_in_any_pieces_give_the_same_answers(commands, sizes):
    octets = b"".join(command + b"\r\n" for command in commands) + b"QUIT\r\n"
    whole = drive(make_session(error_limit=100), octets)
    assert drive(make_session(error_limit=100), octets, sizes) == whole
    assert drive(make_session(error_limit=100), octets, [1] * len(octets)) == whole
    assert whole.replace(b"\r\n", b"").count(b"\r") == whole.replace(b"\r\n", b"").count(b"\n") == 0


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_no_octets_whatever_raise(octets):
    drive(make_session(), octets)
    drive(logged_in(), octets)


def test_replies_to_pipelined_commands_are_sent_together():
    session = logged_in()
    session.receive_octets(b"NOOP\r\nSTAT\r\nLIST\r\nDELE 1\r\n")
    assert session.next_event() is NEED_DATA
    assert session.octets_to_send().count(b"+OK") == 4


def test_nothing_is_read_past_a_command_whose_answer_is_owed():
    session = logged_in()
    session.receive_octets(b"RETR 1\r\nNOOP\r\n")
    assert isinstance(session.next_event(), MessageRequested)
    assert session.next_event() is PAUSED
    assert session.octets_to_send() == b""
    session.refuse(Unavailable())
    assert session.next_event() is NEED_DATA
    assert session.octets_to_send() == (b"-ERR [SYS/TEMP] Temporary failure, try again later\r\n+OK Nothing done\r\n")


def test_a_long_listing_comes_in_slices_and_holds_back_what_follows():
    session = logged_in(messages=20_000, write_octets=4096)
    session.receive_octets(b"UIDL\r\nNOOP\r\n")
    said, pieces = b"", 0
    while (event := session.next_event()) is SEND:
        piece = session.octets_to_send()
        assert len(piece) < 40_000
        said += piece
        pieces += 1
    assert event is NEED_DATA
    said += session.octets_to_send()
    assert pieces > 5
    assert said.endswith(b"20000 7.20000\r\n.\r\n+OK Nothing done\r\n")


def test_r_stop_1_a_stop_waits_for_the_message_under_way():
    session = logged_in()
    session.receive_octets(b"RETR 1\r\nNOOP\r\n")
    session.next_event()
    session.begin_message(len(MESSAGE))
    session.stop("Bye")
    assert session.next_event() is PAUSED
    session.send_part(MESSAGE)
    session.end_message()
    assert session.next_event() is ENDED
    assert session.octets_to_send().endswith(b"last\r\n.\r\n-ERR [SYS/TEMP] Bye\r\n")


def test_permanent_refusals_say_so():
    session = logged_in()
    session.receive_octets(b"DELE 1\r\nQUIT\r\n")
    event = session.next_event()
    assert event == UpdateRequested([Uid(1)])
    session.refuse(MailError(NOT_AUTHORISED, "No\r\nway"))
    assert session.next_event() is ENDED
    assert session.octets_to_send().endswith(b"-ERR [SYS/PERM] No??way\r\n")


def test_passwords_are_in_no_repr():
    session = make_session()
    session.receive_octets(b"USER a\r\nPASS hush\r\n")
    assert "hush" not in repr(session.next_event())


def test_answers_that_nobody_asked_for_are_mistakes_of_the_shell():
    session = logged_in()
    for wrong in (session.update_done, session.end_message, session.tls_started):
        with pytest.raises(RuntimeError):
            wrong()
    with pytest.raises(RuntimeError):
        session.refuse(Unavailable())
    with pytest.raises(RuntimeError):
        session.begin_message(3)


def test_r_lim_2_a_line_of_just_the_limit_is_taken_and_one_more_is_not():
    session = make_session(command_line_octets=100)
    session.receive_octets(b"USER " + b"x" * 93 + b"\r\n")
    assert session.next_event() is NEED_DATA
    assert session.octets_to_send().startswith(b"+OK")
    session.receive_octets(b"USER " + b"x" * 94 + b"\r\nNOOP\r\n")
    assert session.next_event() is NEED_DATA
    assert session.octets_to_send() == b"-ERR Line too long\r\n-ERR Log in first\r\n"


@given(
    st.sampled_from([MESSAGE, b"\r\nno header\r\nx\r\n", b"a: b\r\n", b"", b"a: b\r\n\r\n1\r\n2\r\n3\r\n"]), st.data()
)
def test_top_is_the_same_in_any_pieces(message, data):
    lines = data.draw(st.integers(0, 4))
    header, separator, body = (b"\r\n" + message).partition(b"\r\n\r\n")
    expected = (header + separator)[2:] + b"".join(body.splitlines(keepends=True)[:lines])
    reader = TopReader(lines)
    found, rest = b"", message
    while rest and not reader.is_finished:
        size = data.draw(st.integers(1, len(rest)))
        found += reader.feed(rest[:size])
        rest = rest[size:]
    assert found == expected


def test_marks_and_sizes():
    maildrop = drop(3)
    maildrop.mark_deleted(2)
    assert not maildrop.holds(2)
    assert (maildrop.messages_left, maildrop.octets_left) == (2, 2 * len(MESSAGE))
    assert list(maildrop.numbers()) == [1, 3]
    assert maildrop.deleted_uids() == [2]
    maildrop.unmark_all()
    assert maildrop.octets_left == 3 * len(MESSAGE)
    assert [maildrop.holds(number) for number in (-1, 0, 1, 3, 4)] == [False, False, True, True, False]
    with pytest.raises(ValueError, match="size"):
        Maildrop(1, array("I", [1]), array("Q"))
