"""Command lines, parsed one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.address import Address
from mailsrv.interfaces.envelope import BodyType, Notify, RecipientParameters, ReturnContent
from mailsrv.smtp.commands import (
    COMMANDS,
    Auth,
    Bdat,
    CommandRefused,
    Helo,
    Introduction,
    Mail,
    Plain,
    Query,
    Rcpt,
    parse_command,
)
from mailsrv.smtp.parameters import By, MailArguments


def arguments(**given: object) -> MailArguments:
    names = {"is_smtputf8": "SMTPUTF8", "return_content": "RET", "envelope_id": "ENVID", "requires_tls": "REQUIRETLS"}
    names |= {"priority": "MT-PRIORITY", "hold_seconds": "HOLDFOR", "hold_until": "HOLDUNTIL"}
    keywords = frozenset(names.get(name, name.upper()) for name in given)
    return MailArguments(keywords, **given)  # type: ignore[arg-type]


A = Address("a", "b.c")
GOOD = {
    b"EHLO client.example": Helo("client.example", True),
    b"helo [IPv6:2001:db8::1]": Helo("[IPv6:2001:db8::1]", False),
    b"EHLO DESKTOP_1": Helo("DESKTOP_1", True),
    b"LHLO x ": Helo("x", True),
    b"MAIL FROM:<>": Mail(None),
    b"mail from:<a@B.C>": Mail(Address("a", "b.c")),
    b"MAIL FROM: <a@b.c>": Mail(Address("a", "b.c")),
    b"MAIL FROM:<a@b.c> SIZE=0 BODY=7bit": Mail(A, arguments(size=0, body=BodyType.SEVEN_BIT)),
    b"MAIL FROM:<a@b.c> body=8BITMIME  size=12": Mail(A, arguments(size=12, body=BodyType.EIGHT_BIT)),
    b"MAIL FROM:<a@b.c> body=BinaryMime": Mail(A, arguments(body=BodyType.BINARY)),
    b"MAIL FROM:<a@b.c> AUTH=<>": Mail(A, MailArguments(frozenset({"AUTH"}))),
    "MAIL FROM:<ä@b.c> SMTPUTF8".encode(): Mail(Address("ä", "b.c"), arguments(is_smtputf8=True)),
    b"MAIL FROM:<a@b.c> RET=hdrs ENVID=a+2Bb": Mail(
        A, arguments(return_content=ReturnContent.HEADERS, envelope_id="a+b")
    ),
    b"MAIL FROM:<a@b.c> REQUIRETLS MT-PRIORITY=-9": Mail(A, arguments(requires_tls=True, priority=-9)),
    b"MAIL FROM:<a@b.c> HOLDFOR=60": Mail(A, arguments(hold_seconds=60)),
    b"MAIL FROM:<a@b.c> HOLDUNTIL=1970-01-01T02:00:01+02:00": Mail(A, arguments(hold_until=1)),
    b"MAIL FROM:<a@b.c> BY=+120;RT": Mail(A, arguments(by=By(120, True, True))),
    b"MAIL FROM:<a@b.c> BY=-5;n": Mail(A, arguments(by=By(-5, False, False))),
    b"MAIL FROM:<@x,@y:a@b.c>": Mail(A),
    b'RCPT TO:<"a>b"@b.c> NOTIFY=NEVER': Rcpt(Address("a>b", "b.c"), RecipientParameters(Notify.NEVER)),
    b"RCPT TO:<a@b.c> notify=success,DELAY ORCPT=RFC822;a+2Bx@b.c": Rcpt(
        A, RecipientParameters(Notify.SUCCESS | Notify.DELAY, "rfc822;a+x@b.c")
    ),
    b"RCPT TO:<a@b.c> ORCPT=utf-8;j\\x{E4}rv@b.c": Rcpt(A, RecipientParameters(original_recipient="utf-8;järv@b.c")),
    "RCPT TO:<a@b.c> ORCPT=utf-8;järv@b.c".encode(): Rcpt(
        A, RecipientParameters(original_recipient="utf-8;järv@b.c"), False
    ),
    b"RCPT TO:<a@b.c>": Rcpt(Address("a", "b.c")),
    "RCPT TO:<a@ä.c>".encode(): Rcpt(Address("a", "ä.c"), is_ascii=False),
    b'RCPT TO:<"a b"@b.c>': Rcpt(Address("a b", "b.c")),
    b"DATA": Plain("DATA"),
    b"data ": Plain("DATA"),
    b"NOOP x y z": Plain("NOOP"),
    b"AUTH plain": Auth("PLAIN"),
    b"AUTH PLAIN =": Auth("PLAIN", b"="),
    b"BDAT 10": Bdat(10),
    b"bdat 0 last": Bdat(0, True),
    b"VRFY a@b.c": Query(A, False),
    b"VRFY <a@b.c>": Query(A, False),
    b"VRFY a": Query(None, False),
    b"VRFY postmaster": Query(Address("postmaster", ""), False),
    "EXPN ä@b.c smtputf8".encode(): Query(Address("ä", "b.c"), True, True, False),
    b"XCLIENT ADDR=192.0.2.1 NAME=x": Introduction("ADDR=192.0.2.1 NAME=x"),
}
BAD = {
    b"": 500,
    b" EHLO x": 500,
    b"EHLO": 501,
    b"EHLO a b": 501,
    b"EHLO \x00": 500,
    b"EHLO (x)": 501,
    b"EHLO " + b"x" * 256: 501,
    b"EHLO\tx": 500,
    b"MAIL TO:<a@b>": 501,
    b"MAIL FROM:<a@b> ": None,
    b"MAIL FROM:<a@b>x": 501,
    b"MAIL FROM:<a@b> SIZE": 501,
    b"MAIL FROM:<a@b> SIZE=": 501,
    b"MAIL FROM:<a@b> SIZE=-1": 501,
    b"MAIL FROM:<a@b> SIZE=" + b"9" * 21: 501,
    b"MAIL FROM:<a@b> AUTH=+zz": 501,
    b"MAIL FROM:<a@b> X=1=2": 501,
    b"MAIL FROM:<a@b> FOO=1": 555,
    b"MAIL FROM:<a@b> RET=ALL": 501,
    b"MAIL FROM:<a@b> RET=FULL RET=FULL": 501,
    b"MAIL FROM:<a@b> ENVID=" + b"x" * 101: 501,
    b"MAIL FROM:<a@b> ENVID=a+0Ab": 501,
    b"MAIL FROM:<a@b> ENVID=a+2b": 501,
    b"MAIL FROM:<a@b> ENVID": 501,
    b"MAIL FROM:<a@b> REQUIRETLS=YES": 501,
    b"MAIL FROM:<a@b> MT-PRIORITY=10": 501,
    b"MAIL FROM:<a@b> MT-PRIORITY=+1": 501,
    b"MAIL FROM:<a@b> HOLDFOR=0": 501,
    b"MAIL FROM:<a@b> HOLDFOR=1234567890": 501,
    b"MAIL FROM:<a@b> HOLDUNTIL=2026-13-01T00:00:00Z": 501,
    b"MAIL FROM:<a@b> HOLDUNTIL=0001-01-01T00:00:00+23:59": None,
    b"MAIL FROM:<a@b> HOLDUNTIL=2026-12-01": 501,
    b"MAIL FROM:<a@b> HOLDFOR=1 HOLDUNTIL=2026-12-01T00:00:00Z": 501,
    b"MAIL FROM:<a@b> BY=0;R": 501,
    b"MAIL FROM:<a@b> BY=-1;RT": 501,
    b"MAIL FROM:<a@b> BY=60": 501,
    b"MAIL FROM:<a@b> BY=60;X": 501,
    b"MAIL FROM:<a@b> BODY=BINARY": 501,
    b"MAIL FROM:<Postmaster>": 501,
    b"RCPT TO:<a@b> FOO": 555,
    b"RCPT TO:<a@b> ORCPT=a@b": 501,
    b"RCPT TO:<a@b> ORCPT=rfc822;": 501,
    b"RCPT TO:<a@b> ORCPT=rfc822;a+0D+0Ab": 501,
    b"RCPT TO:<a@b> ORCPT=;a@b": 501,
    b"RCPT TO:<a@b> ORCPT=rfc822;" + b"x" * 500: 501,
    b"RCPT TO:<a@b> ORCPT=utf-8;a+40b": 501,
    b"RCPT TO:<a@b> ORCPT=utf-8;\\x{D800}": 501,
    b"RCPT TO:<a@b> ORCPT=utf-8;\\x{41}": 501,
    b"RCPT TO:<a@b> ORCPT=utf-8;\\x{0A}": 501,
    b"RCPT TO:<a@b> ORCPT=utf-8;\\x{110000}": 501,
    b"RCPT TO:<a@b> ORCPT=utf-8;\\x{202E}": 501,
    b"RCPT TO:<a@b> NOTIFY": 501,
    b"RCPT TO:<a@b> NOTIFY=NEVER,SUCCESS": 501,
    b"RCPT TO:<a@b> NOTIFY=SUCCESS,SUCCESS": 501,
    b"RCPT TO:<a@b> NOTIFY=SUCCESS,": 501,
    b"RCPT TO:<a@b>,<c@d>": 501,
    b"\xff": 500,
    b"AUTH": 501,
    b"AUTH PL*IN": 501,
    b"BDAT": 501,
    b"BDAT 1 FIRST": 501,
    b"BDAT -1 LAST": 501,
    b"BDAT 1  LAST": 501,
    b"VRFY": 501,
    b"EXPN SMTPUTF8": None,
    b"QUIT x": 501,
    b"GET / HTTP/1.0": 554,
}


@pytest.mark.parametrize(("line", "command"), GOOD.items())
def test_commands_are_understood(line, command):
    assert parse_command(line)[1] == command


@pytest.mark.parametrize(("line", "code"), BAD.items())
def test_broken_lines_know_their_reply(line, code):
    if code is None:
        assert parse_command(line)
        return
    with pytest.raises(CommandRefused) as refused:
        parse_command(line)
    assert refused.value.reply.code == code


def test_a_password_is_in_no_repr():
    _rule, command = parse_command(b"AUTH PLAIN c2VjcmV0")
    assert "c2VjcmV0" not in repr(command)


@given(st.sampled_from([*COMMANDS, ""]), st.text(max_size=40) | st.binary(max_size=40))
def test_no_other_error_than_the_declared_one(verb, rest):
    line = f"{verb} {rest}".encode("utf-8", "surrogateescape") if isinstance(rest, str) else verb.encode() + rest
    try:
        parse_command(line)
    except CommandRefused as refusal:
        reply = refusal.reply
    else:
        return
    assert 500 <= reply.code < 600
    assert reply.octets.endswith(b"\r\n")
