"""What a mailbox may be called: the limits of the store, and the special name INBOX (RFC 9051 section 5.1).

Names are Unicode with ``/`` between levels. Refused are control characters, lone surrogates,
empty levels, and what is longer or deeper than the settings allow (R-PATH-1, R-CTL-1).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

from attrs import evolve

from mailsrv.interfaces.mailbox import DELIMITER, InvalidMailboxName, LimitReached, SpecialUse
from mailsrv.store.settings import StoreSettings

INBOX = "INBOX"
_OTHERS_LEVELS = 2
_OTHERS_OCTETS = 400
"""An address has 320 at most, some of them escaped (:mod:`mailsrv.sharing.names`)."""

INITIAL_MAILBOXES: tuple[tuple[str, SpecialUse | None], ...] = (
    (INBOX, None),
    ("Drafts", SpecialUse.DRAFTS),
    ("Sent", SpecialUse.SENT),
    ("Junk", SpecialUse.JUNK),
    ("Trash", SpecialUse.TRASH),
    ("Archive", SpecialUse.ARCHIVE),
)
"""What a new account has, with RFC 6154 attributes; all subscribed."""


def canonical_name(name: str) -> str:
    """``name`` with INBOX, or a first level INBOX, spelt so: they are case-insensitive (RFC 9051 5.1)."""
    if len(name) >= 5 and name[:5].upper() == INBOX and (len(name) == 5 or name[5] == DELIMITER):
        return INBOX + name[5:]
    return name


def checked_name(name: str, settings: StoreSettings) -> str:
    """The canonical form of a name that may be created; raises :class:`InvalidMailboxName`."""
    name = canonical_name(name)
    try:
        octets = name.encode()
    except UnicodeEncodeError:
        raise InvalidMailboxName("That mailbox name is not valid Unicode") from None
    if not name or len(octets) > settings.mailbox_name_octets:
        raise InvalidMailboxName("That mailbox name is too long" if name else "A mailbox needs a name")
    if any(unicodedata.category(character) == "Cc" or character in "\u2028\u2029" for character in name):
        raise InvalidMailboxName("Control characters cannot be used in a mailbox name")
    levels = name.split(DELIMITER)
    if not all(levels):
        raise InvalidMailboxName("A level of that mailbox name is empty")
    if len(levels) > settings.mailbox_depth:
        raise InvalidMailboxName("That mailbox name has too many levels")
    return name


def checked_subscription(name: str, settings: StoreSettings) -> str:
    """As :func:`checked_name`; a mailbox of somebody else has the name of its account before its own."""
    octets = settings.mailbox_name_octets + _OTHERS_OCTETS
    return checked_name(
        name, evolve(settings, mailbox_name_octets=octets, mailbox_depth=settings.mailbox_depth + _OTHERS_LEVELS)
    )


def parents(name: str) -> Iterator[str]:
    """The superior names, nearest first."""
    while DELIMITER in name:
        name = name.rpartition(DELIMITER)[0]
        yield name


def is_inferior(name: str, superior: str) -> bool:
    """Whether ``name`` stands below ``superior``."""
    return name.startswith(superior + DELIMITER)


def list_order(name: str) -> tuple[bool, str]:
    """Sort key of LIST: INBOX first."""
    return (name != INBOX, name)


def renamed(name: str, old: str, new: str) -> str:
    """``name``, which is ``old`` or below it, after RENAME old new."""
    return new + name[len(old) :]


def check_keywords(keywords: Iterable[str], known: frozenset[str], settings: StoreSettings) -> None:
    """Raise :class:`LimitReached` where these would exceed the keyword limits of a mailbox knowing ``known``."""
    new = [keyword for keyword in keywords if keyword not in known]
    if any(len(keyword.encode("utf-8", "surrogatepass")) > settings.keyword_octets for keyword in new):
        raise LimitReached("A keyword is too long")
    if new and len(known) + len(new) > settings.keyword_count:
        raise LimitReached("Too many keywords in this mailbox")
