"""What mailboxes of others are called (RFC 2342): ``Other Users/ADDRESS`` is an INBOX, the others stand below it.

An address is one level of the name, so a delimiter in it, and the wildcards of LIST, are written as ``=`` and two
hexadecimal digits, and ``=`` itself, too. Each mailbox has exactly one name: what is not written so is nobody's.
"""

from __future__ import annotations

import re

from mailsrv.address import Address
from mailsrv.interfaces.mailbox import DELIMITER, NoSuchSharedMailbox

ROOT = "Other Users"
PREFIX = ROOT + DELIMITER
_INBOX = "INBOX"
_ESCAPED = re.compile(r"[/%*=\\]")


def is_others(name: str) -> bool:
    """Whether a name belongs to the namespace of others, be there such a mailbox or not."""
    return name == ROOT or name.startswith(PREFIX)


def account_name(address: Address) -> str:
    """The name of an account's INBOX."""
    return PREFIX + _ESCAPED.sub(lambda found: f"={ord(found[0]):02X}", str(address))


def full_name(account: str, mailbox: str) -> str:
    """The name of an account's mailbox. ``account`` is its :func:`account_name`."""
    return account if mailbox == _INBOX else account + DELIMITER + mailbox


def split_name(name: str) -> tuple[str, str]:
    """The account's name and its own name of the mailbox. Raises NoSuchSharedMailbox for what cannot be one."""
    first, delimiter, mailbox = name.removeprefix(PREFIX).partition(DELIMITER)
    if not first or name == ROOT:
        raise NoSuchSharedMailbox
    if not delimiter:
        return PREFIX + first, _INBOX
    level = mailbox.partition(DELIMITER)[0]
    if not mailbox or mailbox == _INBOX or (level.upper() == _INBOX and level != _INBOX):
        # INBOX in any case is the same mailbox to its owner; here it has its one name already.
        raise NoSuchSharedMailbox
    return PREFIX + first, mailbox


def may_begin_with(account: str, prefix: str) -> bool:
    """Whether any name of the account's mailboxes begins with ``prefix``."""
    return account.startswith(prefix) or prefix.startswith(account + DELIMITER)
