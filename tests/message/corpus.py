"""A generator of mail as people and programs send it; the same messages for the same seed.

``messages(count, seed)`` gives well-formed messages only: nested multiparts, text in many
character sets and encodings, RFC 2047 and 2231 names, attachments, attached messages, mailing
list and transport header fields. Used by the tests and by ``benchmarks/message_scan.py``.
"""

from __future__ import annotations

import base64
import quopri
import random
from collections.abc import Iterator
from urllib.parse import quote

_WORDS = (
    *("minutes", "of", "the", "meeting", "report", "budget", "draft", "please", "find", "attached", "regards"),
    *("hello", "team", "release", "plan", "schedule", "invoice", "question", "answer", "holiday", "update"),
    *("list", "review", "order", "garden", "train", "coffee", "number"),
)
_NAMES = ("Ann Lee", "Bob Stone", "Jürgen Groß", "Zoë Ünal", "山田太郎", "Олег Котов", "O'Neil, Pat", 'The "Big" One')
_TEXTS = {
    "us-ascii": "plain words only",
    "utf-8": "Grüße aus Köln, 日本語, Ελληνικά, ☃",
    "iso-8859-1": "déjà vu à la carte",
    "windows-1251": "съешь же ещё этих мягких булок",
    "iso-2022-jp": "日本語のテキスト",
    "koi8-r": "Привет мир",
}
_FILES = (
    "report.pdf",
    "Fußnote.docx",
    "日本.txt",
    'quo"te.bin',
    "photo.jpeg",
    "a file with a very long name " * 4 + ".zip",
)


