"""What STORE makes of a message's flags (RFC 9051 section 6.4.6)."""

from __future__ import annotations

from mailsrv.interfaces.mailbox import FlagOperation
from mailsrv.store.view import StoredFlags


def changed_flags(before: StoredFlags, operation: FlagOperation, bits: int, keywords: str) -> StoredFlags:
    """``before`` after the operation with these flags. Keywords are compared without case, kept as first spelt."""
    if operation is FlagOperation.REPLACE:
        return bits, _as_spelt(before[1], keywords)
    if operation is FlagOperation.ADD:
        return before[0] | bits, _joined(before[1], keywords) if keywords else before[1]
    return before[0] & ~bits, _without(before[1], keywords) if keywords else before[1]


def _as_spelt(before: str, keywords: str) -> str:
    if before == keywords or not before or not keywords:
        return keywords
    spelling = {keyword.lower(): keyword for keyword in before.split(" ")}
    return " ".join(sorted(spelling.get(keyword.lower(), keyword) for keyword in keywords.split(" ")))


def _joined(before: str, keywords: str) -> str:
    if not before:
        return keywords
    spelling = {keyword.lower(): keyword for keyword in keywords.split(" ")}
    spelling.update((keyword.lower(), keyword) for keyword in before.split(" "))
    return " ".join(sorted(spelling.values()))


def _without(before: str, keywords: str) -> str:
    if not before:
        return before
    removed = {keyword.lower() for keyword in keywords.split(" ")}
    return " ".join(keyword for keyword in before.split(" ") if keyword.lower() not in removed)
