"""Signing what our users send and what this server itself writes: between delivery and mailauth.

A message is signed with the keys of its author's domain, the one of the first address in From, so
that the signature's d= is aligned with it (RFC 7489 3.1.1). Who may write there has been checked
before. Without a key for that domain nothing is hashed or kept.

The fields go in front of the message when it is complete (RFC 6376 5.6), above what was fed.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.threads import deferToThread

from mailsrv.delivery.added_fields import RunInThread
from mailsrv.mailauth.key_store import SigningKeys
from mailsrv.mailauth.settings import DkimSettings
from mailsrv.mailauth.signer import MessageSignature, SigningPlan, UnsignedField
from mailsrv.message import header_addresses, read_header
from mailsrv.message.fields import field_body


class MessageSigner:
    """What all transactions sign with. A reload makes a new one."""

    def __init__(
        self,
        settings: DkimSettings,
        keys: SigningKeys,
        *,
        seconds: Callable[[], float],
        run_in_thread: RunInThread = deferToThread,
    ) -> None:
        """``keys`` of :func:`~mailsrv.mailauth.key_store.load_signing_keys`; ``seconds`` since the epoch.

        ``run_in_thread`` makes signatures that take more than a millisecond.
        """
        self._plan = SigningPlan.from_settings(settings)
        self._keys = keys
        self._seconds = seconds
        self._run_in_thread = run_in_thread

    def begin(self, from_domain: str) -> SigningStream | None:
        """For a message of that domain (canonical); None where it is not signed."""
        keys = self._keys.get(from_domain)
        if keys is None:
            return None
        return SigningStream(MessageSignature(self._plan, keys, int(self._seconds())), self._run_in_thread)

    def begin_for(self, header: bytes) -> SigningStream | None:
        """As :meth:`begin`, for the domain that a header section names in From."""
        if not self._keys:
            return None
        domain = author_domain(header)
        return None if domain is None else self.begin(domain)

    async def sign(self, octets: bytes) -> bytes:
        """A complete message in memory with its signatures in front; itself where it is not signed."""
        stream = self.begin_for(octets)
        if stream is None:
            return octets
        stream.feed(octets)
        return await stream.finish() + octets


class SigningStream:
    """One message on its way."""

    __slots__ = ("_message", "_run_in_thread", "feed", "prepend")

    def __init__(self, message: MessageSignature, run_in_thread: RunInThread) -> None:
        self._message = message
        self._run_in_thread = run_in_thread
        self.feed = message.feed
        """Takes the next octets, from the first field that the signature stands above."""
        self.prepend = message.prepend
        """Takes complete fields that are put in front of what was fed."""

    async def finish(self) -> bytes:
        """The DKIM-Signature fields, complete with their line ends. Waits only where a key is large."""
        fields = self._message.unsigned_fields()
        if any(field.key.is_slow for field in fields):
            signed: bytes = await self._run_in_thread(_sign_all, fields)
            return signed
        return _sign_all(fields)


def _sign_all(fields: list[UnsignedField]) -> bytes:
    return b"".join(field.sign() for field in fields)


def author_domain(header: bytes) -> str | None:
    """The domain of the first address in the first From field, canonical."""
    for row in read_header(header, 0, len(header)).rows:
        if row[1].lower() == b"from":
            addresses = header_addresses(field_body(row))
            return addresses[0].domain if addresses else None
    return None
