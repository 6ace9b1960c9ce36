"""Every well-formed message is understood as the standard library's ``email`` understands it."""

from __future__ import annotations

import email
import email.header
import email.utils
from collections.abc import Iterator
from email.message import Message

import pytest

from mailsrv.message import (
    Part,
    body_text,
    decode_header,
    decode_part,
    iterate_fields,
    parse_addresses,
    parse_date,
    scan,
    select_fields,
    summarise,
    unfold,
)
from tests.message.corpus import messages


def walk(message: Message) -> Iterator[Message]:
    yield message
    if message.is_multipart():
        for child in message.get_payload():
            assert isinstance(child, Message)
            yield from walk(child)


def compare_part(octets: bytes, reference: Message, part: Part) -> None:
    of_part = f"{part.content_type.media_type.decode()}/{part.content_type.subtype.decode()}"
    assert of_part == reference.get_content_type()
    ours = [
        (name.decode(), unfold(field.body).decode("utf-8"))
        for field in iterate_fields(octets[part.header_start : part.body_start])
        for name in [field.name]
    ]
    theirs = [(name, unfold(str(value).encode()).decode()) for name, value in reference.items()]
    assert ours == theirs
    if reference.is_multipart():
        return
    decoded = reference.get_payload(decode=True)
    assert isinstance(decoded, bytes)
    assert decode_part(octets[part.body_start : part.end], part) == decoded
    assert (part.file_names() or (None,))[0] == reference.get_filename()
    if part.is_text:
        assert body_text(octets, part) == decoded.decode(reference.get_content_charset("ascii"))


@pytest.mark.parametrize("seed", range(8))
def test_parts_fields_and_decoded_bodies(seed):
    for octets in messages(25, seed):
        structure = scan(octets)
        references = list(walk(email.message_from_bytes(octets)))
        assert len(references) == len(structure.parts)
        for reference, part in zip(references, structure.parts, strict=True):
            compare_part(octets, reference, part)


def test_addresses_dates_and_subjects():
    for octets in messages(150, 99):
        reference = email.message_from_bytes(octets)
        for name in ("From", "To", "Cc", "Reply-To"):
            bodies = reference.get_all(name, [])
            theirs = [
                (str(email.header.make_header(email.header.decode_header(person))), address)
                for person, address in email.utils.getaddresses(bodies)
            ]
            ours = [
                (decode_header(entry.name or b""), f"{entry.mailbox.decode()}@{entry.host.decode()}")
                for body in bodies
                for entry in parse_addresses(body.encode())
                if entry.mailbox is not None and entry.host is not None
            ]
            assert ours == theirs
        parsed = email.utils.parsedate_tz(reference["Date"])
        assert parsed is not None
        moment = parse_date(reference["Date"].encode())
        assert moment is not None
        assert moment[0] == email.utils.mktime_tz(parsed)
        subject = reference["Subject"].replace("\r\n", "")
        theirs_subject = str(email.header.make_header(email.header.decode_header(subject)))
        assert decode_header(subject.encode()) == theirs_subject


def test_cached_fields_select_like_headers():
    for octets in messages(50, 5):
        summary = summarise(octets)
        for names in ([b"subject", b"date"], [b"to", b"from", b"message-id"], [b"references"]):
            of_cache = select_fields(summary.cached_fields, frozenset(names))
            assert of_cache == select_fields(octets[: summary.header_octets], frozenset(names))
