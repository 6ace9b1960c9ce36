"""Command lines, parsed one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.address import Address
from mailsrv.smtp.commands import COMMANDS, Auth, Bdat, CommandRefused, Helo, Mail, Plain, Rcpt, parse_command

GOOD = {
    b"EHLO client.example": Helo("client.example", True),
    b"helo [IPv6:2001:db8::1]": Helo("[IPv6:2001:db8::1]", False),
    b"EHLO DESKTOP_1": Helo("DESKTOP_1", True),
    b"LHLO x ": Helo("x", True),
    b"MAIL FROM:<>": Mail(None),
    b"mail from:<a@B.C>": Mail(Address("a", "b.c")),
    b"MAIL FROM: <a@b.c>": Mail(Address("a", "b.c")),
    b"MAIL FROM:<a@b.c> SIZE=0 BODY=7bit": Mail(Address("a", "b.c"), 0),
    b"MAIL FROM:<a@b.c> body=8BITMIME  size=12": Mail(Address("a", "b.c"), 12, True),
    b"MAIL FROM:<a@b.c> AUTH=<>": Mail(Address("a", "b.c")),
    "MAIL FROM:<ä@b.c> SMTPUTF8".encode(): Mail(Address("ä", "b.c"), None, False, True),
    b"RCPT TO:<a@b.c>": Rcpt(Address("a", "b.c")),
    "RCPT TO:<a@ä.c>".encode(): Rcpt(Address("a", "ä.c"), False),
    b'RCPT TO:<"a b"@b.c>': Rcpt(Address("a b", "b.c")),
    b"DATA": Plain("DATA"),
    b"data ": Plain("DATA"),
    b"NOOP x y z": Plain("NOOP"),
    b"AUTH plain": Auth("PLAIN"),
    b"AUTH PLAIN =": Auth("PLAIN", b"="),
    b"BDAT 10 LAST": Bdat(10),
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
    b"MAIL FROM:<a@b> RET=HDRS": 555,
    b"MAIL FROM:<Postmaster>": 501,
    b"RCPT TO:<a@b> ORCPT=rfc822;a@b": 555,
    b"RCPT TO:<a@b>,<c@d>": 501,
    b"\xff": 500,
    b"AUTH": 501,
    b"AUTH PL*IN": 501,
    b"BDAT": 501,
    b"BDAT 1 FIRST": 501,
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
