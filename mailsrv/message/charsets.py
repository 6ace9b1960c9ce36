"""Octets to text in the character sets mail names, and in those it only claims.

Only character sets of a fixed table of Python codecs are used: names from a message never reach
codecs that do something else (``zlib``, ``idna`` …). What cannot be decoded becomes U+FFFD.
"""

from __future__ import annotations

import codecs
from functools import lru_cache

_LONGEST_NAME = 40
# Labels that mean more than they say: browsers and mail programs read these as the superset.
_SUPERSETS = {
    "ascii": "utf-8",
    "us-ascii": "utf-8",
    "iso8859-1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
    "big5": "cp950",
    "utf-8": "utf-8",
}
_ALIASES = {
    b"unicode-1-1-utf-7": "utf-7",
    b"x-unknown": "utf-8",
    b"unknown-8bit": "utf-8",
    b"8bit": "utf-8",
    b"utf8": "utf-8",
    b"iso-8859-8-i": "iso8859-8",
    b"iso-8859-8-e": "iso8859-8",
    b"ks_c_5601-1987": "cp949",
    b"x-sjis": "cp932",
    b"x-euc-jp": "euc_jp",
    b"x-gbk": "gb18030",
    b"windows-874": "cp874",
    b"x-mac-roman": "mac-roman",
}
# Text codecs only; the rest of the registry is out of reach of a message.
_REFUSED = frozenset({"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "mbcs", "oem"})


@lru_cache(maxsize=256)
def codec_name(charset: bytes) -> str | None:
    """The Python codec for a character set label; None for one nobody knows."""
    label = charset.strip().strip(b"\"'").lower()
    if not label or len(label) > _LONGEST_NAME or not label.isascii():
        return None
    text = _ALIASES.get(label) or label.decode("ascii")
    try:
        found = codecs.lookup(text)
    except (LookupError, ValueError):
        return None
    if not getattr(found, "_is_text_encoding", True) or found.name.replace("-", "_") in _REFUSED:
        return None
    return _SUPERSETS.get(found.name, found.name)


def decode_octets(octets: bytes, charset: bytes) -> str:
    """The text of ``octets``. An empty or unknown character set is tried as UTF-8, then as windows-1252."""
    if octets.isascii() and (not charset or is_ascii_compatible(charset)):
        return octets.decode("ascii")
    name = codec_name(charset)
    if name is None or name == "utf-8":
        try:
            return octets.decode("utf-8")
        except UnicodeDecodeError:
            return octets.decode("utf-8", "replace") if name and charset else octets.decode("cp1252", "replace")
    try:
        return octets.decode(name, "replace")
    except (UnicodeError, ValueError):
        return octets.decode("utf-8", "replace")


@lru_cache(maxsize=256)
def is_ascii_compatible(charset: bytes) -> bool:
    """Whether ASCII octets mean ASCII characters there (not so in UTF-7, UTF-16, ISO-2022, HZ, EBCDIC)."""
    name = codec_name(charset)
    if name is None:
        return True
    if name in {"utf-7", "hz"} or name.startswith(("iso2022", "utf-16", "utf-32")):
        return False
    every = bytes(range(128))
    try:
        return every.decode(name) == every.decode("ascii")
    except UnicodeError:
        return False
