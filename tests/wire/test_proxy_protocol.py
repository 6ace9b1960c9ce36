"""R-PROXY-1: headers of both versions, whole and octet by octet, and everything that is none."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.wire.proxy_protocol import (
    MAX_BODY_OCTETS,
    SIGNATURE,
    Endpoints,
    ProxyHeader,
    ProxyHeaderReader,
    ProxyProtocolError,
    crc32c,
)

REST = b"EHLO client.example\r\n"
V4 = ProxyHeader(Endpoints("192.0.2.1", 40000, "198.51.100.7", 25))
V6 = ProxyHeader(Endpoints("2001:db8::1", 65535, "::1", 0))
NOTHING = ProxyHeader(None)


def binary(kind: int, body: bytes, *, command: int = 0x21, length: int | None = None) -> bytes:
    return SIGNATURE + bytes([command, kind]) + struct.pack(">H", len(body) if length is None else length) + body


def part(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


ADDRESSES_4 = bytes([192, 0, 2, 1, 198, 51, 100, 7]) + struct.pack(">HH", 40000, 25)
ADDRESSES_6 = ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("::1").packed + b"\xff\xff\0\0"


def with_checksum(value: int | None = None) -> bytes:
    parts = part(0x04, b"noop") + part(0x03, bytes(4))
    header = bytearray(binary(0x11, ADDRESSES_4 + parts))
    header[-4:] = (crc32c(bytes(header)) if value is None else value).to_bytes(4, "big")
    return bytes(header)


GOOD = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 25\r\n", V4),
    (b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", V6),
    (b"PROXY UNKNOWN\r\n", NOTHING),
    (b"PROXY UNKNOWN ff:: whatever 1 2\r\n", NOTHING),
    (b"PROXY TCP6 " + b" ".join([b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] * 2) + b" 65535 65535\r\n", None),
    (binary(0x11, ADDRESSES_4), V4),
    (binary(0x21, ADDRESSES_6), V6),
    (binary(0x11, ADDRESSES_4 + part(0xEE, b"unknown") + part(0x01, b"") + part(0x20, b"\x01\0\0\0\0")), V4),
    (with_checksum(), V4),
    (binary(0x31, bytes(216)), NOTHING),
    (binary(0x00, b""), NOTHING),
    (binary(0x00, b"anything"), NOTHING),
    (binary(0x00, b"", command=0x20), ProxyHeader(None, is_local=True)),
    (binary(0x11, ADDRESSES_4, command=0x20), ProxyHeader(None, is_local=True)),
    (binary(0x7F, b"anything", command=0x20), ProxyHeader(None, is_local=True)),
    (binary(0x11, ADDRESSES_4 + part(0xEE, bytes(MAX_BODY_OCTETS - 15))), V4),
]


@pytest.mark.parametrize("chunk", [1, 7, 100_000])
@pytest.mark.parametrize(("octets", "header"), GOOD, ids=range(len(GOOD)))
def test_good_headers(octets, header, chunk):
    reader, sent = ProxyHeaderReader(), octets + REST
    for start in range(0, len(sent), chunk):
        found = reader.feed(sent[start : start + chunk])
        if found is not None:
            if header is not None:
                assert found == header
            assert start < len(octets) <= start + chunk
            assert reader.unused + sent[start + chunk :] == REST
            return
    pytest.fail("no header was found")


BAD = [
    b"EHLO client.example\r\n",
    b"\r\n\r\n\0\r\nQUIT\r",
    b"PROXY\r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP5 192.0.2.1 198.51.100.7 40000 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 40000\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 25 \r\n",
    b"PROXY  TCP4 192.0.2.1 198.51.100.7 40000 25\r\n",
    b"PROXY TCP4 2001:db8::1 ::1 40000 25\r\n",
    b"PROXY TCP6 192.0.2.1 198.51.100.7 40000 25\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 40000 25\r\n",
    b"PROXY TCP4 192.0.2.256 198.51.100.7 40000 25\r\n",
    b"PROXY TCP4 192.0.2.01 198.51.100.7 40000 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 65536 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 040 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 +40 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 \xb2\r\n",
    b"PROXY TCP4 192.0.2.1\n198.51.100.7 40000 25\r\n",
    b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n",
    b"PROXY " + b"x" * 1000,
    binary(0x11, ADDRESSES_4[:-1]),
    binary(0x21, ADDRESSES_4),
    binary(0x31, ADDRESSES_6),
    binary(0x12, ADDRESSES_4),
    binary(0x41, ADDRESSES_4),
    binary(0x01, ADDRESSES_4),
    binary(0x10, ADDRESSES_4),
    binary(0x11, ADDRESSES_4, command=0x11),
    binary(0x11, ADDRESSES_4, command=0x31),
    binary(0x11, ADDRESSES_4, command=0x22),
    binary(0x11, ADDRESSES_4 + b"\x01"),
    binary(0x11, ADDRESSES_4 + b"\x01\0\x05abcd"),
    binary(0x11, ADDRESSES_4 + part(0x03, b"abc")),
    with_checksum(0x01020304),
    binary(0x11, b"", length=MAX_BODY_OCTETS + 1),
    binary(0x11, b"", length=65535),
]


@pytest.mark.parametrize("chunk", [1, 7, 100_000])
@pytest.mark.parametrize("octets", BAD, ids=range(len(BAD)))
def test_r_proxy_1_what_is_no_header_is_refused(octets, chunk):
    reader = ProxyHeaderReader()
    chunks = [octets[start : start + chunk] for start in range(0, len(octets), chunk)]
    with pytest.raises(ProxyProtocolError):
        assert not any(reader.feed(each) for each in chunks)


@pytest.mark.parametrize(("octets", "_header"), GOOD, ids=range(len(GOOD)))
def test_every_cut_header_waits(octets, _header):
    for size in range(len(octets)):
        assert ProxyHeaderReader().feed(octets[:size]) is None


def test_the_checksum_is_that_of_rfc_9260():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]))
def test_any_octets_give_a_header_an_error_or_a_wait(octets, beginning):
    whole, split = ProxyHeaderReader(), ProxyHeaderReader()

    def outcome(reader, pieces):
        try:
            for number, piece in enumerate(pieces):
                header = reader.feed(piece)
                if header is not None:
                    return header, reader.unused + b"".join(pieces[number + 1 :])
        except ProxyProtocolError:
            return "refused"
        return "waiting"

    sent = beginning + octets
    assert outcome(whole, [sent]) == outcome(split, [sent[at : at + 1] for at in range(len(sent))])


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 65535), st.integers(0, 65535))
def test_both_versions_say_the_same_of_ipv4(source, destination, source_port, destination_port):
    line = f"PROXY TCP4 {source} {destination} {source_port} {destination_port}\r\n".encode()
    packed = binary(0x11, source.packed + destination.packed + struct.pack(">HH", source_port, destination_port))
    said = ProxyHeader(Endpoints(str(source), source_port, str(destination), destination_port))
    assert ProxyHeaderReader().feed(line) == ProxyHeaderReader().feed(packed) == said


@given(st.ip_addresses(v=6), st.ip_addresses(v=6), st.integers(0, 65535), st.integers(0, 65535))
def test_both_versions_say_the_same_of_ipv6(source, destination, source_port, destination_port):
    line = f"PROXY TCP6 {source} {destination} {source_port} {destination_port}\r\n".encode()
    packed = binary(0x21, source.packed + destination.packed + struct.pack(">HH", source_port, destination_port))
    said = ProxyHeader(Endpoints(str(source), source_port, str(destination), destination_port))
    assert ProxyHeaderReader().feed(line) == ProxyHeaderReader().feed(packed) == said
