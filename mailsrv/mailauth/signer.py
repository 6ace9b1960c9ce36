"""DKIM signatures of one message while its octets pass (RFC 6376 3.5, 3.7, 5).

:class:`MessageSignature` takes the message in pieces of any size, from its first header field on,
keeps the header section (bounded by whoever feeds it) and hashes the body. :meth:`~MessageSignature.finish`
then gives a DKIM-Signature field for each key. No l=: a body that may grow is no signed body (RFC 6376 8.2).
No i=: it would only repeat d=.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Sequence

from attrs import frozen

from mailsrv.mailauth.canonical import BodyCanonicalizer, body_canonicalizer, canonical_field
from mailsrv.mailauth.keys import SigningKey, fold_base64
from mailsrv.mailauth.settings import DkimSettings

# A field with its folded lines. Lines that are none are passed over.
_FIELDS = re.compile(rb"(?m:^)([!-9;-~]+)[ \t]*:[^\r]*+(?:\r(?:(?!\n)|\n[ \t])[^\r]*+)*\r\n")
_LINE_OCTETS = 76
_FIELDS_OF_A_NAME = 32
"""Of a name, the lowest that are signed: a verifier has to go through them, and h= is a line of the message."""


@frozen
class SigningPlan:
    """Which fields are signed, and how; made once from the settings."""

    settings: DkimSettings
    names: tuple[bytes, ...]
    """Lower case, in the order of h=."""
    oversigned: frozenset[bytes]

    @classmethod
    def from_settings(cls, settings: DkimSettings) -> SigningPlan:
        oversigned = [name.lower().encode("ascii") for name in settings.oversigned_fields]
        signed = [name.lower().encode("ascii") for name in settings.signed_fields]
        return cls(settings, tuple(dict.fromkeys(oversigned + signed)), frozenset(oversigned))


@frozen
class UnsignedField:
    """Everything of a DKIM-Signature field but the signature itself."""

    key: SigningKey
    octets: bytes
    """Up to and with ``b=``."""
    digest: bytes
    """SHA-256 over the signed fields and this one (RFC 6376 3.7)."""

    def sign(self) -> bytes:
        """The complete field, with its line end. What takes time."""
        return self.octets + fold_base64(self.key.sign(self.digest)) + b"\r\n"


class MessageSignature:
    """Made for one message. ``seconds`` is t= (RFC 6376 3.5)."""

    __slots__ = ("_body", "_body_hash", "_header", "_keys", "_plan", "_searched", "_seconds")

    def __init__(self, plan: SigningPlan, keys: Sequence[SigningKey], seconds: int) -> None:
        self._plan = plan
        self._keys = keys
        self._seconds = seconds
        self._header = bytearray()
        self._searched = 0
        self._body_hash = hashlib.sha256()
        self._body: BodyCanonicalizer | None = None

    def feed(self, octets: bytes) -> None:
        """The next octets of the message."""
        if self._body is not None:
            self._body.feed(octets)
            return
        header = self._header
        header += octets
        if header.startswith(b"\r\n"):
            end = 0
        else:
            end = header.find(b"\r\n\r\n", self._searched)
            if end < 0:
                self._searched = max(0, len(header) - 3)
                return
            end += 2
        rest = bytes(header[end + 2 :])
        del header[end:]
        self._body = self._new_body()
        self._body.feed(rest)

    def prepend(self, fields: bytes) -> None:
        """Complete fields that are put in front of what was fed, after the fact. Before the signatures are made."""
        self._header[:0] = fields

    def unsigned_fields(self) -> list[UnsignedField]:
        """End of the message: what is left to do for each key."""
        body = self._body or self._new_body()
        body.finish()
        body_hash = base64.b64encode(self._body_hash.digest())
        kind = self._plan.settings.header_canonicalization
        names, signed = self._signed_fields()
        hashed = hashlib.sha256(b"".join(canonical_field(field, kind) for field in signed))
        unsigned = []
        for key in self._keys:
            octets = self._field(key, names, body_hash)
            digest = hashed.copy()
            # The field itself comes last, without its line end, b= empty (RFC 6376 3.7).
            digest.update(canonical_field(octets + b"\r\n", kind).removesuffix(b"\r\n"))
            unsigned.append(UnsignedField(key, octets, digest.digest()))
        return unsigned

    def finish(self) -> bytes:
        """The complete fields, one for each key in their order, to be put in front of the message."""
        return b"".join(unsigned.sign() for unsigned in self.unsigned_fields())

    def _new_body(self) -> BodyCanonicalizer:
        return body_canonicalizer(self._plan.settings.body_canonicalization, self._body_hash.update)

    def _signed_fields(self) -> tuple[tuple[bytes, ...], list[bytes]]:
        """The names of h=, and the fields they stand for: of equal names the lowest first (RFC 6376 5.4.2).

        A name that stands there once more than there are fields says that there is none besides.
        """
        header = bytes(self._header)
        if not header.endswith(b"\r\n"):
            header += b"\r\n"  # a message that ended within its header section
        plan = self._plan
        found: dict[bytes, list[bytes]] = {name: [] for name in plan.names}
        for match in _FIELDS.finditer(header):
            fields = found.get(match[1].lower())
            if fields is not None:
                fields.append(match[0])
        names: list[bytes] = []
        signed: list[bytes] = []
        for name in plan.names:
            fields = found[name][-_FIELDS_OF_A_NAME:]
            fields.reverse()
            signed += fields
            is_whole = len(fields) == len(found[name])
            names += [name] * (len(fields) + (is_whole and name in plan.oversigned))
        return tuple(names), signed

    def _field(self, key: SigningKey, names: tuple[bytes, ...], body_hash: bytes) -> bytes:
        settings = self._plan.settings
        expiry = b" x=%d;" % (self._seconds + settings.valid_seconds) if settings.valid_seconds else b""
        times = b" t=%d;%b" % (self._seconds, expiry)
        return b"".join((_opening(key, settings), times, _format_names(names), b"\r\n bh=", body_hash, b";\r\n b="))


@functools.lru_cache(maxsize=256)
def _opening(key: SigningKey, settings: DkimSettings) -> bytes:
    """What is the same in all signatures of a key; d= and s= get lines of their own, for they may be long."""
    kinds = f"{settings.header_canonicalization.value}/{settings.body_canonicalization.value}"
    text = f"DKIM-Signature: v=1; a={key.algorithm.value}-sha256; c={kinds};\r\n d={key.domain};\r\n s={key.selector};"
    return text.encode("ascii")


@functools.lru_cache(maxsize=256)
def _format_names(names: tuple[bytes, ...]) -> bytes:
    """h=, on lines of at most 76 octets. Most messages have the same fields."""
    lines = [b" h=" + names[0]]
    for name in names[1:]:
        # RFC 6376 3.5: white space may stand at the colons.
        if len(lines[-1]) + len(name) + 2 > _LINE_OCTETS:
            lines[-1] += b":"
            lines.append(b" " + name)
        else:
            lines[-1] += b":" + name
    return b"\r\n" + b"\r\n".join(lines) + b";"
