"""DKIM canonicalization: in pieces of any size as at once, against a reference that reads like RFC 6376 3.4."""

from __future__ import annotations

import itertools
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.mailauth.canonical import BodyCanonicalizer, RelaxedBody, SimpleBody, canonical_field
from mailsrv.mailauth.settings import Canonicalization

RELAXED, SIMPLE = Canonicalization.RELAXED, Canonicalization.SIMPLE
BODIES = st.lists(
    st.sampled_from([b"\r\n", b" ", b"\t", b"a", b"\r", b"\n", b"\r\n\r\n", b" \r\n", b"x y", b"\xff"]), max_size=24
).map(b"".join)


def simple_reference(body: bytes) -> bytes:
    while body.endswith(b"\r\n"):
        body = body[:-2]
    return body + b"\r\n"


def relaxed_reference(body: bytes) -> bytes:
    lines = [re.sub(rb"[ \t]+", b" ", line).removesuffix(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return b"\r\n".join(lines) + b"\r\n" if lines else b""


def canonical(kind: type[BodyCanonicalizer], pieces: list[bytes]) -> bytes:
    out: list[bytes] = []
    body = kind(out.append)
    for piece in pieces:
        body.feed(piece)
    body.finish()
    return b"".join(out)


@given(body=BODIES, cuts=st.lists(st.integers(0, 60), max_size=6))
def test_bodies_are_the_same_in_pieces(body, cuts):
    bounds = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    in_pieces = [body[start:end] for start, end in itertools.pairwise(bounds)]
    octets = [body[index : index + 1] for index in range(len(body))]
    for kind, reference in ((SimpleBody, simple_reference), (RelaxedBody, relaxed_reference)):
        expected = reference(body)
        for pieces in ([body], in_pieces, octets):
            assert canonical(kind, pieces) == expected


@pytest.mark.parametrize(
    ("body", "simple", "relaxed"),
    [
        (b"", b"\r\n", b""),
        (b"\r\n\r\n", b"\r\n", b""),
        (b" \r\n\t\r\n", b" \r\n\t\r\n", b""),
        # RFC 6376 3.4.5
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C \r\nD \t E\r\n", b" C\r\nD E\r\n"),
        (b"no line end", b"no line end\r\n", b"no line end\r\n"),
    ],
)
def test_rfc_6376_3_4_bodies(body, simple, relaxed):
    assert canonical(SimpleBody, [body]) == simple
    assert canonical(RelaxedBody, [body]) == relaxed


@pytest.mark.parametrize("kind", [SimpleBody, RelaxedBody])
def test_long_runs_take_linear_time_and_are_sent_in_blocks(kind):
    pieces: list[int] = []
    body = kind(lambda octets: pieces.append(len(octets)))
    begin = time.process_time()
    for _ in range(200):
        body.feed(b"\r\n" * 8_000)
        body.feed(b" \t" * 8_000)
    body.feed(b"x")
    body.finish()
    assert time.process_time() - begin < 5
    assert max(pieces) <= 20_000


def test_rfc_6376_3_4_5_fields():
    assert canonical_field(b"A: X\r\n", RELAXED) == b"a:X\r\n"
    assert canonical_field(b"B : Y\t\r\n\tZ  \r\n", RELAXED) == b"b:Y Z\r\n"
    assert canonical_field(b"B : Y\t\r\n\tZ  \r\n", SIMPLE) == b"B : Y\t\r\n\tZ  \r\n"
    assert canonical_field(b"Empty:\r\n", RELAXED) == b"empty:\r\n"
    assert canonical_field(b"Folded:\r\n \r\n x\r\n", RELAXED) == b"folded:x\r\n"
