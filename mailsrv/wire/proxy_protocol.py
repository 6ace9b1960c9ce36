"""The PROXY protocol, versions 1 and 2: a proxy in front of us says whose connection it passes on.

A parser without I/O: :meth:`ProxyHeaderReader.feed` takes octets until the header is complete, and
what came behind it is left in ``unused``. It is strict (R-PROXY-1): addresses must be of the family that
is named, lengths must fit it, the parts (TLVs) must fill the rest exactly. Parts are skipped, whatever
they say of certificates or names: nobody is logged in by a proxy. Only their checksum is looked at.

The reference is "The PROXY protocol, Versions 1 & 2" of the HAProxy project.
"""

from __future__ import annotations

import functools
import ipaddress
import struct

from attrs import frozen

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_LINE_BEGINS = b"PROXY "
_LINE_OCTETS = 107
"""The longest line of version 1, with its CRLF (2.1)."""
_FIXED_OCTETS = 16
MAX_BODY_OCTETS = 4096
"""Addresses and parts of version 2 together: far more than any proxy sends."""
_UNSPECIFIED, _TCP4, _TCP6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
_ADDRESS_OCTETS = {_TCP4: 12, _TCP6: 36, _UNIX_STREAM: 216}
"""By family and transport (2.2)."""
_CHECKSUM = 0x03


class ProxyProtocolError(ValueError):
    """No header that can be used; the text is for the log."""


@frozen
class Endpoints:
    """Who connected to the proxy, and where it listened."""

    source: str
    source_port: int
    destination: str
    destination_port: int


@frozen
class ProxyHeader:
    """A header. Without endpoints it says nothing: the connection is the proxy's own (LOCAL) or of unknown kind."""

    endpoints: Endpoints | None
    is_local: bool = False
    """The proxy's own connection, such as a health check."""


class ProxyHeaderReader:
    """Reads one header; bounded in what it holds."""

    def __init__(self) -> None:
        self._received = bytearray()
        self.unused = b""
        """What came behind the header."""

    def feed(self, octets: bytes) -> ProxyHeader | None:
        """The header, or None while more is needed. Raises :class:`ProxyProtocolError`; do not feed after either."""
        received = self._received
        received += octets
        if received.startswith(SIGNATURE[: len(received)]):
            return self._feed_binary()
        if received.startswith(_LINE_BEGINS[: len(received)]):
            return self._feed_line()
        raise ProxyProtocolError("no PROXY header")

    def _take(self, size: int) -> bytes:
        taken, self.unused = bytes(self._received[:size]), bytes(self._received[size:])
        self._received.clear()
        return taken

    # Version 1

    def _feed_line(self) -> ProxyHeader | None:
        end = self._received.find(b"\r\n", 0, _LINE_OCTETS)
        if end >= 0:
            return parse_line(self._take(end + 2)[:-2])
        if len(self._received) >= _LINE_OCTETS:
            raise ProxyProtocolError("the line is too long")
        return None

    # Version 2

    def _feed_binary(self) -> ProxyHeader | None:
        if len(self._received) < _FIXED_OCTETS:
            return None
        (length,) = struct.unpack_from(">H", self._received, 14)
        if length > MAX_BODY_OCTETS:
            raise ProxyProtocolError(f"{length} octets of addresses and parts are too many")
        if len(self._received) < _FIXED_OCTETS + length:
            return None
        return parse_binary(self._take(_FIXED_OCTETS + length))


def parse_line(line: bytes) -> ProxyHeader:
    """A line of version 1, without its CRLF (2.1)."""
    words = line.split(b" ")
    if words[:2] == [b"PROXY", b"UNKNOWN"]:
        # Whatever stands behind it is to be ignored.
        return ProxyHeader(None)
    if len(words) != 6 or words[0] != b"PROXY" or words[1] not in (b"TCP4", b"TCP6"):
        raise ProxyProtocolError("the line is malformed")
    version = 4 if words[1] == b"TCP4" else 6
    return ProxyHeader(
        Endpoints(
            _text_address(words[2], version),
            _text_port(words[4]),
            _text_address(words[3], version),
            _text_port(words[5]),
        )
    )


def _text_address(word: bytes, version: int) -> str:
    try:
        address = ipaddress.ip_address(word.decode("ascii"))
    except ValueError:
        raise ProxyProtocolError("an address cannot be read") from None
    if address.version != version or b"%" in word:
        raise ProxyProtocolError("an address is of another family")
    return str(address)


def _text_port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or (word[:1] == b"0" and word != b"0") or int(word) > 65535:
        raise ProxyProtocolError("a port cannot be read")
    return int(word)


def parse_binary(header: bytes) -> ProxyHeader:
    """A whole header of version 2 (2.2)."""
    command, kind = header[12], header[13]
    if command >> 4 != 2:
        raise ProxyProtocolError(f"version {command >> 4} is unknown")
    if command & 0x0F not in (0, 1):
        raise ProxyProtocolError(f"command {command & 0x0F} is unknown")
    is_local = command & 0x0F == 0
    if is_local or kind == _UNSPECIFIED:
        # All the rest is to be ignored, the family of a LOCAL header too.
        return ProxyHeader(None, is_local)
    size = _ADDRESS_OCTETS.get(kind)
    if size is None:
        raise ProxyProtocolError(f"family and transport {kind:#04x} are not served")
    if len(header) < _FIXED_OCTETS + size:
        raise ProxyProtocolError("the addresses are cut short")
    _check_parts(header, size)
    if kind == _UNIX_STREAM:
        # A client on a Unix socket of the proxy's host has no address we could count it by.
        return ProxyHeader(None)
    return ProxyHeader(_endpoints(header[_FIXED_OCTETS : _FIXED_OCTETS + size]))


def _endpoints(octets: bytes) -> Endpoints:
    width = 4 if len(octets) == _ADDRESS_OCTETS[_TCP4] else 16
    source_port, destination_port = struct.unpack_from(">HH", octets, 2 * width)
    source, destination = (ipaddress.ip_address(octets[start : start + width]) for start in (0, width))
    return Endpoints(str(source), source_port, str(destination), destination_port)


def _check_parts(header: bytes, addresses: int) -> None:
    """The parts must fill the rest exactly; a checksum must be right (2.2.3)."""
    position = _FIXED_OCTETS + addresses
    while position < len(header):
        if position + 3 > len(header):
            raise ProxyProtocolError("a part is cut short")
        kind, length = struct.unpack_from(">BH", header, position)
        start, position = position + 3, position + 3 + length
        if position > len(header):
            raise ProxyProtocolError("a part is cut short")
        if kind == _CHECKSUM:
            blank = header[:start] + bytes(length) + header[position:]
            if length != 4 or crc32c(blank) != int.from_bytes(header[start:position], "big"):
                raise ProxyProtocolError("the checksum is wrong")


@functools.cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for octet in range(256):
        value = octet
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def crc32c(octets: bytes) -> int:
    """The CRC with Castagnoli's polynomial (RFC 9260 appendix A)."""
    table = _crc_table()
    value = 0xFFFFFFFF
    for octet in octets:
        value = value >> 8 ^ table[(value ^ octet) & 0xFF]
    return value ^ 0xFFFFFFFF
