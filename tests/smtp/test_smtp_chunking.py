"""BDAT (RFC 3030) at every cut, with and without TLS; chunks that end early, slowly, or never (R-SMTP-5, R-SMTP-8)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.errors import InsufficientStorage
from mailsrv.interfaces.envelope import BodyType
from mailsrv.message import binary_octets, scan, summarise
from mailsrv.smtp.settings import Service
from mailsrv.wire.line_breaks import BareLineFeeds, LineBreaks, has_bare_line_break
from mailsrv.wire.tls_mode import TlsMode
from tests.smtp.smtp_harness import Client, Server, make_server

ENVELOPE = ("MAIL FROM:<a@client.example>", "RCPT TO:<b@example.test>")
TEXT = b"Subject: x\r\n\r\n.\r\n.\r\nQUIT\r\n"
PLAIN = "AUTH PLAIN AGFsaWNlAHNlY3JldA=="


def bdat(octets: bytes, *, is_last: bool = False) -> bytes:
    return b"BDAT %d%b\r\n%b" % (len(octets), b" LAST" if is_last else b"", octets)


def make(service: Service = Service.MX, *, is_tls: bool = False, **changes: object) -> tuple[Server, Client]:
    server = make_server(
        service=service,
        tls_mode=TlsMode.IMPLICIT if is_tls else TlsMode.STARTTLS,
        plaintext=("127.0.0.0/8",),
        **changes,  # type: ignore[arg-type]
    )
    return server, connect(server, service, is_tls=is_tls)


def connect(server: Server, service: Service = Service.MX, *, is_tls: bool = False) -> Client:
    more = [PLAIN] if service is Service.SUBMISSION else []
    hello = "LHLO c" if service is Service.LMTP else "EHLO c"
    return server.connect(is_tls=is_tls).begin(hello, *more)


@pytest.mark.parametrize("is_tls", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("service", Service, ids=lambda service: service.value)
def test_r_smtp_5_every_cut_of_the_message_and_of_the_stream(service, is_tls):
    server, client = make(service, is_tls=is_tls, messages_per_session=10**6)
    stream = b"".join(line.encode() + b"\r\n" for line in ENVELOPE)
    for cut in range(len(TEXT) + 1):
        octets = stream + bdat(TEXT[:cut]) + bdat(TEXT[cut:], is_last=True) + b"NOOP\r\n"
        server.receiver.messages.clear()
        half = len(stream) + cut
        answer = client.say(octets[:half]) + client.say(octets[half:])
        assert [line[:3] for line in answer.splitlines()] == [b"250"] * 5
        assert [message.content for message in server.receiver.messages] == [TEXT]


def test_r_smtp_5_one_transaction_at_every_cut_of_the_stream():
    stream = b"".join(line.encode() + b"\r\n" for line in ENVELOPE) + bdat(TEXT[:9]) + bdat(TEXT[9:], is_last=True)
    server, client = make(messages_per_session=10**6)
    for cut in range(len(stream)):
        answer = client.say(stream[:cut]) + client.say(stream[cut:])
        assert answer.count(b"250 ") == 4
    assert {message.content for message in server.receiver.messages} == {TEXT}


@pytest.mark.parametrize("is_tls", [False, True], ids=["clear", "tls"])
def test_r_smtp_5_a_connection_that_ends_within_a_chunk_leaves_nothing(is_tls):
    server, client = make(is_tls=is_tls)
    for octets in (b"BDAT 9 LAST\r\n", b"BDAT 9 LAST\r\nhalf", b"BDAT 4\r\nhalf", b"BDAT 4 LA"):
        client = connect(server, is_tls=is_tls)
        client.say_lines(*ENVELOPE)
        client.say(octets)
        client.transport.close_from_client()
        assert server.receiver.transactions[-1].is_aborted
    assert server.receiver.messages == []
    assert server.connections.total == 1


def test_r_smtp_5_starttls_within_a_message_forgets_its_chunks():
    server, client = make()
    client.say_lines(*ENVELOPE)
    client.say(bdat(b"half\r\n"))
    assert client.say(b"STARTTLS\r\n").startswith(b"220 ")
    assert server.receiver.transactions[-1].is_aborted
    client.begin()
    assert client.say(bdat(b"RSET\r\n", is_last=True)) == b"503 5.5.1 MAIL first\r\n"
    # In one segment with the command, no chunk is taken for one of the time before or after TLS.
    server, client = make()
    client.say_lines(*ENVELOPE)
    assert client.say(b"STARTTLS\r\n" + bdat(b"evil", is_last=True)).startswith(b"554 5.5.0 ")
    assert client.transport.is_gone
    assert server.receiver.messages == []


def test_submission_mends_bare_line_feeds_and_ends_the_last_line():
    server, client = make(Service.SUBMISSION)
    client.say_lines(*ENVELOPE)
    assert client.say(bdat(b"a\nb\r") + bdat(b"\nc", is_last=True)).count(b"250 ") == 2
    assert server.receiver.messages[0].content == b"a\r\nb\r\nc\r\n"
    client.say_lines(*ENVELOPE)
    assert client.say(bdat(b"a\rb", is_last=True)).startswith(b"550 5.5.2 ")


def test_binary_content_is_kept_octet_for_octet():
    octets = bytes(range(256)) * 300 + b"\r"
    for service in Service:
        server, client = make(service, text_line_octets=10)
        client.say_lines("MAIL FROM:<a@client.example> BODY=BINARYMIME", ENVELOPE[1])
        assert client.say(bdat(octets[:700]) + bdat(octets[700:], is_last=True)).splitlines()[-1].startswith(b"250 ")
        [message] = server.receiver.messages
        assert message.content == octets
        assert message.parameters.envelope.body is BodyType.BINARY


def test_a_receiver_without_room_is_told_of_after_the_chunk():
    server, client = make(configure=lambda receiver: receiver.refusals.update(data=InsufficientStorage()))
    client.say_lines(*ENVELOPE)
    assert client.say(b"BDAT 6 LAST\r\nRS") == b""
    assert server.receiver.transactions[-1].is_aborted
    assert client.say(b"ET\r\n") == b"452 4.3.1 Insufficient system storage\r\n"
    client.say_lines(*ENVELOPE)
    assert client.say(b"BDAT 0\r\n") == b"452 4.3.1 Insufficient system storage\r\n"


def test_the_receiver_may_be_slow_while_chunks_wait():
    server, client = make(is_slow=True, configure=lambda receiver: setattr(receiver, "hold_writes", True))
    client.say_lines(*ENVELOPE)
    assert client.say(bdat(b"one\r\n") + bdat(b"two\r\n", is_last=True)) == b"250 2.0.0 5 octets received\r\n"
    assert client.transport.producerState == "paused"
    server.receiver.held_writes.pop().callback(None)
    client.hear()
    server.receiver.held_writes.pop().callback(None)
    assert client.hear() == b"250 2.6.0 Accepted as t1\r\n"
    assert server.receiver.messages[0].content == b"one\r\ntwo\r\n"


def test_r_stop_1_a_message_in_chunks_is_finished():
    server, client = make()
    client.say_lines(*ENVELOPE)
    client.say(bdat(b"one\r\n"))
    server.factory.drain()
    assert client.hear() == b""
    answer = client.say(bdat(b"two\r\n", is_last=True)).splitlines()
    assert [line[:3] for line in answer] == [b"250", b"421"]
    assert len(server.receiver.messages) == 1


@pytest.mark.parametrize("size", [10, 11, 12])
def test_r_lim_2_lines_in_chunks_have_the_same_limit(size):
    server, client = make(text_line_octets=11)
    client.say_lines(*ENVELOPE)
    text = b"short\r\n" + b"y" * size + b"\r\nshort\r\n"
    answer = client.say(bdat(text[:9]) + bdat(text[9:], is_last=True)).splitlines()[-1]
    assert answer.startswith(b"250 " if size <= 11 else b"554 5.5.6 ")
    assert len(server.receiver.messages) == (size <= 11)


pieces = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"bc\r\n", b""]), max_size=12)


@given(pieces, st.sampled_from(BareLineFeeds))
def test_line_breaks_do_not_depend_on_the_cuts(parts, mode):
    whole, cut = LineBreaks(mode), LineBreaks(mode)
    text = b"".join(parts)
    expected = whole.feed(text) + whole.finish()
    found = b"".join(cut.feed(part) for part in parts) + cut.finish()
    assert whole.has_bare_line_break is cut.has_bare_line_break
    if not whole.has_bare_line_break:
        assert found == expected
        assert not has_bare_line_break(found)
        assert not found or found.endswith(b"\r\n")
    if mode is BareLineFeeds.REFUSE:
        assert whole.has_bare_line_break is has_bare_line_break(text)


def test_binary_mail_is_understood_as_a_message():
    payload = bytes(range(256)) + b"\r\r\n\n--x\r\0\n" + bytes(range(255, -1, -1))
    text = (
        b"Subject: binary\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=cut\r\n\r\n"
        b"--cut\r\nContent-Type: text/plain\r\n\r\nhere it is\r\n"
        b"--cut\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    )
    text += payload + b"\r\n--cut--\r\n"
    server, client = make()
    client.say_lines("MAIL FROM:<a@client.example> BODY=BINARYMIME", ENVELOPE[1])
    assert client.say(bdat(text[:300]) + bdat(text[300:], is_last=True)).count(b"250 ") == 2
    content = server.receiver.messages[0].content
    assert content == text
    assert binary_octets(content, scan(content), (2,)) == payload
    assert summarise(content).size_octets == len(text)
