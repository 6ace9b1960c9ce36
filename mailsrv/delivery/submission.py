"""Who a user may be (RFC 6409 6.1) and what a submitted message lacks (RFC 6409 8).

The null reverse-path is allowed: notifications about received mail must have it (RFC 8098 3), and
who sent them is known from the log-in and checked in the From field.
"""

from __future__ import annotations

import re

from mailsrv.address import Address, AddressError
from mailsrv.errors import MailError
from mailsrv.interfaces.account import IAccount, IDelegate
from mailsrv.message import format_field, header_addresses, iterate_fields, parse_addresses
from mailsrv.message.quoted_string import QUOTED_TEXT
from mailsrv.status import NOT_AUTHORISED
from mailsrv.wire.line_breaks import has_bare_line_break

FROM_OCTETS = 32768
"""A longer From or Sender field is refused: reading it would take noticeable time."""

# Quoted strings, quoted pairs and the parentheses of comments, which may be nested (RFC 5322 3.2.2, 3.2.4).
_LEXEMES = re.compile(rb'"' + QUOTED_TEXT + rb'"|\\.|[()]|[^"\\()]++|.', re.DOTALL)
_BETWEEN_WORDS = re.compile(rb"[\s<>,;:\0]+")


async def check_reverse_path(account: IAccount, reverse_path: Address | None) -> None:
    """550 5.7.1 unless the envelope sender is the user's own. Unavailable where that is not known."""
    if reverse_path is not None and not await account.may_send_as(reverse_path):
        raise MailError(NOT_AUTHORISED, "The sender address is not yours")


async def check_from_field(account: IAccount, header: bytes, reverse_path: Address | None) -> bool:
    """550 5.7.1 unless there is one From field and all its addresses are the user's own, or somebody's they write for.

    Who writes for somebody else has to be named in a Sender field (RFC 5322 3.6.2): answers whether it is missing and
    has to be added (RFC 6409 8.1). ``reverse_path`` has been checked already and is not asked about again. A field that
    cannot be read is not somebody else's benefit: it is refused, and so is what other readers could take for another
    field or another address. All of ``header`` is looked at, whatever is interpreted of stored messages.
    """
    if b"\0" in header or has_bare_line_break(header):
        # Some end lines there, or pass over the octet: they would see fields that do not stand here.
        raise MailError(NOT_AUTHORISED, "The header section has octets that do not belong there")
    fields = _fields(header, b"from")
    if len(fields) != 1:
        raise MailError(NOT_AUTHORISED, "One From field is needed")
    is_on_behalf = False
    for address in _addresses(fields[0], "From"):
        if address == reverse_path or await account.may_send_as(address):
            continue
        if not IDelegate.providedBy(account) or not await IDelegate(account).may_send_on_behalf(address):
            raise MailError(NOT_AUTHORISED, "The address in the From field is not yours")
        is_on_behalf = True
    if not is_on_behalf:
        return False
    senders = _fields(header, b"sender")
    if not senders:
        return True
    named = _addresses(senders[0], "Sender")
    if len(senders) != 1 or len(named) != 1 or not await account.may_send_as(named[0]):
        raise MailError(NOT_AUTHORISED, "Who writes for somebody else needs one Sender field with their own address")
    return False


def sender_field(account: IAccount) -> bytes:
    """The field that says who wrote for somebody else."""
    return format_field(b"Sender", str(account.address).encode())


def _fields(header: bytes, name: bytes) -> list[bytes]:
    return [found.unfolded for found in iterate_fields(header) if found.name.lower() == name]


def _addresses(body: bytes, name: str) -> list[Address]:
    """All addresses of a field, or a refusal."""
    if len(body) > FROM_OCTETS:
        raise MailError(NOT_AUTHORISED, f"The {name} field is too long")
    # More entries than that the parser cannot find: it never stops early.
    limit = len(body) + 2
    named = [entry for entry in parse_addresses(body, limit) if entry.host is not None]
    found = header_addresses(body, limit)
    likely = _likely_addresses(body)
    if not found or len(found) != len(named) or likely is None:
        raise MailError(NOT_AUTHORISED, f"The {name} field has an address that cannot be read")
    return sorted({*found, *likely})


def _likely_addresses(body: bytes) -> set[Address] | None:
    """What stands there like an address outside of quotes and comments; None where that cannot be told.

    A display name that is not quoted may hold one, and some readers take the first they see.
    """
    bare: list[bytes] = []
    depth = 0
    for match in _LEXEMES.finditer(body):
        text = match[0]
        if text == b"(":
            depth += 1
            bare.append(b" ")
        elif text == b")" and depth:
            depth -= 1
        elif not depth:
            # NUL: something stood here that is no word.
            bare.append(b"\0" if text.startswith((b'"', b"\\")) else text)
    if depth:
        return None
    likely = set()
    for word in _BETWEEN_WORDS.split(b"".join(bare)):
        local_part, _, domain = word.rpartition(b"@")
        if not local_part or b"." not in domain:
            continue
        if b"@" in local_part:
            return None
        try:
            likely.add(Address(local_part.decode("utf-8"), domain.decode("utf-8")))
        except (UnicodeDecodeError, AddressError):
            return None
    return likely
