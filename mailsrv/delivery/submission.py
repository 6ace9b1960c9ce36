"""Who a user may be (RFC 6409 6.1) and what a submitted message lacks (RFC 6409 8).

The null reverse-path is allowed: notifications about received mail must have it (RFC 8098 3), and
who sent them is known from the log-in and checked in the From field.
"""

from __future__ import annotations

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.interfaces.account import IAccount
from mailsrv.message import header_addresses, parse_addresses, read_header
from mailsrv.message.fields import FieldRow
from mailsrv.status import NOT_AUTHORISED


async def check_reverse_path(account: IAccount, reverse_path: Address | None) -> None:
    """550 5.7.1 unless the envelope sender is the user's own. Unavailable where that is not known."""
    if reverse_path is not None and not await account.may_send_as(reverse_path):
        raise MailError(NOT_AUTHORISED, "The sender address is not yours")


async def check_from_field(account: IAccount, header: bytes, reverse_path: Address | None) -> None:
    """550 5.7.1 unless there is one From field and all its addresses are the user's own.

    ``reverse_path`` has been checked already and is not asked about again. A From that cannot be
    read is not somebody else's benefit: it is refused.
    """
    fields = [_body(row) for row in read_header(header, 0, len(header)).rows if row[1].lower() == b"from"]
    if len(fields) != 1:
        raise MailError(NOT_AUTHORISED, "One From field is needed")
    addresses = set(header_addresses(fields[0]))
    named = [entry for entry in parse_addresses(fields[0]) if entry.host is not None]
    if not addresses or len(header_addresses(fields[0])) != len(named):
        raise MailError(NOT_AUTHORISED, "The From field has an address that cannot be read")
    for address in sorted(addresses):
        if address != reverse_path and not await account.may_send_as(address):
            raise MailError(NOT_AUTHORISED, "The address in the From field is not yours")


def _body(row: FieldRow) -> bytes:
    return row[0].partition(b":")[2]
