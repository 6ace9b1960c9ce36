"""AUTH with a mechanism that asks several times, as the engine sees it."""

from __future__ import annotations

import base64

import pytest

from mailsrv.sasl import ResponseOffered, SaslCancelled, SaslError
from mailsrv.smtp.events import PAUSED, CommandRejected
from mailsrv.smtp.replies import Stage, make_reply, reply_for_error
from mailsrv.smtp.session import SmtpSession
from mailsrv.smtp.settings import Service, SmtpSettings


def b64(octets: bytes) -> bytes:
    return base64.b64encode(octets)


def make_session(*mechanisms: str) -> SmtpSession:
    session = SmtpSession(
        SmtpSettings(),
        service=Service.SUBMISSION,
        hostname="mail.example.test",
        is_tls=True,
        offers_authentication=True,
        mechanisms=lambda is_tls: (*mechanisms, "PLAIN", "TLS") if is_tls else ("PLAIN",),
    )
    session.reply()
    session.receive_octets(b"EHLO client.example\r\n")
    session.next_event()
    session.reply()
    return session


def offered(session: SmtpSession) -> ResponseOffered:
    event = session.next_event()
    assert isinstance(event, ResponseOffered)
    assert session.next_event() is PAUSED
    return event


def begun(first: bytes = b"first") -> SmtpSession:
    session = make_session("SCRAM-SHA-256")
    assert b"AUTH SCRAM-SHA-256 PLAIN TLS\r\n" in session.octets_to_send()
    session.receive_octets(b"AUTH SCRAM-SHA-256 " + b64(first) + b"\r\n")
    event = offered(session)
    assert (event.mechanism, event.response, event.is_first) == ("SCRAM-SHA-256", first, True)
    return session


def test_challenges_go_out_and_responses_come_in():
    session = begun()
    session.challenge(b"second")
    session.next_event()
    assert session.octets_to_send() == b"334 " + b64(b"second") + b"\r\n"
    session.receive_octets(b64(b"third") + b"\r\n")
    event = offered(session)
    assert (event.response, event.is_first) == (b"third", False)
    session.challenge(b"fourth")
    session.next_event()
    session.octets_to_send()
    session.receive_octets(b"\r\n")
    assert offered(session).response == b""
    session.reply()
    assert session.octets_to_send().startswith(b"235 ")
    assert session.is_authenticated


def test_without_an_initial_response_an_empty_challenge_comes_first():
    session = make_session("SCRAM-SHA-256")
    session.octets_to_send()
    session.receive_octets(b"AUTH SCRAM-SHA-256\r\n")
    session.next_event()
    assert session.octets_to_send() == b"334 \r\n"
    session.receive_octets(b64(b"first") + b"\r\n")
    assert offered(session).is_first


@pytest.mark.parametrize(("line", "error"), [(b"*", SaslCancelled), (b"no base64", SaslError)])
def test_r_auth_3_what_is_no_response_is_handed_on_and_answered_once(line, error):
    session = begun()
    session.challenge(b"second")
    session.next_event()
    session.octets_to_send()
    session.receive_octets(line + b"\r\n")
    event = offered(session)
    assert isinstance(event.response, error)
    session.reply(reply_for_error(event.response, Stage.AUTH))
    assert session.octets_to_send().startswith(b"501 ")
    session.receive_octets(b"AUTH SCRAM-SHA-256 " + b64(b"again") + b"\r\n")
    assert offered(session).is_first


def test_r_smtp_6_a_response_before_the_challenge_ends_the_session():
    session = begun()
    session.receive_octets(b"early\r\n")
    session.challenge(b"second")
    assert session.octets_to_send().startswith(b"554 ")
    assert session.is_closing


def test_a_refusal_ends_the_exchange():
    session = begun()
    session.reply(make_reply(535, None, "no"))
    session.octets_to_send()
    session.receive_octets(b"NOOP\r\n")
    session.next_event()
    assert session.octets_to_send().startswith(b"250 ")


def test_what_is_not_offered_is_not_begun():
    session = make_session()
    session.octets_to_send()
    session.receive_octets(b"AUTH SCRAM-SHA-256\r\n")
    assert isinstance(session.next_event(), CommandRejected)
    assert session.octets_to_send().startswith(b"504 ")
