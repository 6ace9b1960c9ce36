"""Mailbox names between the wire and Unicode: modified UTF-7 (RFC 3501 5.1.3), UTF-8 (RFC 6855).

Both directions are strict: each name has exactly one spelling, so two spellings can never
mean one mailbox.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64

from mailsrv.imap.errors import CommandRefused

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ASCII_RUN = re.compile("[\x20-\x7e]+|[^\x20-\x7e]+")
_ENCODED = re.compile(rb"&([A-Za-z0-9+,]*)-")


def encode_name(name: str) -> bytes:
    """``name`` in modified UTF-7."""
    if name.isascii():
        return name.replace("&", "&-").encode("ascii")
    out = []
    for run in _ASCII_RUN.findall(name):
        if run.isascii() and run.isprintable():
            out.append(run.replace("&", "&-").encode("ascii"))
        else:
            coded = b2a_base64(run.encode("utf-16-be", "surrogatepass"), newline=False)
            out.append(b"&" + coded.rstrip(b"=").replace(b"/", b",") + b"-")
    return b"".join(out)


def decode_name(octets: bytes) -> str:
    """The Unicode of a name in modified UTF-7. Raises ValueError for any spelling but the one RFC 3501 gives it."""
    if b"&" not in octets:
        return octets.decode("ascii")
    out: list[str] = []
    position = 0
    for found in _ENCODED.finditer(octets):
        plain = octets[position : found.start()]
        out.append(plain.decode("ascii"))
        out.append(_decode_run(found.group(1)))
        position = found.end()
    out.append(octets[position:].decode("ascii"))
    name = "".join(out)
    if encode_name(name) != octets:
        raise ValueError("not the canonical modified UTF-7 of a name")
    return name


def _decode_run(coded: bytes) -> str:
    if not coded:
        return "&"
    if len(coded) % 4 == 1:
        raise ValueError("base64 cut short")
    raw = a2b_base64(coded.replace(b",", b"/") + b"=" * (-len(coded) % 4))
    return raw.decode("utf-16-be")


def parse_name(octets: bytes, *, is_utf8: bool) -> str:
    """The name a client wrote: INBOX in any case is INBOX. Raises CommandRefused [CANNOT]."""
    try:
        name = octets.decode("utf-8") if is_utf8 else decode_name(octets)
    except ValueError:
        raise CommandRefused("The mailbox name is not encoded as it should be", code=b"CANNOT") from None
    if _CONTROL.search(name):  # R-CTL-1
        raise CommandRefused("Control characters in the mailbox name", code=b"CANNOT")
    return canonical_name(name)


def canonical_name(name: str) -> str:
    """INBOX, and INBOX as the first level, are the same in any case (RFC 3501 5.1)."""
    if name[:5].upper() == "INBOX" and (len(name) == 5 or name[5] == "/"):
        return "INBOX" + name[5:]
    return name


def format_name(name: str, *, is_utf8: bool) -> bytes:
    """A name as a quoted string."""
    octets = name.encode("utf-8", "replace") if is_utf8 else encode_name(name)
    if b'"' in octets or b"\\" in octets:
        octets = octets.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"' + octets + b'"'
