"""What became of every recipient of a run of the queue::

    deliveries at next hops + ends with a notice of failure + silent ends  =  1 + uncertain

where *uncertain* counts what SMTP cannot know (RFC 1047): the next hop has taken the message and we were not told, or
were killed before it was written down. A notice is in the sender's mailbox exactly once.
"""

from __future__ import annotations

from collections import Counter

from attrs import define, field

from mailsrv.address import Address
from mailsrv.interfaces.envelope import Notify
from mailsrv.interfaces.queue import Ending
from mailsrv.testing.queue import QueueState

SENDER = Address("sender", "example.test")
POSTMASTER = Address("postmaster", "example.test")

Key = tuple[int, int]
"""An entry of the queue, and a recipient of it."""


class LostAccount(AssertionError):
    """A recipient was lost, or served twice without cause."""


@define(eq=False)
class Account:
    """Who was told what; the rest is in what the queue keeps."""

    delivered: Counter[Key] = field(factory=Counter)
    uncertain: Counter[Key] = field(factory=Counter)
    unwritten: set[Key] = field(factory=set)
    """Taken by a next hop; whether that is durable here is seen at a crash."""
    acknowledged: set[str] = field(factory=set)
    """Transactions the sender got a 250 for."""
    refused: set[str] = field(factory=set)

    def taken(self, key: Key, *, is_reply_lost: bool) -> None:
        """A next hop has taken the message."""
        self.delivered[key] += 1
        if is_reply_lost:
            self.uncertain[key] += 1
        else:
            self.unwritten.add(key)

    def look(self, kept: QueueState) -> None:
        """What has ended by now is durable."""
        if self.unwritten:
            self.unwritten = {key for key in self.unwritten if kept.row(*key) is not None}

    def crashed(self, kept: QueueState) -> None:
        """A new process has replayed its journal; what it has still to do will be tried again."""
        self.look(kept)
        self.uncertain.update(self.unwritten)
        self.unwritten.clear()

    def check(self, kept: QueueState) -> None:
        """Raises :class:`LostAccount`."""
        if kept.places:
            raise LostAccount(f"still waiting: {list(kept.places)}")
        known = {entry.transaction_id for entry in kept.added}
        if not self.acknowledged <= known:
            raise LostAccount(f"accepted and lost: {self.acknowledged - known}")
        if self.refused & known:
            raise LostAccount(f"refused and queued: {self.refused & known}")
        notices = _notices(kept)
        for entry, recipient, ending in kept.ended:
            if recipient.address in {SENDER, POSTMASTER}:
                continue
            key = entry.id, recipient.id
            total = self.delivered[key] + (ending is not Ending.DELIVERED)
            if total != 1 + self.uncertain[key]:
                raise LostAccount(f"{key}: delivered {self.delivered[key]}, {ending}, uncertain {self.uncertain[key]}")
            is_told = ending is not Ending.DELIVERED and not recipient.notify & Notify.NEVER
            told = notices[entry.transaction_id, str(recipient.address), "failed"]
            if told != is_told:
                raise LostAccount(f"{key}: {ending}, {recipient.notify!r}: told {told} times")
            successes = notices[entry.transaction_id, str(recipient.address), "relayed"]
            # With DELIVERBY, also who asked for nothing learns where it is not kept (RFC 2852 4.1.4.2).
            may_be_told = recipient.notify & Notify.SUCCESS or (
                entry.parameters.deliver_by is not None and not recipient.notify & Notify.NEVER
            )
            if successes > (ending is Ending.DELIVERED and bool(may_be_told)):
                raise LostAccount(f"{key}: {successes} notices of success")
            if notices[entry.transaction_id, str(recipient.address), "delayed"] > 1:
                raise LostAccount(f"{key}: told of the delay more than once")


def _notices(kept: QueueState) -> Counter[tuple[str, str, str]]:
    """(transaction id of the message, recipient, action) of all notices in mailboxes."""
    found: Counter[tuple[str, str, str]] = Counter()
    for _, octets in kept.mailboxes:
        text = octets.decode()
        about = text[text.index("name the message:") + 17 :].split(None, 1)[0]
        for part in text.split("Final-Recipient: rfc822; ")[1:]:
            address, action, _ = part.split("\r\n", 2)
            found[about, address, action.removeprefix("Action: ")] += 1
    return found