class Corpus:
    """One random stream of messages."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def message(self, depth: int = 3, size: int | None = None) -> bytes:
        """A message of about ``size`` octets (a usual one if None)."""
        size = size if size is not None else self._random.choice((400, 1500, 4000, 9000, 30_000))
        return self._header() + self._entity(depth, size, is_root=True)

    def _header(self) -> bytes:
        pick = self._random
        fields = [
            f"Received: from mx{hop}.example.test (mx{hop}.example.test [192.0.2.{hop}])\r\n"
            f"\tby mail.example.test with ESMTPS id {pick.getrandbits(60):x}\r\n"
            f"\tfor <ann@example.test>; {self._date()}"
            for hop in range(pick.randint(0, 4))
        ]
        fields.append(f"Date: {self._date()}")
        fields.append("From: " + self._address())
        fields.append("To: " + ",\r\n ".join(self._address() for _ in range(pick.randint(1, 5))))
        if pick.random() < 0.3:
            fields.append("Cc: " + self._address() + ", Friends: " + self._address() + ", x@y.test;")
        if pick.random() < 0.2:
            fields.append("Reply-To: <list@example.test>")
        fields.append("Subject: " + self._text_field(" ".join(pick.choices(_WORDS, k=6))))
        fields.append(f"Message-ID: <{pick.getrandbits(80):x}@example.test>")
        if pick.random() < 0.4:
            fields.append("References: " + "\r\n ".join(f"<{pick.getrandbits(64):x}@x.test>" for _ in range(4)))
            fields.append(f"In-Reply-To: <{pick.getrandbits(64):x}@x.test>")
        fields += [f"X-Field-{number}: {' '.join(pick.choices(_WORDS, k=5))}" for number in range(pick.randint(0, 12))]
        fields.append("MIME-Version: 1.0")
        return ("\r\n".join(fields) + "\r\n").encode("utf-8")

    def _date(self) -> str:
        pick = self._random
        day, month = pick.randint(1, 28), pick.choice(("Jan", "Feb", "Jul", "Dec"))
        zone = pick.choice(("+0000", "-0700", "+0530", "GMT", "EST", "+0200 (CEST)"))
        return f"{day} {month} {pick.randint(1999, 2026)} {pick.randint(0, 23):02d}:{pick.randint(0, 59):02d}:17 {zone}"

    def _address(self) -> str:
        pick = self._random
        address = f"{pick.choice(_WORDS)}.{pick.choice(_WORDS)}@{pick.choice(('example.test', 'a.example.org'))}"
        name = pick.choice((None, *_NAMES))
        if name is None:
            return pick.choice((address, f"<{address}>", f"{address} (said so)"))
        if not name.isascii():
            return f"{_encoded_word(name, pick.random() < 0.5)} <{address}>"
        quoted = name.replace('"', '\\"')
        return f'"{quoted}" <{address}>'

    def _text_field(self, text: str) -> str:
        if self._random.random() < 0.4:
            return text + " " + _encoded_word("Grüße ☃", self._random.random() < 0.5) + " end"
        return text

    def _entity(self, depth: int, size: int, *, is_root: bool = False) -> bytes:
        pick = self._random
        kind = pick.random()
        if depth and size > 1000 and kind < (0.6 if is_root else 0.35):
            return self._multipart(depth - 1, size)
        if depth and not is_root and kind < 0.45:
            return b"Content-Type: message/rfc822\r\n\r\n" + self.message(depth - 1, size)
        if kind < 0.8 or is_root:
            return self._text(size)
        return self._attachment(size)

    def _multipart(self, depth: int, size: int) -> bytes:
        pick = self._random
        boundary = f"=_{pick.getrandbits(64):x}".encode()
        subtype = pick.choice((b"mixed", b"alternative", b"related", b"report; report-type=x"))
        count = pick.randint(1, 4)
        pieces = [b'Content-Type: multipart/%b;\r\n boundary="%b"\r\n\r\n' % (subtype, boundary)]
        if pick.random() < 0.5:
            pieces.append(b"This is a multi-part message.\r\n")
        for _ in range(count):
            pieces.append(b"--%b\r\n" % boundary + self._entity(depth, size // count))
            pieces.append(b"\r\n")
        pieces.append(b"--%b--\r\n" % boundary)
        if pick.random() < 0.3:
            pieces.append(b"epilogue\r\n")
        return b"".join(pieces)

    def _text(self, size: int) -> bytes:
        pick = self._random
        charset = pick.choice(list(_TEXTS))
        lines: list[str] = []
        while sum(map(len, lines)) < size:
            lines.append(" ".join(pick.choices(_WORDS, k=pick.randint(0, 10))) + " " + _TEXTS[charset])
        octets = "\r\n".join([*lines, ""]).encode(charset, "replace")
        encoding = pick.choice(
            ("quoted-printable", "base64") if charset != "us-ascii" else ("7bit", "quoted-printable")
        )
        header = f"Content-Type: text/{pick.choice(('plain', 'html'))}; charset={charset}\r\n"
        if pick.random() < 0.3:
            header += "Content-Language: en, de\r\nContent-ID: <x@y>\r\nContent-Disposition: inline\r\n"
        return f"{header}Content-Transfer-Encoding: {encoding}\r\n\r\n".encode() + _encoded(octets, encoding)

    def _attachment(self, size: int) -> bytes:
        pick = self._random
        name = pick.choice(_FILES)
        disposition = _file_parameter("filename", name)
        octets = pick.randbytes(size * 3 // 4)
        return (
            b"Content-Type: application/octet-stream\r\n"
            b"Content-Description: a file\r\n"
            b"Content-Disposition: attachment;\r\n " + disposition + b"\r\n"
            b"Content-Transfer-Encoding: base64\r\n\r\n" + _encoded(octets, "base64")
        )


def _encoded_word(text: str, is_base64: bool) -> str:
    if is_base64:
        return f"=?utf-8?B?{base64.b64encode(text.encode()).decode()}?="
    return "=?utf-8?Q?" + "".join(f"={octet:02X}" for octet in text.encode()) + "?="


def _encoded(octets: bytes, encoding: str) -> bytes:
    if encoding == "base64":
        return base64.encodebytes(octets).replace(b"\n", b"\r\n")
    if encoding == "quoted-printable":
        return quopri.encodestring(octets.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
    return octets


def _file_parameter(parameter: str, name: str) -> bytes:
    if name.isascii() and len(name) < 60:
        return f'{parameter}="{name}"'.replace('quo"te', 'quo\\"te').encode()
    encoded = "utf-8''" + quote(name, safe="")
    pieces = [encoded[at : at + 50] for at in range(0, len(encoded), 50)]
    if len(pieces) == 1:
        return f"{parameter}*={encoded}".encode()
    # A piece must not end amid an escape: cut there is legal for continuations, but not every reader takes it.
    return ";\r\n ".join(f"{parameter}*{number}*={piece}" for number, piece in enumerate(pieces)).encode()


def messages(count: int, seed: int = 1) -> Iterator[bytes]:
    """``count`` messages."""
    corpus = Corpus(seed)
    for _ in range(count):
        yield corpus.message()
