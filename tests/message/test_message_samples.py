"""The sample messages in ``tests/messages`` give exactly what stands beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mailsrv.message import summarise
from tests.message.imap_data import check_body, check_envelope, read_data

SAMPLES = sorted((Path(__file__).parent.parent / "messages").glob("*.eml"))


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(member) for member in value]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def without_extension(body: Any) -> Any:
    """BODY from BODYSTRUCTURE, by the grammar of RFC 3501 9."""
    if isinstance(body[0], list):
        count = next(place for place, member in enumerate(body) if not isinstance(member, list))
        return [*map(without_extension, body[:count]), body[count]]
    if body[:2] == ["message", "rfc822"]:
        return [*body[:8], without_extension(body[8]), body[9]]
    return body[: 8 if body[0] == "text" else 7]


def test_there_are_samples():
    assert len(SAMPLES) >= 20


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_sample(path):
    octets = path.read_bytes()
    expected = json.loads(path.with_suffix(".json").read_text())
    summary = summarise(octets)
    envelope, structure, body = map(read_data, (summary.imap_envelope, summary.body_structure, summary.body))
    check_envelope(envelope)
    check_body(structure, is_extended=True)
    check_body(body, is_extended=False)
    assert {
        "size_octets": summary.size_octets,
        "header_octets": summary.header_octets,
        "sent_day": summary.sent_day,
        "envelope": plain(envelope),
        "body_structure": plain(structure),
    } == expected
    assert plain(body) == without_extension(expected["body_structure"])


def test_eight_bit_values_are_literals_and_ascii_ones_are_quoted():
    folder = SAMPLES[0].parent
    latin1 = summarise((folder / "latin1-header.eml").read_bytes()).imap_envelope
    assert b'{27}\r\nd\xe9j\xe0 vu "quoted" back\\slash' in latin1
    assert b"{" not in summarise((folder / "plain.eml").read_bytes()).imap_envelope
    long = summarise(b"Subject: " + b"x" * 2_000 + b"\r\n\r\n").imap_envelope
    assert b"{2000}\r\nxxx" in long
