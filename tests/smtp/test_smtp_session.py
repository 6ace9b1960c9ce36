"""The engine against a small reference model, and what it must never do (R-SMTP-1, R-SMTP-4, R-LIM-2)."""

from __future__ import annotations

import pytest
from attrs import define, evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mailsrv.smtp import replies
from mailsrv.smtp.events import (
    ClientGreeted,
    ContentReceived,
    ContentRefused,
    ContentRequested,
    MailGiven,
    MessageEnded,
    RecipientNamed,
    TransactionAborted,
    Wait,
)
from mailsrv.smtp.session import SmtpSession
from mailsrv.smtp.settings import Service, SmtpSettings
from mailsrv.wire.receive_buffer import ReceiveBuffer
from tests.linear import assert_linear, cpu_seconds

PATIENT = SmtpSettings(errors_before_drop=10**6, errors_before_tarpit=10**6, junk_commands=10**6, small_chunks=10**6)
REFUSED = replies.make_reply(550, replies.NO_VALID_RECIPIENTS.status, "no")


def make_session(service: Service = Service.MX, settings: SmtpSettings = PATIENT, **more) -> SmtpSession:
    session = SmtpSession(settings, service=service, hostname="mail.example.test", **more)
    session.reply()
    session.octets_to_send()
    return session


def drive(session: SmtpSession, octets: bytes, decide=lambda event: ()) -> tuple[list, bytes]:
    """Feed octets, answer every event as ``decide`` says; all events and all replies."""
    session.receive_octets(octets)
    events: list = []
    while True:
        event = session.next_event()
        if isinstance(event, Wait):
            return events, session.octets_to_send()
        events.append(event)
        if isinstance(event, ClientGreeted | MailGiven | RecipientNamed | ContentRequested | MessageEnded):
            session.reply(*decide(event))


class Model:
    """What a server of RFC 5321 with R-SMTP-4 is in: greeted or not; MAIL given or not; how many recipients."""

    def __init__(self) -> None:
        self.greeted = False
        self.fresh()
        self.accepted: list[tuple[int, int]] = []
        self.opened = 0

    def fresh(self) -> None:
        self.mail: int | None = None
        self.recipients = self.tried = 0
        self.chunks: int | None = None

    def ehlo(self, yes: bool) -> str:
        self.fresh()
        self.greeted = yes
        return "250" if yes else "550"

    def mail_from(self, yes: bool) -> str:
        if not self.greeted or self.mail is not None:
            return "503"
        if not yes:
            return "550"
        self.opened += 1
        self.mail = self.opened
        return "250"

    def rcpt(self, yes: bool) -> str:
        if not self.greeted or self.mail is None or self.chunks is not None:
            return "503"
        self.tried += 1
        self.recipients += yes
        return "250" if yes else "550"

    def data(self, begins: bool, accepted: bool, *, is_bare: bool, is_large: bool) -> list[str]:
        if not self.greeted:
            return ["503"]
        mail, recipients, tried, chunks = self.mail, self.recipients, self.tried, self.chunks
        self.fresh()
        if chunks is not None:
            return ["503"]
        if mail is None or not recipients:
            return ["554" if tried else "503"]
        if not begins:
            return ["550"]
        if is_bare:
            return ["354", "550"]
        if is_large:
            return ["354", "552"]
        if accepted:
            self.accepted.append((mail, recipients))
        return ["354", "250" if accepted else "550"]

    def rset(self) -> str:
        self.fresh()
        return "250"

    def bdat(self, size: int, begins: bool, accepted: bool, *, is_last: bool, is_bare: bool) -> str:
        if not self.greeted:
            return "503"
        mail, recipients, tried, chunks = self.mail, self.recipients, self.tried, self.chunks
        if mail is None or not recipients:
            self.fresh()
            return "554" if mail is not None and tried else "503"
        self.fresh()
        if chunks is None and not begins:
            return "550"
        total = (chunks or 0) + size
        if total > 100:
            return "552"
        if is_bare:
            return "550"
        if is_last:
            if accepted:
                self.accepted.append((mail, recipients))
            return "250" if accepted else "550"
        self.mail, self.recipients, self.tried, self.chunks = mail, recipients, tried, total
        return "250"


