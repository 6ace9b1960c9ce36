"""Sender rewriting (SRS): a forwarded message gets a reverse-path of ours, that a bounce finds its way back from.

::

    SRS0=HASH=DAY=domain=local@ours          of local@domain, forwarded here first
    SRS1=HASH=host==HASH=DAY=…@ours          of SRS0=HASH=DAY=…@host, forwarded here next
    SRS1=HASH=host==…@ours                   of SRS1=…=host==…@other: the way back skips the servers between

HASH is the beginning of an HMAC over what follows it, in letters that survive a change of case; DAY counts
days modulo 1024. A forged or outdated address is refused, so nobody can send to strangers through us: an
address is turned back only by the one who made it, and only for so long.

A reverse-path that would not fit into a local part (64 octets, RFC 5321 4.5.3.1.1) is left as it is.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence

from attrs import frozen

from mailsrv.address import Address, AddressError
from mailsrv.errors import MailError
from mailsrv.status import BAD_MAILBOX

_HASH_LENGTH = 6
"""30 bits: with every guess a message, it takes years."""
_DAYS = 1024
_DAY_SECONDS = 86400
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
# Only ASCII letters have a case here: there are others that IGNORECASE takes for them.
_FLAGS = re.IGNORECASE | re.DOTALL | re.ASCII
# The separator after the tag may be any of these three; we write the first.
_SRS0 = re.compile(r"srs0[=+-]([a-z2-7]{6})=([a-z2-7]{2})=([^=]+)=(.+)", _FLAGS)
_SRS1 = re.compile(r"srs1[=+-]([a-z2-7]{6})=([^=]+)=(.+)", _FLAGS)
_FOREIGN_SRS0 = re.compile(r"srs0([=+-].+)", _FLAGS)
_FOREIGN_SRS1 = re.compile(r"srs1[=+-][^=]+=([^=]+)=(.+)", _FLAGS)


class SrsError(MailError):
    """An address in the form of SRS that we have not made, or not lately. 5.1.1: nobody's address."""

    def __init__(self, cause: str) -> None:
        super().__init__(BAD_MAILBOX, "No such user here", cause=cause)


def is_srs(address: Address) -> bool:
    """Whether the local part has the form; it need not be valid."""
    return address.local_part[:5].lower() in _TAGS


_TAGS = frozenset(f"srs{digit}{separator}" for digit in "01" for separator in "=+-")


@frozen
class SenderRewriting:
    """``secrets``: the first makes, all check. ``days``: how long a bounce may take."""

    secrets: Sequence[bytes]
    days: int = 21

    def rewrite(self, reverse_path: Address, domain: str, now: float) -> Address:
        """The reverse-path under which we forward; itself where it would grow too long."""
        local_part = reverse_path.local_part
        if (again := _FOREIGN_SRS1.fullmatch(local_part)) is not None:
            body = f"{again[1]}={again[2]}"
            tag = "SRS1"
        elif (first := _FOREIGN_SRS0.fullmatch(local_part)) is not None:
            body = f"{reverse_path.domain}={first[1]}"
            tag = "SRS1"
        else:
            body = f"{_format_day(now)}={reverse_path.domain}={local_part}"
            tag = "SRS0"
        try:
            return Address(f"{tag}={self._hash(self.secrets[0], tag, body)}={body}", domain)
        except AddressError:
            return reverse_path

    def restore(self, address: Address, now: float) -> Address:
        """Who a bounce to ``address`` is for, one step back. Raises SrsError."""
        local_part = address.local_part
        try:
            if (first := _SRS0.fullmatch(local_part)) is not None:
                self._check(first[1], "SRS0", local_part[5 + _HASH_LENGTH + 1 :])
                self._check_day(first[2], now)
                return Address(first[4], first[3])
            if (again := _SRS1.fullmatch(local_part)) is not None:
                self._check(again[1], "SRS1", f"{again[2]}={again[3]}")
                # What follows begins with the separator the first server wrote after its tag.
                return Address(f"SRS0{again[3]}", again[2])
        except AddressError as error:
            raise SrsError(f"SRS address leads to what is no address: {error.text}") from error
        raise SrsError("malformed SRS address")

    def _check(self, given: str, tag: str, body: str) -> None:
        if not any(hmac.compare_digest(given.lower(), self._hash(secret, tag, body)) for secret in self.secrets):
            raise SrsError("SRS address with a wrong hash")

    def _check_day(self, text: str, now: float) -> None:
        day = _ALPHABET.index(text[0].lower()) * 32 + _ALPHABET.index(text[1].lower())
        age = (int(now // _DAY_SECONDS) - day) % _DAYS
        # A clock that was set back a little must not refuse what was made just before.
        if age > self.days and age != _DAYS - 1:
            raise SrsError("SRS address is outdated")

    @staticmethod
    def _hash(secret: bytes, tag: str, body: str) -> str:
        # Local parts may come back in another case.
        digest = hmac.digest(secret, f"{tag}={body}".lower().encode(), "sha256")
        return base64.b32encode(digest).decode("ascii")[:_HASH_LENGTH].lower()


def _format_day(now: float) -> str:
    day = int(now // _DAY_SECONDS) % _DAYS
    return _ALPHABET[day >> 5] + _ALPHABET[day & 31]
