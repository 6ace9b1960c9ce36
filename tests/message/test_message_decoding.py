"""What SEARCH and filters see of header fields and bodies (RFC 2047, RFC 9051 6.4.4)."""

from __future__ import annotations

import pytest

from mailsrv.message import (
    MessageLimits,
    TextSearch,
    body_text,
    decode_body,
    decode_header,
    fold_text,
    iterate_text,
    scan,
)
from mailsrv.message.charsets import codec_name, decode_octets


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b" plain words\r\n here", "plain words here"),
        (b"=?utf-8?Q?J=C3=BCrgen_G?= x", "Jürgen G x"),
        (b"a =?utf-8?b?w7w=?= b", "a ü b"),
        (b"=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        (b"=?utf-8?q?a?=\r\n\t=?iso-8859-1?q?=FC?= c", "aü c"),
        (b"=?utf-8?b?w7w=?=x=?utf-8?q?b?=", "üxb"),
        (b"=?utf-8?Q?=C3?= =?utf-8?Q?=BC?=", "ü"),
        (b"=?utf-8*de?q?a?=", "a"),
        (b"=?x-nowhere?q?=FC?=", "ü"),
        (b"=?utf-8?q?=FF?=", "\ufffd"),
        (b"=?utf-8?b?w7?=", "\ufffd"),
        (b"=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
        (b"=?utf-8?q?never closed", "=?utf-8?q?never closed"),
        (b"=?utf-8?q?with space?=", "with space"),
        (b"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本"),
        ("Grüße".encode(), "Grüße"),
        ("Grüße".encode("latin-1"), "Grüße"),
        (b"", ""),
    ],
)
def test_header_text(body, expected):
    assert decode_header(body) == expected


@pytest.mark.parametrize(
    "charset", [b"zlib", b"hex", b"idna", b"punycode", b"unicode_escape", b"rot13", b"\xff", b"x" * 99]
)
def test_only_character_sets_are_used(charset):
    assert codec_name(charset) is None
    assert decode_octets(b"\\x41\xc3\xbc", charset) == "\\x41ü"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"soft=  \r\nline=\t\r\nend", b"softlineend"),
        (b"a  \r\nb \t\nc=20 \r\n", b"a\r\nb\nc \r\n"),
        (b"a b =3D\tc \t", b"a b =\tc"),
        (b" \r\n\t\r\n", b"\r\n\r\n"),
    ],
)
def test_white_space_added_to_quoted_printable_on_the_way_is_taken_out_again(body, expected):
    assert decode_body(body, b"quoted-printable") == expected


def test_broken_base64_still_gives_what_it_holds():
    assert decode_body(b"QUJ\r\nDRA", b"base64") == b"ABCD"
    assert decode_body(b"QUJDR", b"base64") == b"ABC"
    assert decode_body(b"!QU JD!", b"base64") == b"ABC"
    assert decode_body(b"x", b"x-uuencode") is None


MESSAGE = (
    b"Subject: =?utf-8?q?STRA=C3=9FE?= nach\r\n K\xc3\xb6ln\r\nX-Empty:\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    b"Gr=FC=DFe und vie=\r\nles mehr\r\n"
    b"--b\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\nPGI+Qm9sZDwvYj4=\r\n"
    b"--b\r\nContent-Type: text/plain; charset=utf-7\r\n\r\n+APw-ber\r\n"
    b"--b\r\nContent-Type: application/x; name=hidden\r\nContent-Description: =?utf-8?q?pl=C3=A4ne?=\r\n"
    b"Content-Disposition: attachment; filename*0*=iso-8859-1''f%FCr; filename*1=-uns.pdf\r\n\r\ninvisible\r\n"
    b"--b\r\nContent-Type: message/delivery-status\r\n\r\nFinal-Recipient: rfc822; gone@example.test\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: attached words\r\n\r\nin the attachment\r\n"
    b"--b--\r\n"
)


def test_text_of_the_parts():
    assert list(iterate_text(MESSAGE, scan(MESSAGE))) == [
        "Grüße und vieles mehr",
        "<b>Bold</b>",
        "über",
        "in the attachment",
    ]