class SmtpMachine(RuleBasedStateMachine):
    """R-SMTP-4: whatever happened, the engine is where the model is, and each transaction ends exactly once."""

    def __init__(self) -> None:
        super().__init__()
        self.connect()

    def connect(self) -> None:
        self.session = make_session(settings=evolve(PATIENT, message_octets=100, messages_per_session=10**6))
        self.model = Model()
        self.opened = self.ended = 0
        self.accepted: list[tuple[int, int]] = []
        self.recipients = 0

    def send(self, octets: bytes, *, yes: bool = True, decisions: dict[type, bool] | None = None) -> list[str]:
        def decide(event: object) -> bool:
            return (decisions or {}).get(type(event), yes)

        events, out = drive(self.session, octets, lambda event: () if decide(event) else (REFUSED,))
        for event in events:
            if isinstance(event, MailGiven) and yes:
                self.opened += 1
                self.recipients = 0
            elif isinstance(event, RecipientNamed) and yes:
                self.recipients += 1
            elif isinstance(event, TransactionAborted | ContentRefused):
                self.ended += 1
            elif isinstance(event, MessageEnded):
                self.ended += 1
                if decide(event):
                    self.accepted.append((self.opened, self.recipients))
        return [line[:3].decode() for line in out.splitlines() if line[3:4] == b" "]

    @rule(yes=st.booleans())
    def ehlo(self, yes):
        assert self.send(b"EHLO client.example\r\n", yes=yes) == [self.model.ehlo(yes)]

    @rule(yes=st.booleans())
    def mail(self, yes):
        assert self.send(b"MAIL FROM:<a@client.example>\r\n", yes=yes) == [self.model.mail_from(yes)]

    @rule(yes=st.booleans())
    def rcpt(self, yes):
        assert self.send(b"RCPT TO:<b@example.test>\r\n", yes=yes) == [self.model.rcpt(yes)]

    @rule(
        begins=st.booleans(),
        accepted=st.booleans(),
        text=st.sampled_from([b"", b"x\r\n", b"..\r\n", b"RSET\r\n", b"x" * 200 + b"\r\n", b"a\nb\r\n"]),
    )
    def data(self, begins, accepted, text):
        expected = self.model.data(begins, accepted, is_bare=b"a\nb" in text, is_large=len(text) > 100)
        found = self.send(b"DATA\r\n", yes=begins)
        if found == ["354"]:
            found += self.send(text + b".\r\n", yes=accepted)
        assert found == expected
        if b"a\nb" in text and expected[0] == "354":
            assert self.session.is_closing
            assert self.opened == self.ended
            self.connect()

    @rule(
        begins=st.booleans(),
        accepted=st.booleans(),
        is_last=st.booleans(),
        text=st.sampled_from([b"", b"x\r\n", b"RSET\r\n", b"y" * 60 + b"\r\n", b"x" * 150, b"a\nb\r\n"]),
        cut=st.integers(0, 160),
    )
    def bdat(self, begins, accepted, is_last, text, cut):
        expected = self.model.bdat(len(text), begins, accepted, is_last=is_last, is_bare=b"a\nb" in text)
        octets = b"BDAT %d%b\r\n%b" % (len(text), b" LAST" if is_last else b"", text)
        decisions = {ContentRequested: begins, MessageEnded: accepted}
        assert self.send(octets[:cut], decisions=decisions) + self.send(octets[cut:], decisions=decisions) == [expected]

    @rule()
    def rset(self):
        assert self.send(b"RSET\r\n") == [self.model.rset()]

    @rule(
        line=st.sampled_from([b"NOOP", b"VRFY x", b"HELP", b"FOO", b"MAIL FROM:", b"RCPT TO:<@", b"BDAT x", b"DATA x"])
    )
    def something_without_effect(self, line):
        mail, recipients = self.model.mail, self.model.recipients
        self.send(line + b"\r\n")
        if line == b"RCPT TO:<@" and mail is not None:
            self.model.tried += 1
        assert (self.model.mail, self.model.recipients) == (mail, recipients)

    @precondition(lambda self: self.model.greeted)
    @rule()
    def tls(self):
        assert self.session.start_tls() == 0
        self.send(b"")
        self.model.fresh()
        self.model.greeted = False

    @invariant()
    def same_place(self):
        transaction = self.session.transaction
        assert (transaction.mail is not None) == (self.model.mail is not None)
        assert transaction.recipients == self.model.recipients
        assert bool(self.session.helo) == self.model.greeted
        assert self.accepted == self.model.accepted
        assert self.opened - self.ended == (self.model.mail is not None)


SmtpMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSmtpMachine = SmtpMachine.TestCase


WORDS = (
    b"EHLO c,LHLO c,MAIL FROM:<a@b>,RCPT TO:<c@d>,DATA,.,text,RSET,QUIT,AUTH PLAIN,*,BDAT 3,BDAT 9 LAST,VRFY a@b,,\xff"
)
COMMANDS = WORDS.split(b",")
LINES = [*(line + b"\r\n" for line in COMMANDS), b"\n", b"\r", b"\0", b"x" * 3000]
pieces = st.lists(st.sampled_from(LINES), max_size=14)


