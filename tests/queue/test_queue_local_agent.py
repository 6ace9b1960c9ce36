"""Delivery of queued mail here: one journal record delivers and settles."""

from __future__ import annotations

from typing import Any

import pytest

from mailsrv.address import Address
from mailsrv.errors import InsufficientStorage, MailError, Unavailable
from mailsrv.interfaces.content import FileContent
from mailsrv.interfaces.envelope import NOTIFY_UNSAID, Notify
from mailsrv.interfaces.journal import JournalRecord, LocalDelivery
from mailsrv.interfaces.queue import LOCAL, Destination, OnwardRecipient, QueueSettlement, Transport
from mailsrv.queue.local_agent import LocalAgent, Resolved
from mailsrv.queue.runner import QueueRunner
from mailsrv.status import BAD_MAILBOX
from mailsrv.testing.journal import MemorySpool
from tests.queue.queue_rig import ALICE, CONTENT, POSTMASTER, Rig, declined, mx

BOB = Address("bob", "example.test")


class LocalRig(Rig):
    """A rig whose local agent is the real one. ``known`` says what addresses stand for."""

    def __init__(self, inline_limit: int = 1 << 20, directory: str = "") -> None:
        self.known: dict[Address, Resolved | MailError] = {BOB: Resolved((LocalDelivery(BOB, recipient=str(BOB)),))}
        self.spool = MemorySpool(inline_limit, directory)
        super().__init__()

    def make_runner(self) -> QueueRunner:
        agent = LocalAgent(
            self.store, self.journal, self.spool, self.notices, self._resolve, seconds=self.clock.seconds
        )
        agents = {Transport.MX: self.agent, Transport.LOCAL: agent}
        return QueueRunner(
            self.settings, self.store, self.journal, agents, self.notices, clock=self.clock, random=lambda: 0.5
        )

    async def _resolve(self, address: Address, entry: object) -> Resolved:
        found = self.known.get(address, MailError(BAD_MAILBOX, "No such user"))
        if isinstance(found, MailError):
            raise found
        return found

    def send_here(self, *addresses: Address, notify: Notify = NOTIFY_UNSAID, **more: Any) -> None:
        self.send(*(OnwardRecipient(each, LOCAL, notify) for each in addresses or (BOB,)), **more)

    @property
    def mailboxes(self) -> list[str]:
        return [str(delivery.account) for delivery, _ in self.store.kept.mailboxes]


def test_r_q_2_mail_and_the_end_of_its_recipient_are_one_record():
    rig = LocalRig().start()
    rig.send_here()
    assert rig.mailboxes == ["bob@example.test"]
    assert rig.endings == [("bob@example.test", "delivered")]
    (_, octets), *_ = rig.store.kept.mailboxes
    assert octets == b"Return-Path: <alice@example.test>\r\n" + CONTENT
    assert rig.store.leased == set()


def test_if_the_journal_refuses_nothing_has_happened_and_it_is_tried_again():
    rig = LocalRig()
    rig.send_here()
    rig.journal_disk.failure = InsufficientStorage()
    rig.start()
    assert rig.mailboxes == []
    assert rig.endings == []
    rig.journal_disk.failure = None
    rig.advance(301)
    assert rig.mailboxes == ["bob@example.test"]
    assert rig.endings == [("bob@example.test", "delivered")]


def test_an_unknown_address_bounces_and_the_others_get_their_mail():
    rig = LocalRig().start()
    rig.known[ALICE] = Resolved((LocalDelivery(ALICE),))
    rig.send_here(BOB, Address("nobody", "example.test"))
    assert rig.mailboxes == ["bob@example.test", "alice@example.test"]
    assert b"Final-Recipient: rfc822; nobody@example.test" in rig.store.kept.mailboxes[1][1]
    assert ("nobody@example.test", "bounced") in rig.endings


def test_a_directory_that_does_not_answer_lets_it_wait():
    rig = LocalRig().start()
    kept = rig.known[BOB]
    rig.known[BOB] = Unavailable()
    rig.send_here()
    assert rig.endings == []
    rig.known[BOB] = kept
    rig.advance(301)
    assert rig.mailboxes == ["bob@example.test"]


def test_an_alias_to_elsewhere_goes_on_with_what_was_asked_for():
    rig = LocalRig().start()
    elsewhere = Address("carol", "example.org")
    rig.known[BOB] = Resolved((), (OnwardRecipient(elsewhere, mx()),))
    rig.send_here(notify=Notify.SUCCESS | Notify.FAILURE)
    (consignment,) = rig.agent.consignments
    (recipient,) = consignment.recipients
    assert consignment.entry.reverse_path == ALICE
    assert recipient.notify == Notify.SUCCESS | Notify.FAILURE
    assert recipient.original_recipient == "rfc822;bob@example.test"


