"""MAIL and RCPT as a client writes them: only with the parameters the server offers.

Nothing that is written here can hold CR, LF or NUL: addresses are checked when they are made, texts
go out in xtext (RFC 3461 4), the rest are numbers and keywords.
"""

from __future__ import annotations

import re
from functools import lru_cache

from attrs import field, frozen

from mailsrv.address import Address
from mailsrv.interfaces.envelope import NOTIFY_UNSAID, BodyType, EnvelopeParameters, Notify
from mailsrv.smtp.client.capabilities import Capabilities

# xchar = any ASCII CHAR between "!" (33) and "~" (126) inclusive, except for "+" and "="
_NOT_XCHAR = re.compile(rb"[^!-*,-<>-~]")
_NOT_EMBEDDABLE = re.compile(r"[^!-*,-<>-\[\]-~]")
_NOTIFY_WORDS = ((Notify.SUCCESS, b"SUCCESS"), (Notify.FAILURE, b"FAILURE"), (Notify.DELAY, b"DELAY"))


@frozen
class OutgoingRecipient:
    """A forward-path with what RCPT says of it."""

    address: Address
    notify: Notify = NOTIFY_UNSAID
    original_recipient: str = ""


@frozen
class OutgoingMessage:
    """The envelope of one mail transaction, as it suits the server: ``body`` and ``is_smtputf8`` are what it takes."""

    reverse_path: Address | None
    recipients: tuple[OutgoingRecipient, ...]
    size: int
    body: BodyType = BodyType.SEVEN_BIT
    is_smtputf8: bool = False
    parameters: EnvelopeParameters = field(factory=EnvelopeParameters)
    by_seconds: int | None = None
    """BY: what is left of the time (RFC 2852); may be negative in mode N."""


def format_mail(message: OutgoingMessage, offered: Capabilities) -> bytes:
    """The MAIL command with its CRLF."""
    path = b"" if message.reverse_path is None else _format_address(message.reverse_path)
    keywords = offered.keywords
    if not keywords:
        return b"MAIL FROM:<%b>\r\n" % path
    line = b"MAIL FROM:<%b>" % path
    if "SIZE" in keywords:
        line += b" SIZE=%d" % message.size
    if message.body is not BodyType.SEVEN_BIT:
        line += b" BODY=%b" % message.body.value.encode("ascii")
    if message.is_smtputf8:
        line += b" SMTPUTF8"
    parameters = message.parameters
    if "DSN" in keywords:
        if parameters.return_content is not None:
            line += b" RET=%b" % parameters.return_content.value.encode("ascii")
        if parameters.envelope_id:
            line += b" ENVID=%b" % encode_xtext(parameters.envelope_id.encode("utf-8"))
    if parameters.requires_tls:
        line += b" REQUIRETLS"
    if parameters.priority and "MT-PRIORITY" in keywords:
        line += b" MT-PRIORITY=%d" % parameters.priority
    deliver_by = parameters.deliver_by
    if deliver_by is not None and message.by_seconds is not None and "DELIVERBY" in keywords:
        # by-value = by-time ";" by-mode [ by-trace ], at most nine digits (RFC 2852 4)
        seconds = max(-999_999_999, min(message.by_seconds, 999_999_999))
        mode = b"R" if deliver_by.must_return else b"N"
        line += b" BY=%d;%b%b" % (seconds, mode, b"T" if deliver_by.is_traced else b"")
    return line + b"\r\n"


def format_rcpt(recipient: OutgoingRecipient, offered: Capabilities) -> bytes:
    """The RCPT command with its CRLF."""
    path = _format_address(recipient.address)
    if not (recipient.notify or recipient.original_recipient) or "DSN" not in offered.keywords:
        return b"RCPT TO:<%b>\r\n" % path
    line = b"RCPT TO:<%b>" % path
    if recipient.notify is Notify.NEVER:
        line += b" NOTIFY=NEVER"
    elif recipient.notify:
        line += b" NOTIFY=%b" % b",".join(word for flag, word in _NOTIFY_WORDS if recipient.notify & flag)
    if recipient.original_recipient:
        line += b" ORCPT=%b" % format_original_recipient(recipient.original_recipient)
    return line + b"\r\n"


def encode_xtext(octets: bytes) -> bytes:
    """``xtext`` of RFC 3461 4: ``+`` and two hexadecimal digits for what may not stand there."""
    return _NOT_XCHAR.sub(lambda match: b"+%02X" % match[0][0], octets)


def format_original_recipient(text: str) -> bytes:
    r"""The value of ORCPT: ``addr-type ";" xtext``, or ``utf-8;`` with ``\x{…}`` where it is not ASCII (RFC 6533 3)."""
    kind, found, address = text.partition(";")
    if not found:
        kind, address = "rfc822", text
    if address.isascii() and kind.lower() != "utf-8":
        return b"%b;%b" % (encode_xtext(kind.encode("ascii", "replace")), encode_xtext(address.encode("ascii")))
    embedded = _NOT_EMBEDDABLE.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", address)
    return b"utf-8;" + embedded.encode("ascii")


@lru_cache(maxsize=1024)
def _format_address(address: Address) -> bytes:
    return str(address).encode("utf-8")