@settings(max_examples=200, deadline=None)
@given(pieces, st.sampled_from(Service), st.integers(1, 9))
def test_fuzz_no_exception_ends_balance_and_output_is_clean(parts, service, size):
    session = make_session(service, is_tls=True, offers_authentication=True)
    octets = b"".join(parts)
    opened = ended = 0
    out = b""
    for start in range(0, len(octets), size):
        events, sent = drive(session, octets[start : start + size])
        out += sent
        for event in events:
            opened += isinstance(event, MailGiven)
            ended += isinstance(event, TransactionAborted | ContentRefused | MessageEnded)
    session.receive_eof()
    events, sent = drive(session, b"")
    ended += sum(isinstance(event, TransactionAborted) for event in events)
    assert opened == ended
    assert b"\r" not in (out + sent).replace(b"\r\n", b"")
    assert b"\n" not in (out + sent).replace(b"\r\n", b"")


def test_one_command_at_a_time_and_replies_in_order():
    session = make_session()
    drive(session, b"EHLO c\r\n")
    session.receive_octets(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nNOOP\r\n")
    assert isinstance(session.next_event(), MailGiven)
    assert session.next_event() is Wait.PAUSED
    assert session.octets_to_send() == b""
    session.reply()
    assert isinstance(session.next_event(), RecipientNamed)
    assert session.octets_to_send() == b"250 2.1.0 Ok\r\n"
    session.reply()
    assert session.next_event() is Wait.NEED_DATA
    assert session.octets_to_send() == b"250 2.1.5 Ok\r\n250 2.0.0 Ok\r\n"


def test_r_tls_1_octets_that_came_before_tls_are_dropped_and_told():
    session = make_session(offers_tls=True)
    drive(session, b"EHLO c\r\n")
    drive(session, b"STARTTLS\r\n")
    session.receive_octets(b"RSET\r\n")
    assert session.next_event() is Wait.NEED_DATA
    assert session.start_tls() == 6
    assert session.next_event() is Wait.NEED_DATA
    assert session.octets_to_send() == b""


@pytest.mark.parametrize("service", Service)
def test_r_smtp_9_long_text_lines_are_kept_up_to_the_limit(service):
    for length, is_kept in ((998, True), (5000, True), (65536, True), (65537, False), (200_000, False)):
        session = make_session(service, is_tls=True, offers_authentication=True)
        drive(session, b"LHLO c\r\n" if service is Service.LMTP else b"EHLO c\r\n")
        session.is_authenticated = True
        drive(session, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
        text = b"Subject: x\r\n\r\n" + b"y" * length + b"\r\n"
        events, out = drive(session, text + b".\r\n")
        content = b"".join(event.octets for event in events if isinstance(event, ContentReceived))
        assert (content == text) is is_kept
        assert out.startswith(b"250 " if is_kept else b"554 5.5.6 ")


@pytest.mark.parametrize(("length", "is_kept"), [(1000, True), (1001, False), (1999, False)])
def test_r_lim_2_a_lower_limit_of_text_lines_holds_within_one_segment(length, is_kept):
    session = make_session(settings=evolve(PATIENT, text_line_octets=1000))
    drive(session, b"EHLO c\r\n")
    drive(session, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
    text = b"short\r\n" * 300 + b"y" * length + b"\r\n" + b"short\r\n" * 300
    assert drive(session, text + b".\r\n")[1].startswith(b"250 " if is_kept else b"554 5.5.6 ")


def test_work_on_a_slow_sender_is_linear():
    """Doubling the number of octets that come one by one no more than doubles the work."""

    def cost(count: int) -> float:
        session = make_session()
        drive(session, b"EHLO c\r\n")
        drive(session, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")

        def send_slowly() -> None:
            for _ in range(count):
                session.receive_octets(b".")
                while not isinstance(session.next_event(), Wait):
                    pass

        return cpu_seconds(send_slowly)

    assert_linear(cost, 4000)


def test_an_unfinished_line_is_searched_once():
    searched = []

    @define
    class Counting(ReceiveBuffer):
        def __init__(self) -> None:
            super().__init__()

        def maybe_extract_line(self, limit_octets: int) -> bytes | None:
            line = super().maybe_extract_line(limit_octets)
            searched.append(len(self) - self._searched)
            return line

    session = make_session()
    session._buffer = Counting()
    for _ in range(500):
        drive(session, b"x")
    assert set(searched) == {0}


def test_the_limit_of_auth_lines_is_for_auth_alone():
    session = make_session(Service.SUBMISSION, is_tls=True, offers_authentication=True)
    drive(session, b"EHLO c\r\n")
    assert drive(session, b"NOOP " + b"x" * 3000 + b"\r\n")[1].startswith(b"500 5.5.6 ")
    assert drive(session, b"auth plain " + b"x" * 3000 + b"\r\n")[1].startswith(b"501 5.5.2 ")


def test_an_endless_line_is_cut_off():
    session = make_session()
    for _ in range(300):
        drive(session, b"x" * 1000)
    assert session.is_closing
    assert session.unread_octets == 0
