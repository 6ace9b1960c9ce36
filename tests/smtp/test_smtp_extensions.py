"""What is announced, what works, and what of it the receiver is told."""

from __future__ import annotations

import string

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.address import Address
from mailsrv.interfaces.delivery import MailParameters
from mailsrv.interfaces.envelope import (
    BodyType,
    DeliverBy,
    EnvelopeParameters,
    Notify,
    RecipientParameters,
    ReturnContent,
)
from mailsrv.smtp.events import AddressQueried
from mailsrv.smtp.parameters import BadParameter, UnknownParameter, parse_mail_parameters, parse_rcpt_parameters
from mailsrv.smtp.queries import query_reply
from mailsrv.smtp.settings import EXTENSIONS, Service, SmtpSettings, Verification
from mailsrv.smtp.xclient import parse_xclient
from mailsrv.smtp.xtext import decode_original_recipient, decode_xtext
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.tls_mode import TlsMode
from tests.smtp.smtp_harness import make_server

PLAIN = "AUTH PLAIN AGFsaWNlAHNlY3JldA=="


def keywords(answer: bytes) -> list[str]:
    return [line[4:].split(" ")[0] for line in answer.decode().splitlines()[1:]]


def test_dsn_parameters_reach_the_receiver():
    for service in (Service.MX, Service.LMTP):
        server = make_server(service=service)
        client = server.connect().begin("LHLO c" if service is Service.LMTP else "EHLO c")
        client.say_lines(
            "MAIL FROM:<a@client.example> RET=HDRS ENVID=a+2Bb BODY=8BITMIME SMTPUTF8",
            "RCPT TO:<b@example.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;B+2Bx@example.org",
            "RCPT TO:<c@example.test>",
            "RCPT TO:<ü@example.test> ORCPT=utf-8;ö@example.test NOTIFY=NEVER",
            "DATA",
            ".",
        )
        [message] = server.receiver.messages
        assert message.parameters.envelope == EnvelopeParameters(
            BodyType.EIGHT_BIT, is_smtputf8=True, return_content=ReturnContent.HEADERS, envelope_id="a+b"
        )
        assert message.recipient_parameters == [
            RecipientParameters(Notify.SUCCESS | Notify.FAILURE, "rfc822;B+x@example.org"),
            RecipientParameters(),
            RecipientParameters(Notify.NEVER, "utf-8;ö@example.test"),
        ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("HOLDFOR=60", EnvelopeParameters(hold_until=1060)),
        ("HOLDUNTIL=1970-01-01T00:20:00Z", EnvelopeParameters(hold_until=1200)),
        # It has passed: nothing to wait for.
        ("HOLDUNTIL=1970-01-01T00:10:00Z", EnvelopeParameters()),
        ("BY=90;R", EnvelopeParameters(deliver_by=DeliverBy(1090, must_return=True))),
        ("BY=-90;NT", EnvelopeParameters(deliver_by=DeliverBy(910, is_traced=True))),
        ("MT-PRIORITY=3", EnvelopeParameters(priority=3)),
        ("MT-PRIORITY=9", EnvelopeParameters(priority=4)),
        ("REQUIRETLS", EnvelopeParameters(requires_tls=True)),
        ("SIZE=5", EnvelopeParameters()),
        ("SIZE=5 BODY=8BITMIME", EnvelopeParameters(BodyType.EIGHT_BIT)),
        ("AUTH=<>", EnvelopeParameters()),
    ],
)
def test_times_become_instants_and_priorities_stay_within_bounds(words, expected):
    server = make_server(service=Service.SUBMISSION, tls_mode=TlsMode.IMPLICIT)
    server.clock.advance(1000)
    client = server.connect(is_tls=True).begin("EHLO c", PLAIN)
    said = client.say_lines(f"MAIL FROM:<alice@example.test> {words}", "RCPT TO:<b@example.test>", "DATA", ".")
    assert said[0].startswith("250 ")
    [message] = server.receiver.messages
    assert message.parameters == MailParameters(5 if "SIZE" in words else None, expected)


