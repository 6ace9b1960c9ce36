"""What of a transaction goes into the queue: envelopes by reverse-path, and copies for what is forwarded.

Recipients a client named itself keep its reverse-path. What an address of ours forwards gets

* the reverse-path of the list's owner where there is one, a rewritten one (:mod:`mailsrv.routing.srs`)
  where the sender is not of a domain of ours, and the null one where it had that;
* a Delivered-To field with the forwarding address on top. A message that comes back with it is in a loop.

The field stands in the message itself where all of it is for one forward-path. Otherwise each forwarding address
has a copy of its own: recipients are not to learn of each other (RFC 5321 7.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from attrs import frozen

from mailsrv.address import Address
from mailsrv.delivery.recipients import OnwardTarget, Recipient
from mailsrv.directory.domains import LocalDomains
from mailsrv.errors import MailError
from mailsrv.interfaces.envelope import EnvelopeParameters, Notify, RecipientParameters
from mailsrv.interfaces.queue import LOCAL, OnwardDelivery, OnwardRecipient
from mailsrv.message import format_field, iterate_fields
from mailsrv.routing.srs import SenderRewriting
from mailsrv.status import ROUTING_LOOP

_ANGLES = re.compile(r"^<(.*)>$")


@frozen
class SenderPolicy:
    """Under which reverse-path mail is forwarded. Without ``rewriting`` the sender stays."""

    domains: LocalDomains
    rewriting: SenderRewriting | None = None
    domain: str = ""
    """Of rewritten senders; "": that of the forwarding address."""

    def forwarding_sender(self, sender: Address | None, target: OnwardTarget, now: float) -> Address | None:
        """The reverse-path for a target; None is the null one, which stays null whatever is configured."""
        if sender is None or target.forwarder is None:
            return sender
        if target.owner is not None:
            return target.owner
        if self.rewriting is None or sender.domain in self.domains:
            return sender
        return self.rewriting.rewrite(sender, self.domain or target.forwarder.domain, now)


@frozen
class ForwardedCopy:
    """A copy with a Delivered-To field of its own, and who gets it."""

    forwarder: Address
    deliveries: tuple[OnwardDelivery, ...]


@frozen
class OnwardPlan:
    """Everything of a transaction that is the queue's."""

    direct: tuple[OnwardDelivery, ...] = ()
    """With the message as it is."""
    copies: tuple[ForwardedCopy, ...] = ()


def plan_onward(
    recipients: Iterable[tuple[Recipient, Sequence[OnwardTarget]]],
    *,
    held: Iterable[tuple[Recipient, Sequence[Address]]],
    sender: Address | None,
    parameters: EnvelopeParameters,
    account: str,
    marked: Address | None,
    policy: SenderPolicy,
    now: float,
) -> OnwardPlan:
    """Group recipients by reverse-path and copy; each address is in a copy once.

    ``held``: recipients here who get the message later (RFC 4865), with the addresses to resolve then.
    ``marked``: the address whose Delivered-To stands in the message already.
    """
    # By the forwarding address (None: the message as it is), then by reverse-path, then by address.
    groups: dict[Address | None, dict[Address | None, dict[Address, OnwardRecipient]]] = {}
    for recipient, addresses in held:
        given = recipient.parameters
        for address in addresses:
            waiting = OnwardRecipient(address, LOCAL, given.notify, given.original_recipient)
            groups.setdefault(None, {}).setdefault(sender, {}).setdefault(address, waiting)
    # A list forwards to thousands under one reverse-path: it is not signed for each.
    reverse_paths: dict[tuple[Address | None, Address | None], Address | None] = {}
    for recipient, targets in recipients:
        for target in targets:
            copy = None if target.forwarder in (None, marked) else target.forwarder
            by = (target.forwarder, target.owner)
            if by not in reverse_paths:
                reverse_paths[by] = policy.forwarding_sender(sender, target, now)
            reverse_path = reverse_paths[by]
            group = groups.setdefault(copy, {}).setdefault(reverse_path, {})
            group.setdefault(target.address, _onward_recipient(recipient, target))
    direct: tuple[OnwardDelivery, ...] = ()
    copies: list[ForwardedCopy] = []
    for forwarder, senders in groups.items():
        deliveries = tuple(
            OnwardDelivery(reverse_path, tuple(group.values()), parameters, account)
            for reverse_path, group in senders.items()
        )
        if forwarder is None:
            direct = deliveries
        else:
            copies.append(ForwardedCopy(forwarder, deliveries))
    return OnwardPlan(direct, tuple(copies))


def _onward_recipient(recipient: Recipient, target: OnwardTarget) -> OnwardRecipient:
    given = recipient.parameters
    notify = given.notify
    if recipient.is_several:
        # RFC 3461 5.2.7.3: the success of a list was its expansion, which is told here.
        notify &= ~Notify.SUCCESS
        if given.notify and not notify:
            notify = Notify.NEVER
    original = given.original_recipient
    if not original and target.address != recipient.forward_path:
        original = original_recipient_of(recipient.forward_path)
    return OnwardRecipient(target.address, target.destination, notify, original)


def original_recipient_of(address: Address) -> str:
    """What ORCPT says of an address whose client said nothing (RFC 3461 4.2; RFC 6533 3)."""
    return f"{'rfc822' if address.is_ascii else 'utf-8'};{address}"


def delivered_to_field(forwarder: Address) -> bytes:
    """The mark of having been forwarded by this address."""
    return format_field(b"Delivered-To", str(forwarder).encode())


def check_loops(header: bytes, forwarders: Iterable[Address]) -> None:
    """Raise 5.4.6 for a message that one of these has forwarded before."""
    if b"delivered-to" not in header.lower():
        return
    marks = set()
    for found in iterate_fields(header):
        if found.name.lower() == b"delivered-to":
            text = found.unfolded.decode("utf-8", "replace")
            marks.add(_ANGLES.sub(r"\1", text).lower())
    for forwarder in forwarders:
        if str(forwarder).lower() in marks:
            raise MailError(ROUTING_LOOP, "Mail forwarding loop", cause=f"Delivered-To {forwarder}")


def parameters_of(given: RecipientParameters | None) -> RecipientParameters:
    """What RCPT said, or nothing."""
    return given if given is not None else _NOTHING_SAID


_NOTHING_SAID = RecipientParameters()
