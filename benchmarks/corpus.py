"""Seeded messages in the sizes and shapes of real mail; the same seed gives the same octets."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator

WORDS = (
    "the of and to in is that for it with as was on be at by this have from or one had not but what all were when "
    "we there can an your which their said if do will each about how up out them then she many some so these "
    "would other into has more her two like him see time could no make than first been its who now people my made "
    "over did down only way find use may water long little very after words called just where most know report "
    "invoice meeting schedule project budget review contract delivery server mailbox quarterly forecast Grüße "
    "Müller naïve résumé "
).split()
NAMES = ["Alice Adams", "Bob Brown", "Carla Costa", "Dmitri Dvorak", "Eva Ek", "Farid Faris", "Grete Groß", "Hana Hori"]


def text(rng: random.Random, octets: int) -> str:
    lines = []
    size = 0
    while size < octets:
        line = " ".join(rng.choices(WORDS, k=rng.randint(6, 12)))
        lines.append(line)
        size += len(line) + 2
    return "\r\n".join(lines)


def encoded_word(value: str) -> str:
    if value.isascii():
        return value
    return "=?utf-8?B?" + base64.b64encode(value.encode()).decode() + "?="


def message(rng: random.Random, number: int, size: int | None = None) -> bytes:
    """One message; ``size`` octets or so, else a size like those of real mail (median 3 KiB, some with attachments)."""
    wanted = size if size is not None else min(120_000, int(rng.lognormvariate(7.9, 0.9)))
    sender, recipient = rng.sample(NAMES, 2)
    subject = " ".join(rng.choices(WORDS, k=rng.randint(2, 8))).capitalize()
    clock = f"10:{number // 60 % 60:02}:{number % 60:02}"
    header = [
        "Received: from mx.example.org (mx.example.org [192.0.2.7]) by mail.example.test with ESMTPS id "
        f"{rng.getrandbits(60):015x}; Tue, {rng.randint(1, 28)} Sep 2026 {clock} +0000",
        f"From: {encoded_word(sender)} <{sender.split()[0].lower()}@example.org>",
        f"To: {encoded_word(recipient)} <{recipient.split()[0].lower()}@example.test>",
        f"Subject: {encoded_word(subject)}",
        f"Date: Tue, {rng.randint(1, 28)} Sep 2026 {clock} +0200",
        f"Message-ID: <{number}.{rng.getrandbits(64):x}@example.org>",
        "MIME-Version: 1.0",
    ]
    if number % 5 == 3:
        header.append(f"In-Reply-To: <{number - 1}.{rng.getrandbits(64):x}@example.org>")
        header.append(f"References: <{number - 2}@example.org>\r\n <{number - 1}@example.org>")
    kind = number % 7
    room = max(200, wanted - sum(map(len, header)) - 300)
    if kind in (0, 1, 2, 3):
        header.append("Content-Type: text/plain; charset=utf-8")
        header.append("Content-Transfer-Encoding: 8bit")
        body = text(rng, room)
    else:
        boundary = f"=_{rng.getrandbits(80):x}"
        second = "text/html; charset=utf-8" if kind < 6 else 'application/pdf; name="report.pdf"'
        header.append(f'Content-Type: multipart/{"alternative" if kind < 6 else "mixed"};\r\n boundary="{boundary}"')
        other = text(rng, room // 2)
        if kind == 6:
            encoded = base64.encodebytes(rng.randbytes(room // 3)).decode().replace("\n", "\r\n")
            other = encoded.rstrip("\r\n")
        encoding = "base64" if kind == 6 else "8bit"
        body = (
            f"--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
            f"{text(rng, room // 2)}\r\n--{boundary}\r\nContent-Type: {second}\r\n"
            f"Content-Transfer-Encoding: {encoding}\r\n\r\n{other}\r\n--{boundary}--"
        )
    return ("\r\n".join(header) + "\r\n\r\n" + body + "\r\n").encode()


def messages(count: int, *, seed: int = 1, size: int | None = None) -> Iterator[bytes]:
    rng = random.Random(seed)
    for number in range(count):
        yield message(rng, number, size)
