"""Content-Type and Content-Disposition (RFC 2045 5.1, RFC 2183, RFC 2231)."""

from __future__ import annotations

import pytest

from mailsrv.message import scan
from mailsrv.message.parameters import decode_extended, parse_content_type, parse_disposition, parse_languages


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"text/plain", ()),
        (b" TEXT / Plain ;Charset = UTF-8 ", ((b"charset", b"UTF-8"),)),
        (b'text/plain; a="b;c"; d=e', ((b"a", b"b;c"), (b"d", b"e"))),
        (b'text/plain; a="\\"b\\\\"', ((b"a", b'"b\\'),)),
        (b"text/plain (c; x=y) ; a=b (d)", ((b"a", b"b"),)),
        (b'text/plain; a="(no comment)"', ((b"a", b"(no comment)"),)),
        (b"text/plain; a=b c d.txt; e=f", ((b"a", b"b c d.txt"), (b"e", b"f"))),
        (b'text/plain; a="never closed; e=f', ((b"a", b"never closed"), (b"e", b"f"))),
        (b"text/plain; a; ; b=; =c; d=e", ((b"b", b""), (b"d", b"e"))),
        (b'text/plain; a="b" junk; c=d', ((b"a", b"b"), (b"c", b"d"))),
        (b"text/plain a=b; c=d", ((b"c", b"d"),)),
        (b"text/plain; a*0=b; a*1=c", ((b"a", b"bc"),)),
        (b"text/plain; x=y; a*1=c; a*0=b; z=z", ((b"x", b"y"), (b"a", b"bc"), (b"z", b"z"))),
        (b"text/plain; a*0*=utf-8'en'%C3; a*1*=%BC; a*2=\" x%\"", ((b"a*", b"utf-8'en'%C3%BC%20x%25"),)),
        (b"text/plain; a*0=b; a*1*=%41", ((b"a*", b"''b%41"),)),
        (b"text/plain; a*=utf-8''%41; a=B", ((b"a*", b"utf-8''%41"), (b"a", b"B"))),
        (b"text/plain; a*0=b; a*0=evil", ((b"a", b"b"),)),
    ],
)
def test_parameters(body, expected):
    found = parse_content_type(body)
    assert found is not None
    assert (found.media_type, found.subtype, found.parameters) == (b"text", b"plain", expected)


@pytest.mark.parametrize("body", [b"", b"text", b"/plain", b"text/", b";a=b", b"(x)", b"\xff \0"])
def test_what_is_no_type(body):
    assert parse_content_type(body) is None


def test_extended_values():
    assert decode_extended(b"utf-8'en'%C3%BCber%20uns") == "über uns"
    assert decode_extended(b"iso-8859-1''%FCber") == "über"
    assert decode_extended(b"x-nowhere''%FC") == "ü"
    assert decode_extended(b"no form") == "no form"
    assert decode_extended(b"utf-8''%C3%2") == "\ufffd%2"


@pytest.mark.parametrize(
    "parameter",
    [b"boundary*=us-ascii''%61b", b"boundary*0*=us-ascii'en'%61; boundary*1=b", b"boundary*0=a; boundary*1=b"],
)
def test_a_boundary_in_the_extended_form_divides(parameter):
    message = b"Content-Type: multipart/mixed; " + parameter + b"\r\n\r\n--ab\r\n\r\nx\r\n--ab--\r\n"
    assert [part.content_type.media_type for part in scan(message).parts] == [b"multipart", b"text"]


@pytest.mark.parametrize("rest", [b" format=flowed", b", x=y", b",utf-7", b" ; a=b", b"\r\n\tname=x"])
def test_what_follows_a_character_set_without_a_semicolon_is_not_part_of_its_name(rest):
    kind = parse_content_type(b"text/plain; charset=utf-8" + rest)
    assert kind is not None
    assert kind.parameter(b"charset") == b"utf-8"


def test_a_plain_parameter_goes_before_its_extended_form():
    kind = parse_content_type(b"text/plain; charset*=us-ascii''utf-7; charset=utf-8")
    assert kind is not None
    assert kind.parameter(b"charset") == b"utf-8"
    assert kind.parameter(b"name") is None


def test_dispositions_and_languages():
    found = parse_disposition(b" Attachment; FileName=x.txt")
    assert found is not None
    assert (found.value, found.parameters) == (b"attachment", ((b"filename", b"x.txt"),))
    assert parse_disposition(b" ; filename=x") is None
    assert parse_languages(b"de (x), ,en") == [b"de", b"en"]


def test_r_mime_2_every_file_name_is_told():
    message = (
        b'Content-Type: text/plain; name="=?utf-8?q?v=C3=BC.exe?="; name=two.exe\r\n'
        b"Content-Disposition: attachment; filename=one.txt; filename*=utf-8''th%72ee.exe; filename=four.exe\r\n\r\n"
    )
    assert scan(message).root.file_names() == ("one.txt", "three.exe", "four.exe", "vü.exe", "two.exe")