def test_what_goes_on_elsewhere_is_not_said_to_be_delivered_here(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = LocalRig().start()
    committed: list[JournalRecord] = []
    commit = rig.journal.commit

    def remembering(record: JournalRecord) -> Any:
        committed.append(record)
        return commit(record)

    monkeypatch.setattr(rig.journal, "commit", remembering)
    for found in (rig.known[BOB], Resolved((), (OnwardRecipient(Address("carol", "example.org"), mx()),))):
        rig.known[BOB] = found
        rig.send_here()
    said = [
        delivery.text
        for record in committed
        for message in record.messages
        for delivery in message.deliveries
        if isinstance(delivery, QueueSettlement)
    ]
    assert said == ["Delivered here", "In the queue again: <carol@example.org> by mx:example.org"]


def test_an_alias_to_several_says_expanded_and_asks_no_more_for_successes():
    rig = LocalRig().start()
    rig.known[ALICE] = Resolved((LocalDelivery(ALICE),))
    rig.known[BOB] = Resolved(
        (), tuple(OnwardRecipient(Address(name, "example.org"), mx()) for name in ("carol", "dora"))
    )
    rig.send_here(notify=Notify.SUCCESS)
    assert {recipient.notify for one in rig.agent.consignments for recipient in one.recipients} == {Notify.NEVER}
    ((_, notice),) = rig.store.kept.mailboxes
    assert b"Action: expanded" in notice


def test_a_success_here_says_delivered():
    rig = LocalRig().start()
    rig.known[ALICE] = Resolved((LocalDelivery(ALICE),))
    rig.send_here(notify=Notify.SUCCESS)
    assert rig.mailboxes == ["bob@example.test", "alice@example.test"]
    assert b"Action: delivered" in rig.store.kept.mailboxes[1][1]


def test_two_addresses_of_one_mailbox_get_one_copy():
    rig = LocalRig().start()
    rig.known[Address("robert", "example.test")] = rig.known[BOB]
    rig.send_here(BOB, Address("robert", "example.test"))
    assert rig.mailboxes == ["bob@example.test"]
    assert len(rig.endings) == 2


def test_an_address_that_leads_back_to_itself_is_refused():
    rig = LocalRig().start()
    rig.known[ALICE] = Resolved((LocalDelivery(ALICE),))
    rig.known[BOB] = Resolved((), (OnwardRecipient(BOB, LOCAL),))
    rig.send_here()
    assert rig.endings[0] == ("bob@example.test", "bounced")


def test_a_recipient_that_stands_for_nobody_is_discarded():
    rig = LocalRig().start()
    rig.known[BOB] = Resolved()
    rig.send_here()
    assert rig.endings == [("bob@example.test", "delivered")]
    assert rig.mailboxes == []


@pytest.mark.parametrize("is_read_in_pieces", [False, True])
def test_large_content_goes_by_a_file_of_its_own(is_read_in_pieces, tmp_path, monkeypatch):
    rig = LocalRig(1000, str(tmp_path))
    content = b"Subject: large\r\n\r\n" + b"x" * 600_000 + b"\r\n"
    committed: list[object] = []
    commit = rig.journal.commit

    def watch(record):
        committed.extend(type(message.content) for message in record.messages)
        return commit(record)

    rig.send_here(content=content)
    monkeypatch.setattr(rig.journal, "commit", watch)
    if is_read_in_pieces:
        opened = rig.store.open_content
        monkeypatch.setattr(rig.store, "open_content", lambda entry: opened(entry).addCallback(without_octets))
    rig.start()
    assert committed == [FileContent]
    assert rig.store.kept.mailboxes[0][1].endswith(content)
    assert rig.spool.open_writers == 0


def without_octets(content):
    content.octets = None
    return content


def test_content_that_cannot_be_read_leaves_no_spool_file(monkeypatch):
    rig = LocalRig()
    rig.send_here()
    rig.store.kept.contents.clear()
    rig.start()
    assert rig.mailboxes == []
    assert rig.spool.open_writers == 0


def test_the_agent_carries_parameters_and_account_onwards():
    rig = LocalRig().start()
    rig.known[BOB] = Resolved((), (OnwardRecipient(Address("x", "y.example"), Destination(Transport.MX, "y.example")),))
    rig.send_here(account="alice@example.test", envelope_id="E1")
    entry = rig.agent.consignments[0].entry
    assert entry.account == "alice@example.test"
    assert entry.parameters.envelope_id == "E1"
    assert entry.reverse_path == ALICE


def test_a_postmaster_who_forwards_to_a_place_that_refuses_makes_no_loop():
    rig = LocalRig()
    rig.known[POSTMASTER] = Resolved((), (OnwardRecipient(Address("admin", "refusing.example"), mx()),))
    rig.agent.answer = lambda consignment: declined(consignment, "5.7.1")
    rig.start()
    rig.send(reverse_path=None)
    rig.advance(86_400)
    assert rig.endings == [
        ("bob@example.org", "bounced"),
        ("postmaster@example.test", "delivered"),
        ("admin@refusing.example", "bounced"),
    ]
    assert not rig.store.kept.rows
