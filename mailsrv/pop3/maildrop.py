"""The maildrop as one session sees it: fixed at log-in, numbered from 1 (RFC 1939 section 4)."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from mailsrv.interfaces.mailbox import Uid


class Maildrop:
    """Messages and marks. Unique-ids are ``<uidvalidity>.<uid>``: stable for as long as IMAP's UIDs are."""

    __slots__ = ("_deleted", "_octets_left", "_sizes", "_uids", "uid_validity")

    def __init__(self, uid_validity: int, uids: array[int], sizes: array[int]) -> None:
        if len(uids) != len(sizes):
            raise ValueError("a size for each message")
        self.uid_validity = uid_validity
        self._uids = uids
        self._sizes = sizes
        self._deleted: set[int] = set()
        self._octets_left = sum(sizes)

    def __len__(self) -> int:
        """How many there were at log-in; numbers go up to this."""
        return len(self._uids)

    @property
    def messages_left(self) -> int:
        """Messages not marked as deleted (STAT)."""
        return len(self._uids) - len(self._deleted)

    @property
    def octets_left(self) -> int:
        """Their size together (STAT)."""
        return self._octets_left

    def holds(self, number: int) -> bool:
        """Whether there is such a message, not marked as deleted."""
        return 0 < number <= len(self._uids) and number not in self._deleted

    def uid(self, number: int) -> Uid:
        """The message's UID in INBOX."""
        return Uid(self._uids[number - 1])

    def size(self, number: int) -> int:
        """Its size in octets, as RETR sends it before dot-stuffing."""
        return self._sizes[number - 1]

    def unique_id(self, number: int) -> str:
        """1 to 70 octets of %x21-7E (RFC 1939 7)."""
        return f"{self.uid_validity}.{self._uids[number - 1]}"

    def numbers(self) -> Iterator[int]:
        """Of the messages not marked as deleted."""
        deleted = self._deleted
        return (number for number in range(1, len(self._uids) + 1) if number not in deleted)

    def mark_deleted(self, number: int) -> None:
        """DELE; nothing is removed before QUIT."""
        self._deleted.add(number)
        self._octets_left -= self._sizes[number - 1]

    def unmark_all(self) -> None:
        """RSET."""
        self._octets_left += sum(self._sizes[number - 1] for number in self._deleted)
        self._deleted.clear()

    def deleted_uids(self) -> list[Uid]:
        """What QUIT removes."""
        return [Uid(self._uids[number - 1]) for number in sorted(self._deleted)]