@pytest.mark.parametrize("name", EXTENSIONS)
@pytest.mark.parametrize("service", Service, ids=lambda service: service.value)
@pytest.mark.parametrize("is_tls", [False, True], ids=["clear", "tls"])
def test_each_extension_can_be_switched_off_and_nothing_else_goes_with_it(name, service, is_tls):
    def offered(**changes: object) -> list[str]:
        server = make_server(
            service=service,
            tls_mode=TlsMode.IMPLICIT if is_tls else TlsMode.STARTTLS,
            plaintext=("127.0.0.1",),
            verify=Verification.ON,
            expand=Verification.ON,
            xclient_networks=("127.0.0.1",),
            **changes,  # type: ignore[arg-type]
        )
        client = server.connect(is_tls=is_tls)
        client.hear()
        return keywords(client.say(b"LHLO c\r\n" if service is Service.LMTP else b"EHLO c\r\n"))

    all_of_them = offered()
    gone = {name, "BINARYMIME"} if name == "CHUNKING" else {name}
    assert offered(extensions_off=(name,)) == [keyword for keyword in all_of_them if keyword not in gone]
    assert [keyword for keyword in EXTENSIONS if keyword in all_of_them] == all_of_them
    assert ("REQUIRETLS" in all_of_them) is (is_tls and service is not Service.LMTP)
    assert ("STARTTLS" in all_of_them) is not is_tls
    assert ("FUTURERELEASE" in all_of_them) is (service is Service.SUBMISSION)
    assert ("MT-PRIORITY" in all_of_them) is (service is Service.SUBMISSION)


def test_priorities_can_be_given_to_others_too():
    server = make_server(priority_services=("mx",))
    client = server.connect().begin()
    assert "MT-PRIORITY" in keywords(client.say(b"EHLO c\r\n"))
    assert client.say(b"MAIL FROM:<a@b> MT-PRIORITY=-2\r\n") == b"250 2.1.0 Ok\r\n"
    assert server.receiver.transactions[0].parameters.envelope.priority == -2


@pytest.mark.parametrize(
    "changes",
    [
        {"extensions_off": ("CHUNKS",)},
        {"extensions_off": ("dsn",)},
        {"xclient_networks": ("192.0.2.1/24",)},
        {"xclient_networks": ("proxy",)},
        {"priority_services": ("smtp",)},
        {"priority_highest": 10},
        {"hold_seconds": 10**9},
    ],
)
def test_settings_that_mean_nothing_are_refused(changes):
    with pytest.raises(ValueError, match=r"expected|must be"):
        evolve(SmtpSettings(), **changes)


def test_no_hold_without_a_time():
    server = make_server(service=Service.SUBMISSION, tls_mode=TlsMode.IMPLICIT, hold_seconds=0)
    client = server.connect(is_tls=True).begin("EHLO c", PLAIN)
    assert client.say(b"MAIL FROM:<alice@example.test> HOLDFOR=1\r\n").startswith(b"555 5.5.4 ")


def test_refused_parameters_excuse_what_was_sent_behind_them():
    client = make_server(errors_before_drop=2).connect().begin()
    answer = client.say(b"MAIL FROM:<a@b> HOLDFOR=1\r\n" + b"RCPT TO:<c@example.test>\r\n" * 3 + b"DATA\r\n")
    assert [line[:3] for line in answer.splitlines()] == [b"555"] + [b"503"] * 4


# VRFY and EXPN


def test_answers_to_queries_are_bounded_and_clean():
    address = Address("list", "example.test")
    found = [Address(f"user{number}", "example.test") for number in range(1500)]
    reply = query_reply(AddressQueried(address, True, False), found)
    assert len(reply.octets.splitlines()) == 1000
    assert query_reply(AddressQueried(address, False, False), found).octets == b"250 2.1.5 <list@example.test>\r\n"
    assert query_reply(AddressQueried(address, True, False), ()).octets == b"250 2.1.5 <list@example.test>\r\n"


# XCLIENT


