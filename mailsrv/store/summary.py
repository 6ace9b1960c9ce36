"""What the index keeps of a message's structure, and how it is made (DESIGN decision 12: scanned once)."""

from __future__ import annotations

from attrs import frozen

from mailsrv.interfaces.mailbox import MessageSummary, Uid


@frozen
class StoredSummary:
    """The part of a :class:`MessageSummary` that depends on nothing but the octets."""

    size_octets: int
    header_octets: int
    imap_envelope: bytes
    body_structure: bytes
    body: bytes
    cached_fields: bytes
    sent_day: int

    def for_message(self, uid: int, internal_date: int, date_offset_minutes: int, email_id: str = "") -> MessageSummary:
        """The summary of the message ``uid``."""
        return MessageSummary(
            uid=Uid(uid),
            size_octets=self.size_octets,
            internal_date=internal_date,
            date_offset_minutes=date_offset_minutes,
            header_octets=self.header_octets,
            imap_envelope=self.imap_envelope,
            body_structure=self.body_structure,
            body=self.body,
            cached_fields=self.cached_fields,
            sent_day=self.sent_day,
            email_id=email_id,
        )


def stored_summary(octets: bytes) -> StoredSummary:
    """Scan a message. Costs CPU: call it in a thread."""
    from mailsrv.message import summarise

    found = summarise(octets)
    return StoredSummary(
        size_octets=found.size_octets,
        header_octets=found.header_octets,
        imap_envelope=found.imap_envelope,
        body_structure=found.body_structure,
        body=found.body,
        cached_fields=found.cached_fields,
        sent_day=found.sent_day,
    )
