"""What a message needs against what the host offers."""

import email

import pytest

from mailsrv.interfaces.envelope import BodyType, Notify, ReturnContent
from mailsrv.interfaces.queue import AttemptProblem, QueuedRecipient, Taken
from mailsrv.relay.settings import LongLines
from mailsrv.testing.next_hop import EVERYTHING
from tests.relay.relay_harness import MESSAGE, MemoryContent, World, address, host, make_world

EIGHT_BIT = b"From: a@example.test\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
UTF8_HEADER = b"From: a@example.test\r\nSubject: Gr\xc3\xbc\xc3\x9fe\r\n\r\ntext\r\n"
BINARY = b"From: a@example.test\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\n\r\xff"
SIGNED = (
    b"From: a@example.test\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n"
    b"Gr\xc3\xbc\xc3\x9fe\r\n--b\r\nContent-Type: application/pgp-signature\r\n\r\nx\r\n--b--\r\n"
)


def send(world: World, content: bytes | MemoryContent = MESSAGE, *recipients: str, **changes):
    return world.send("mx:example.net", *(recipients or ("bob@example.net",)), entry=world.entry(content, **changes))


def without(*keywords: str) -> dict[str, str]:
    return {word: value for word, value in EVERYTHING.items() if word not in keywords}


def test_a_message_over_the_hosts_size_is_not_offered():
    world = make_world()
    host(world).keywords["SIZE"] = "20"
    outcome = send(world)
    assert (str(outcome.status), outcome.problem) == ("5.3.4", AttemptProblem.MESSAGE)
    assert b"MAIL" not in host(world).conversations[0].transcript


@pytest.mark.parametrize("declared", [BodyType.SEVEN_BIT, BodyType.EIGHT_BIT])
def test_eight_bit_is_announced_where_it_is_offered(declared):
    world = make_world()
    send(world, EIGHT_BIT, body=declared)
    assert "BODY=8BITMIME" in host(world).messages[0].mail_parameters
    assert host(world).messages[0].content == EIGHT_BIT


def test_eight_bit_is_converted_where_it_is_not():
    world = make_world()
    host(world).keywords = without("8BITMIME", "SMTPUTF8", "BINARYMIME")
    assert isinstance(send(world, EIGHT_BIT, body=BodyType.EIGHT_BIT), Taken)
    message = host(world).messages[0]
    assert b"Gr=C3=BC=C3=9Fe\r\n" in message.content
    assert b"Content-Transfer-Encoding: quoted-printable" in message.content
    assert "BODY" not in message.mail_parameters


def test_what_is_signed_is_not_converted():
    world = make_world()
    host(world).keywords = without("8BITMIME", "SMTPUTF8", "BINARYMIME")
    outcome = send(world, SIGNED, body=BodyType.EIGHT_BIT)
    assert (str(outcome.status), outcome.problem) == ("5.6.3", AttemptProblem.MESSAGE)
    assert host(world).messages == []


def test_binary_goes_as_it_is_where_it_may():
    world = make_world()
    send(world, BINARY, body=BodyType.BINARY)
    assert host(world).messages[0].content == BINARY
    assert "BODY=BINARYMIME" in host(world).messages[0].mail_parameters


@pytest.mark.parametrize("missing", [("BINARYMIME",), ("CHUNKING",), ("BINARYMIME", "CHUNKING", "8BITMIME")])
def test_binary_becomes_base64_elsewhere(missing):
    world = make_world()
    host(world).keywords = without(*missing)
    send(world, BINARY, body=BodyType.BINARY)
    content = host(world).messages[0].content
    assert content.isascii()
    assert b"Content-Transfer-Encoding: base64\r\n\r\nAAoN/w==\r\n" in content


LONG = b"From: a@example.test\r\nContent-Type: text/plain\r\n\r\n" + b"word " * 500 + b"\r\nend\r\n"


def test_r_smtp_9_a_long_line_is_encoded():
    world = make_world()
    host(world).keywords = without("BINARYMIME")
    assert isinstance(send(world, LONG), Taken)
    message = host(world).messages[0]
    assert max(map(len, message.content.split(b"\r\n"))) <= 998
    assert b"Content-Transfer-Encoding: quoted-printable" in message.content
    assert email.message_from_bytes(message.content).get_payload(decode=True) == b"word " * 500 + b"\r\nend\r\n"


@pytest.mark.parametrize("before", [0, 60_000])
def test_a_long_line_goes_as_it_is_where_binary_content_may(before):
    world = make_world()
    octets = MESSAGE + b"short\r\n" * before + LONG
    send(world, MemoryContent(octets, is_large=before > 0))
    assert host(world).messages[0].content == octets
    assert "BODY=BINARYMIME" in host(world).messages[0].mail_parameters