def test_r_proxy_1_the_receiver_sees_the_client_and_no_log_in():
    server = make_server(
        service=Service.SUBMISSION, tls_mode=TlsMode.IMPLICIT, xclient_networks=("127.0.0.0/8",), plaintext=()
    )
    client = server.connect(is_tls=True).begin("EHLO proxy.example", PLAIN)
    attributes = (
        "ADDR=IPV6:2001:db8::7 PORT=77 NAME=c.example PROTO=ESMTP HELO=c.example LOGIN=root DESTADDR=192.0.2.25"
    )
    assert client.say(f"XCLIENT {attributes}\r\n".encode()) == b"220 mail.example.test ESMTP mailsrv\r\n"
    assert server.portal.logouts == 1
    view = server.receiver.sessions[-1]
    assert (view.client_address, view.client_port, view.local_address) == ("2001:db8::7", 77, "192.0.2.25")
    assert (view.helo, view.is_extended, view.account, view.tls_version) == ("c.example", True, None, "TLSv1.3")
    assert client.say(b"EHLO c.example\r\n").startswith(b"250-")
    assert client.say(b"MAIL FROM:<alice@example.test>\r\n").startswith(b"530 ")
    client.say(PLAIN.encode() + b"\r\n")
    assert server.portal.attempts[-1].client_address == "2001:db8::7"
    client.say(b"QUIT\r\n")
    assert server.connections.total == 0


def test_r_proxy_1_limits_are_those_of_the_client():
    server = make_server(
        xclient_networks=("127.0.0.0/8",), limits=LimitsSettings(smtp_connections_per_network=1), messages_per_session=1
    )
    first, second = server.connect().begin(), server.connect().begin()
    assert first.say(b"XCLIENT ADDR=192.0.2.1\r\n").startswith(b"220 ")
    assert second.say(b"XCLIENT ADDR=192.0.2.1\r\n") == b"421 4.7.1 Too many connections, try again later\r\n"
    assert second.transport.is_gone
    assert b"LIMITS MAILMAX=1 RCPTMAX=100" in first.say(b"EHLO c\r\n")
    first.transport.close_from_client()
    assert server.connections.total == 0


def test_reloaded_networks_hold_for_new_connections():
    server = make_server()
    assert b"XCLIENT" not in server.connect().begin().say(b"EHLO c\r\n")
    server.factory.replace_settings(evolve(SmtpSettings(), xclient_networks=("127.0.0.1",)))
    assert b"XCLIENT" in server.connect().begin().say(b"EHLO c\r\n")


# The encodings


def encode_xtext(text: str) -> str:
    return "".join(
        character if "!" <= character <= "~" and character not in "+=" else f"+{ord(character):02X}"
        for character in text
    )


@given(st.text(string.ascii_letters + string.digits + string.punctuation + " ", min_size=1, max_size=60))
def test_xtext_is_decoded_to_what_was_encoded(text):
    assert decode_xtext(encode_xtext(text)) == text
    if ";" not in text:
        assert decode_original_recipient("rfc822;" + encode_xtext(text)) == "rfc822;" + text


@given(st.text(min_size=1, max_size=40).filter(str.isprintable))
def test_unicode_xtext_is_decoded_to_what_was_encoded(text):
    encoded = "".join(
        f"\\x{{{ord(character):X}}}" if character in " +=\\" or ord(character) > 0x7E else character
        for character in text
    )
    if all(len(f"{ord(character):X}") <= 6 for character in text):
        assert decode_original_recipient("utf-8;" + encoded) == "utf-8;" + text


words = st.text(string.ascii_letters + string.digits + "=;,+-\\x{}:<> \r\n\0ä", max_size=30)
KEYWORDS = "SIZE,BODY,SMTPUTF8,AUTH,RET,ENVID,REQUIRETLS,MT-PRIORITY,HOLDFOR,HOLDUNTIL,BY,NOTIFY,ORCPT,X"
ATTRIBUTES = "ADDR,PORT,NAME,PROTO,HELO,LOGIN,DESTADDR,X"
names = st.sampled_from(KEYWORDS.split(","))


@given(st.lists(st.tuples(names, words), max_size=4))
def test_parameters_end_in_a_value_or_in_the_declared_error(parts):
    text = "".join(f" {name}={value}" for name, value in parts)
    for parse in (parse_mail_parameters, parse_rcpt_parameters):
        try:
            found = parse(text)
        except (BadParameter, UnknownParameter):
            continue
        assert not set("\r\n\0") & set(repr(found).replace("\\r", "\r").replace("\\n", "\n").replace("\\x00", "\0"))


@given(st.lists(st.tuples(st.sampled_from(ATTRIBUTES.split(",")), words), max_size=3))
def test_xclient_attributes_end_in_a_value_or_in_a_value_error(parts):
    try:
        parse_xclient(" ".join(f"{name}={value}" for name, value in parts))
    except ValueError:
        return
