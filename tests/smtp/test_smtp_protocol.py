"""The shell: writes, back-pressure, limits, stopping, and what the receiver and the portal are told."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from zope.interface.verify import verifyObject

from mailsrv.coroutines import run_coroutine
from mailsrv.errors import InsufficientStorage, MailError, Unavailable
from mailsrv.interfaces.delivery import IMailTransaction, IMessageReceiver, MailParameters
from mailsrv.interfaces.envelope import BodyType, EnvelopeParameters
from mailsrv.interfaces.service import IDrainable
from mailsrv.smtp.settings import Service, SmtpSettings
from mailsrv.status import BAD_MAILBOX, NOT_AUTHORISED, POLICY_DELAY, SHUTTING_DOWN
from mailsrv.testing.receiver import MemoryTransaction
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.tls_mode import TlsMode
from tests.collector import left_to_the_collector
from tests.smtp.smtp_harness import STRANGER, make_server

ENVELOPE = ("MAIL FROM:<a@client.example>", "RCPT TO:<b@example.test>")
PLAIN = "AUTH PLAIN AGFsaWNlAHNlY3JldA=="


@pytest.fixture
def events():
    found: Any = []
    observer: Any = found.append
    globalLogPublisher.addObserver(observer)
    yield found
    globalLogPublisher.removeObserver(observer)


def test_the_doubles_and_the_factory_provide_their_interfaces():
    server = make_server()
    assert verifyObject(IMessageReceiver, server.receiver)
    assert verifyObject(IDrainable, server.factory)
    server.connect().begin().say_lines(*ENVELOPE)
    assert verifyObject(IMailTransaction, server.receiver.transactions[0])


def test_replies_to_one_segment_go_out_in_one_write():
    client = make_server().connect().begin()
    before = client.transport.write_calls
    answer = client.say(b"MAIL FROM:<a@b>\r\n" + b"RCPT TO:<c@example.test>\r\n" * 50 + b"DATA\r\n")
    assert answer.count(b"\r\n") == 52
    assert client.transport.write_calls == before + 1


def test_the_receiver_sees_session_parameters_and_content():
    server = make_server()
    client = server.connect().begin()
    client.say_lines("MAIL FROM:<> SIZE=10 BODY=8BITMIME SMTPUTF8", "RCPT TO:<b@example.test>", "DATA")
    client.say(b"..dot\r\n.\r\n")
    [message] = server.receiver.messages
    assert message.reverse_path is None
    assert message.parameters == MailParameters(10, EnvelopeParameters(BodyType.EIGHT_BIT, is_smtputf8=True))
    assert message.content == b".dot\r\n"
    assert message.account is None
    view = message.session
    assert (view.helo, view.is_extended, view.service, view.client_address) == (
        "client.example",
        True,
        "mx",
        "127.0.0.1",
    )
    assert (view.client_port, view.local_address, view.tls_version) == (40000, "127.0.0.1", "")
    assert view.connection_id


def test_tls_and_account_are_seen_by_the_receiver():
    server = make_server(service=Service.SUBMISSION)
    client = server.connect().begin("EHLO c", "STARTTLS")
    assert client.transport.tls_started == 1
    client.begin("EHLO c", PLAIN, "MAIL FROM:<alice@example.test>", "RCPT TO:<x@y>", "DATA", ".")
    [message] = server.receiver.messages
    assert message.session.tls_version == "TLSv1.3"
    assert message.session.tls_cipher
    assert str(message.session.account) == "alice@example.test"
    assert message.account is not None
    [credentials] = server.portal.attempts
    assert (credentials.service, credentials.client_address) == ("submission", "127.0.0.1")
    assert credentials.connection_id == message.session.connection_id
    client.say(b"QUIT\r\n")
    assert server.portal.logouts == 1


@pytest.mark.parametrize(
    ("stage", "error", "expected"),
    [
        ("connect", MailError(NOT_AUTHORISED, "Go away"), "554 5.7.1 Go away"),
        ("connect", MailError(POLICY_DELAY, "Later"), "421 4.7.1 Later"),
        ("connect", ValueError("secret"), "421 4.3.0 Temporary failure, try again later"),
        ("helo", MailError(NOT_AUTHORISED, "Bad name"), "550 5.7.1 Bad name"),
        ("mail", MailError(NOT_AUTHORISED, "No"), "550 5.7.1 No"),
        ("mail", MailError(SHUTTING_DOWN, "Bye"), "421 4.3.2 Bye"),
        ("rcpt b@example.test", MailError(POLICY_DELAY, "Greylisted"), "450 4.7.1 Greylisted"),
        ("data", InsufficientStorage(cause="disk 3"), "452 4.3.1 Insufficient system storage"),
        ("finish", Unavailable(), "451 4.3.0 Temporary failure, try again later"),
        ("finish", MailError(NOT_AUTHORISED, "Spam\r\n250 ok"), "550 5.7.1 Spam??250 ok"),
        ("finish", ValueError("secret"), "451 4.3.0 Temporary failure, try again later"),
    ],
)
@pytest.mark.parametrize("is_slow", [False, True])
def test_refusals_at_every_stage(stage, error, expected, is_slow):
    server = make_server(is_slow=is_slow, configure=lambda receiver: receiver.refusals.update({stage: error}))
    client = server.connect()
    said = [client.hear().decode()]
    said += client.say_lines("EHLO c", *ENVELOPE, "DATA", "text", ".")
    assert any(text == expected + "\r\n" for text in said)
    assert server.receiver.messages == []
    assert all(not transaction.is_open or stage.startswith("rcpt") for transaction in server.receiver.transactions)


def test_after_a_554_greeting_only_quit_works():
    server = make_server(configure=lambda receiver: receiver.refusals.update(connect=MailError(NOT_AUTHORISED, "No")))
    client = server.connect()
    assert client.hear() == b"554 5.7.1 No\r\n"
    assert client.say_lines("EHLO c", "MAIL FROM:<a@b>") == ["503 5.5.1 No service here\r\n"] * 2
    assert client.say(b"QUIT\r\n").startswith(b"221 ")


def test_r_smtp_4_every_end_of_a_transaction_aborts_it_once():
    server = make_server()
    client = server.connect().begin()
    for end in ("RSET", "EHLO c", "STARTTLS"):
        client.say_lines(*ENVELOPE, end)
        assert server.receiver.transactions[-1].is_aborted
        client.say_lines("EHLO c")
    client.say_lines(*ENVELOPE, "QUIT")
    assert server.receiver.transactions[-1].is_aborted
    other = server.connect().begin()
    other.say_lines(*ENVELOPE, "DATA", "half")
    other.transport.close_from_client()
    assert server.receiver.transactions[-1].is_aborted
    assert server.receiver.messages == []
    assert not server.factory._open


def test_reading_stops_while_the_receiver_is_behind():
    server = make_server(configure=lambda receiver: setattr(receiver, "hold_writes", True))
    client = server.connect().begin()
    client.say_lines(*ENVELOPE, "DATA")
    client.say(b"one\r\n")
    assert client.transport.producerState == "paused"
    client.transport.deliver(b"two\r\n.\r\n")
    assert client.transport.has_unread_input
    server.receiver.held_writes.pop().callback(None)
    assert client.hear() == b""
    assert client.transport.producerState == "paused"
    server.receiver.held_writes.pop().errback(OSError("disk"))
    assert client.hear().startswith(b"250 ")
    assert client.transport.producerState == "producing"
    assert server.receiver.messages[0].content == b"one\r\ntwo\r\n"


def test_reading_stops_while_an_answer_is_owed_and_much_has_come():
    server = make_server(input_buffer_octets=1024, junk_commands=1000)
    client = server.connect().begin()
    client.say_lines("MAIL FROM:<a@b>")
    server.receiver.clock, server.receiver.delay_seconds = server.clock, 9
    client.say(b"RCPT TO:<c@example.test>\r\n")
    client.say(b"NOOP\r\n" * 100)
    assert client.transport.producerState == "producing"
    client.say(b"NOOP\r\n" * 100)
    assert client.transport.producerState == "paused"
    server.clock.advance(9)
    assert client.hear().startswith(b"250 2.1.5 Ok\r\n250 2.0.0 Ok\r\n")
    assert client.transport.producerState == "producing"


def test_reading_stops_while_the_client_does_not_take_its_replies():
    client = make_server().connect().begin()
    producer = client.transport.producer
    assert producer is not None
    producer.pauseProducing()
    assert client.transport.producerState == "paused"
    producer.resumeProducing()
    assert client.transport.producerState == "producing"


def test_what_is_answered_after_the_client_is_gone_is_given_up():
    server = make_server(is_slow=True)
    client = server.connect().begin()
    client.transport.deliver(b"MAIL FROM:<a@b>\r\n")
    client.transport.close_from_client()
    server.clock.advance(1)
    [transaction] = server.receiver.transactions
    assert transaction.is_aborted
    assert not server.factory._open


def test_a_message_that_is_being_accepted_is_accepted_though_the_client_is_gone():
    server = make_server(is_slow=True)
    client = server.connect().begin()
    client.say_lines(*ENVELOPE, "DATA")
    client.transport.deliver(b".\r\n")
    client.transport.close_from_client()
    server.clock.advance(1)
    assert len(server.receiver.messages) == 1
    assert not server.receiver.transactions[0].is_aborted


def test_smtp_has_one_reply_for_all_recipients():
    server = make_server()
    client = server.connect().begin()
    full = "RCPT TO:<full@example.test>"
    assert client.say_lines(*ENVELOPE, full, "DATA", ".")[-1].startswith("250 ")
    assert client.say_lines("MAIL FROM:<a@b>", full, "DATA", ".")[-1] == "552 5.2.2 Mailbox full\r\n"
    server.receiver.refusals["finish late@example.test"] = Unavailable()
    answers = client.say_lines("MAIL FROM:<a@b>", full, "RCPT TO:<late@example.test>", "DATA", ".")
    assert answers[-1].startswith("451 ")


def test_lmtp_outcomes_without_duplicates_are_matched_by_recipient():
    server = make_server(service=Service.LMTP)

    client = server.connect().begin("LHLO c")
    a, b = "RCPT TO:<a@example.test>", "RCPT TO:<full@example.test>"
    client.say_lines("MAIL FROM:<>", a, b, a, "DATA")
    transaction = server.receiver.transactions[0]
    transaction.recipients = transaction.recipients[:2]
    replies = client.say(b".\r\n").decode().splitlines()
    assert [reply[:3] for reply in replies] == ["250", "552", "250"]


def test_r_lim_2_connections_at_over_and_below_the_limit():
    server = make_server(limits=LimitsSettings(smtp_connections_per_network=1), greeting_delay_seconds=0.0)
    first = server.connect(STRANGER)
    assert first.hear().startswith(b"220 ")
    second = server.connect(STRANGER)
    assert second.hear() == b"421 4.7.1 Too many connections, try again later\r\n"
    assert second.transport.is_gone
    first.transport.close_from_client()
    assert server.connect(STRANGER).hear().startswith(b"220 ")


def test_r_lim_2_a_user_with_too_many_connections_is_turned_away_after_the_password():
    limits = LimitsSettings(connections_per_user_and_network=1)
    server = make_server(service=Service.SUBMISSION, limits=limits, tls_mode=TlsMode.IMPLICIT)
    first, second = (server.connect(STRANGER, is_tls=True).begin() for _ in range(2))
    assert first.say(PLAIN.encode() + b"\r\n").startswith(b"235 ")
    assert second.say(PLAIN.encode() + b"\r\n").startswith(b"421 4.7.1 ")
    assert second.transport.is_gone
    assert server.portal.logouts == 1


def test_clients_that_delivered_mail_are_greeted_at_once():
    server = make_server()
    client = server.connect(STRANGER)
    assert client.hear() == b""
    server.clock.advance(4)
    client.begin()
    client.say_lines(*ENVELOPE, "DATA", ".")
    assert server.connect(STRANGER).hear().startswith(b"220 ")
    assert server.connect(IPv4Address("TCP", "192.0.2.77", 1)).hear() == b""


def test_only_mx_sessions_have_an_end():
    for service, ends in ((Service.MX, True), (Service.SUBMISSION, False), (Service.LMTP, False)):
        server = make_server(service=service, junk_commands=1000)
        client = server.connect()
        client.hear()
        said = b""
        for _ in range(20):
            server.clock.advance(100)
            said += client.say(b"NOOP\r\n")
        assert (b"421 4.4.2" in said) is ends


def test_the_clock_stands_while_we_keep_the_client_waiting():
    server = make_server()
    client = server.connect().begin()
    server.receiver.clock, server.receiver.delay_seconds = server.clock, 10**6
    client.say(b"MAIL FROM:<a@b>\r\n")
    for _ in range(20):
        server.clock.advance(60)
    assert client.hear() == b""
    assert not client.transport.disconnecting


def test_a_client_that_does_not_take_the_last_words_is_cut_off():
    server = make_server()
    client = server.connect().begin()
    client.transport._is_delivering = True
    protocol: Any = client.transport.protocol
    protocol.dataReceived(b"QUIT\r\n")
    assert (client.transport.disconnecting, client.transport.is_aborted) == (True, False)
    server.clock.advance(31)
    assert client.transport.is_aborted


def test_one_timer_a_connection():
    server = make_server()
    client = server.connect().begin()
    for _ in range(10):
        client.say(b"NOOP\r\n")
    assert len(server.clock.getDelayedCalls()) == 1
    client.say(b"QUIT\r\n")
    assert server.clock.getDelayedCalls() == []


def test_r_stop_1_drain_waits_for_messages_in_flight():
    server = make_server()
    idle, busy = server.connect().begin(), server.connect().begin()
    unknown = server.connect(STRANGER)
    busy.say_lines(*ENVELOPE, "DATA")
    drained = server.factory.drain()
    assert idle.hear() == b"421 4.3.2 Server shutting down, try again\r\n"
    assert unknown.hear() == b"421 4.3.2 Server shutting down, try again\r\n"
    late = server.connect()
    assert late.hear().startswith(b"421 4.3.2 ")
    was_early = drained.called
    assert busy.say(b".\r\n").splitlines()[1].startswith(b"421 4.3.2 ")
    assert (was_early, drained.called) == (False, True)
    assert server.factory.drain().called


def test_abort_all_waits_for_nothing():
    server = make_server()
    busy = server.connect().begin()
    busy.say_lines(*ENVELOPE, "DATA")
    drained = server.factory.drain()
    server.factory.abort_all()
    busy.hear()
    assert drained.called
    assert server.receiver.transactions[0].is_aborted


def test_new_settings_are_for_new_sessions():
    server = make_server()
    old = server.connect().begin()
    server.factory.replace_settings(evolve(SmtpSettings(), message_octets=12345))
    new = server.connect()
    new.hear()
    assert b"SIZE 12345" in new.say(b"EHLO c\r\n")
    assert b"SIZE 52428800" in old.say(b"EHLO c\r\n")


def test_a_unix_socket_has_no_address():
    server = make_server(service=Service.LMTP)
    protocol = server.factory.buildProtocol(UNIXAddress("/run/x"))
    assert protocol.view.client_address == ""


def test_log_events_carry_ids_and_no_secrets(events):
    server = make_server(service=Service.SUBMISSION, plaintext=("127.0.0.1",))
    client = server.connect().begin("EHLO c", PLAIN)
    client.say_lines(
        "MAIL FROM:<alice@example.test>",
        "RCPT TO:<nobody@example.test>",
        ENVELOPE[1],
        "RCPT TO:<full@example.test>",
        "DATA",
        "text",
        ".",
    )
    client.say(b"QUIT\r\n")
    ours = [event for event in events if "connection_id" in event]
    assert len({event["connection_id"] for event in ours}) == 1
    [refused] = [event for event in ours if event.get("stage") == "rcpt"]
    assert refused["subject"] == "nobody@example.test"
    assert refused["code"] == 550
    [result] = [event for event in ours if "accepted" in event]
    assert (result["transaction_id"], result["accepted"], result["refused"], result["size"]) == ("t1", 1, 1, 6)
    assert "secret" not in repr(events)


def test_a_bug_of_the_receiver_is_logged_and_not_told(events):
    server = make_server()
    client = server.connect().begin()
    answer = client.say_lines("MAIL FROM:<a@b>", "RCPT TO:<bug@example.test>")[1]
    assert answer == "451 4.3.0 Temporary failure, try again later\r\n"
    [failure] = [event["log_failure"] for event in events if "log_failure" in event]
    assert failure.check(RuntimeError)


@pytest.mark.parametrize(
    ("before", "command"),
    [([], b"EHLO c"), (["EHLO c", *ENVELOPE], b"DATA"), (["EHLO c"], PLAIN.encode())],
    ids=["EHLO", "DATA", "AUTH"],
)
def test_r_smtp_6_octets_that_come_before_a_late_answer(before, command):
    server = make_server(service=Service.SUBMISSION if command[:4] == b"AUTH" else Service.MX, plaintext=("127.0.0.1",))
    client = server.connect()
    client.hear()
    client.say_lines(*before)
    waiting: Any = Deferred()
    server.portal.login = lambda *_: waiting  # type: ignore[method-assign]
    server.receiver.clock, server.receiver.delay_seconds = server.clock, 5
    assert client.say(command + b"\r\n") == b""
    assert client.say(b"Subject: too early\r\n") == b""
    server.clock.advance(5)
    waiting.errback(Unavailable())
    assert client.hear() == b"554 5.5.0 SMTP protocol synchronisation error\r\n"
    assert client.transport.is_gone
    assert all(transaction.is_aborted for transaction in server.receiver.transactions)


def test_refusals_of_the_engine_and_the_reason_of_the_end_are_logged(events):
    client = make_server(errors_before_drop=2).connect().begin()
    client.say_lines("RCPT TO:<b@example.test>", "FOO")
    found = [(event["code"], event["reason"]) for event in events if "reason" in event]
    assert found == [(503, "MAIL first"), (500, "Command unrecognized"), (421, "Too many errors")]


def test_a_client_that_never_begins_tls_is_cut_off():
    server = make_server(tls_mode=TlsMode.IMPLICIT)
    client = server.connect(is_tls=True)
    for _ in range(6):
        server.clock.advance(60)
    assert client.transport.is_aborted
    client.transport._handshake_is_due = False
    client.hear()
    assert server.connections.total == 0
    assert server.clock.getDelayedCalls() == []


def test_a_refusal_is_gone_when_it_is_told(monkeypatch: pytest.MonkeyPatch):
    """Its traceback leads to the calls that hold it: a flood of wrong recipients would fill the memory."""

    async def refuse() -> None:
        raise MailError(BAD_MAILBOX, "No such user")

    monkeypatch.setattr(MemoryTransaction, "add_recipient", lambda *_: run_coroutine(refuse()))
    client = make_server().connect().begin()
    client.say_lines("MAIL FROM:<a@client.example>")
    with left_to_the_collector() as left:
        assert client.say(b"RCPT TO:<nobody@example.test>\r\n").startswith(b"550 5.1.1")
    assert left["MailError"] == 0