@pytest.mark.parametrize(
    ("wanted", "is_in_body", "is_in_text"),
    [
        ("GRÜSSE", True, True),
        ("vieles", True, True),
        ("<B>bold", True, True),
        ("Über", True, True),
        ("attached WORDS", True, True),
        ("in the attachment", True, True),
        ("gone@example", True, True),
        ("name=hidden", False, True),
        ("PLÄNE", False, True),
        ("für-uns.pdf", False, True),
        ("invisible", False, False),
        ("", True, True),
        ("strasse NACH k", False, True),
        ("boundary=b", False, True),
        ("日", False, False),
    ],
)
def test_body_and_text(wanted, is_in_body, is_in_text):
    structure = scan(MESSAGE)
    search = TextSearch(wanted)
    assert search.is_in_body(MESSAGE, structure) is is_in_body
    assert search.is_in_message(MESSAGE, structure) is is_in_text


def test_an_empty_text_is_in_messages_without_any_text():
    picture = b"Content-Type: image/png\r\n\r\nx"
    assert TextSearch("").is_in_body(picture, scan(picture))


@pytest.mark.parametrize("wanted", ["long subject", "long\tsubject", "ÜBER long subject", "lé subject"])
def test_a_field_folded_with_a_tab_is_found_with_a_space(wanted):
    header = "Subject: über long\r\n\tsubject\r\nX-Name: lé\tsubject\r\n\r\n".encode()
    search = TextSearch(wanted)
    assert search.is_in_header(header, b"x-name" if "lé" in wanted else b"subject")
    assert search.is_in_message(header, scan(header))
    assert not search.is_ruled_out(header, with_header=True)


def test_plain_messages_are_ruled_out_without_parsing():
    header = b"Subject: two\r\n words\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    plain = header + b"Gr\xc3\xbc\xc3\x9fe and caf\xc3\xa9\r\n"
    for absent in ("nowhere", "gruessen"):
        assert TextSearch(absent).is_ruled_out(plain, with_header=True)
    for present in ("words", "GR", "sse", "utf-8", "cafe"):
        assert not TextSearch(present).is_ruled_out(plain, with_header=True)
    assert not TextSearch("two words").is_ruled_out(plain, with_header=True)
    assert TextSearch("two Words here").is_ruled_out(plain, with_header=True)
    encoded = plain.replace(b"two", b"=?utf-8?q?t=77o?=")
    assert TextSearch("two").is_ruled_out(encoded, with_header=False)
    assert not TextSearch("two").is_ruled_out(encoded, with_header=True)
    assert TextSearch("three").is_ruled_out(encoded, with_header=True)
    assert TextSearch("two words").is_ruled_out(plain, with_header=False)
    assert not TextSearch("größe").is_ruled_out(plain, with_header=True)
    for hidden in (b"Content-Transfer-Encoding: BASE64", b"Subject: =?utf-8?q?n=6Fwhere?=", b"X: charset = (c)utf-7"):
        assert not TextSearch("nowhere").is_ruled_out(hidden + b"\r\n" + plain, with_header=True)
    latin = plain.replace(b"utf-8", b"iso-8859-1")
    assert not TextSearch("nowhere").is_ruled_out(latin, with_header=True)


def test_names_of_files_are_not_ruled_out():
    header = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    part = header + b"--b\r\nContent-Disposition: attachment; %b\r\n\r\nx\r\n--b--\r\n"
    for name in (
        b"filename==?utf-8?q?pl=61n.txt?=",
        b"filename*=us-ascii''pl%61n.txt",
        b"filename*0=pl; filename*1=an.txt",
    ):
        message = part % name
        search = TextSearch("plan.txt")
        assert not search.is_ruled_out(message, with_header=True)
        assert search.is_in_message(message, scan(message))
        assert not search.is_in_body(message, scan(message))


def test_fields():
    header = MESSAGE[: scan(MESSAGE).root.body_start]
    assert TextSearch("straße nach köln").is_in_header(header, b"subject")
    assert not TextSearch("straße").is_in_header(header, b"to")
    assert TextSearch("").is_in_header(header, b"x-empty")
    assert not TextSearch("").is_in_header(header, b"to")
    assert TextSearch("ﬁne").is_in_text("FINE")
    assert TextSearch("e\u0301").is_in_text("É")


def test_reading_is_bounded():
    octets = b"\r\n" + b"a" * 1_000 + b"needle"
    structure = scan(octets)
    assert TextSearch("needle").is_in_body(octets, structure)
    assert not TextSearch("needle").is_in_body(octets, structure, MessageLimits(search_text_octets=1_000))
    assert body_text(octets, structure.root, 10) == "a" * 10
    assert "".join(iterate_text(octets, structure, MessageLimits(search_text_octets=7))) == "a" * 7


def test_folding_knows_more_than_ascii():
    assert fold_text("ÀÉ") == fold_text("àé")
    assert fold_text("Σς") == fold_text("σσ")
    assert fold_text("Plain") == "plain"