def test_a_long_line_that_may_not_be_touched_comes_back():
    world = make_world()
    host(world).keywords = without("BINARYMIME")
    outcome = send(world, SIGNED.replace(b"Gr\xc3\xbc\xc3\x9fe", b"x" * 999))
    assert (str(outcome.status), outcome.problem) == ("5.6.3", AttemptProblem.MESSAGE)


def test_long_lines_can_be_kept():
    world = make_world(long_lines=LongLines.KEEP)
    host(world).keywords = without("BINARYMIME")
    send(world, LONG)
    assert host(world).messages[0].content == LONG


@pytest.mark.parametrize(("account", "is_signed"), [("ann@example.test", True), ("", False)])
def test_what_users_sent_is_signed_again_after_a_conversion(account, is_signed):
    async def sign(octets: bytes) -> bytes:
        return b"DKIM-Signature: of %d octets\r\n" % len(octets) + octets

    world = make_world(sign=sign)
    host(world).keywords = without("BINARYMIME")
    send(world, LONG, account=account)
    message = host(world).messages[0].content
    assert message.startswith(b"DKIM-Signature: of %d octets\r\n" % (len(message) - 32)) is is_signed
    send(world, MESSAGE, account=account)
    assert host(world).messages[1].content == MESSAGE


def test_smtputf8_is_said_where_it_is_needed_and_offered():
    world = make_world()
    send(world, UTF8_HEADER, is_smtputf8=True)
    assert "SMTPUTF8" in host(world).messages[0].mail_parameters
    assert host(world).messages[0].content == UTF8_HEADER


def test_without_smtputf8_an_utf8_header_cannot_go():
    world = make_world()
    host(world).keywords = without("SMTPUTF8")
    outcome = send(world, UTF8_HEADER, is_smtputf8=True)
    assert (str(outcome.status), outcome.problem) == ("5.6.7", AttemptProblem.MESSAGE)


def test_without_smtputf8_what_is_ascii_goes_all_the_same():
    world = make_world()
    host(world).keywords = without("SMTPUTF8")
    assert isinstance(send(world, is_smtputf8=True), Taken)


def test_only_the_recipient_that_needs_smtputf8_is_refused():
    world = make_world()
    host(world).keywords = without("SMTPUTF8")
    first, second = send(world, MESSAGE, "jürgen@example.net", "bob@example.net", is_smtputf8=True)
    assert (str(first.status), first.problem) == ("5.6.7", AttemptProblem.RECIPIENT)
    assert isinstance(second, Taken)


def test_a_sender_that_needs_smtputf8_stops_the_message():
    world = make_world()
    host(world).keywords = without("SMTPUTF8")
    outcome = send(world, reverse_path=address("jürgen@example.test"))
    assert str(outcome.status) == "5.6.7"


def test_dsn_parameters_travel_in_xtext():
    world = make_world()
    recipient = QueuedRecipient(
        1, address("bob@example.net"), Notify.SUCCESS | Notify.DELAY, "rfc822;a+b=c@example.org"
    )
    entry = world.entry(return_content=ReturnContent.HEADERS, envelope_id="QQ314159 +=")
    outcome = world.send("mx:example.net", recipient, entry=entry)
    assert outcome.offers_dsn
    message = host(world).messages[0]
    assert "RET=HDRS ENVID=QQ314159+20+2B+3D" in message.mail_parameters
    assert message.recipient_parameters == ("NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb+3Dc@example.org",)


def test_a_host_without_dsn_is_told_nothing_of_it():
    world = make_world()
    host(world).keywords = without("DSN")
    recipient = QueuedRecipient(1, address("bob@example.net"), Notify.NEVER, "rfc822;x@example.org")
    outcome = world.send("mx:example.net", recipient, entry=world.entry(envelope_id="x"))
    assert not outcome.offers_dsn
    assert host(world).messages[0].recipient_parameters == ("",)


def test_priority_is_told_where_it_is_offered():
    world = make_world()
    host(world).keywords["MT-PRIORITY"] = ""
    send(world, priority=-3)
    assert "MT-PRIORITY=-3" in host(world).messages[0].mail_parameters


@pytest.mark.parametrize("keywords", [EVERYTHING, {}, {"PIPELINING": ""}])
def test_a_large_message_is_read_in_blocks(keywords):
    world = make_world()
    host(world).keywords = dict(keywords)
    octets = MESSAGE + b".line with a dot\r\n" * 60_000
    content = MemoryContent(octets, is_large=True)
    assert isinstance(world.send("mx:example.net", "bob@example.net", entry=world.entry(content)), Taken)
    assert host(world).messages[0].content == octets
    assert max(content.reads) == 65536
    assert content.is_closed
