"""A receiver over memory twins of directory, store, journal and spool."""

from functools import partial
from typing import Any

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import execute, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.coroutines import next_turn
from mailsrv.delivery.receiver import MessageReceiver
from mailsrv.delivery.settings import DeliverySettings
from mailsrv.directory.address_rights import AddressRights
from mailsrv.directory.domains import LocalDomains
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.directory.posting import PostingPolicy
from mailsrv.directory.resolve import AddressResolver
from mailsrv.directory.settings import DomainSettings
from mailsrv.errors import Unavailable
from mailsrv.filters.pipeline import FilterPipeline
from mailsrv.interfaces.account import IAccount
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.delivery import MailParameters
from mailsrv.interfaces.envelope import BodyType, EnvelopeParameters
from mailsrv.interfaces.queue import OnwardDelivery
from mailsrv.routing.rules import TransportRules
from mailsrv.routing.settings import RouteSettings
from mailsrv.routing.srs import SenderRewriting
from mailsrv.store.memory import MemoryApplier, MemoryMailStore
from mailsrv.testing.filters import pipeline_of, session_view
from mailsrv.testing.journal import MemoryJournal, MemorySpool

ALICE = Address("alice", "example.test")
BOB = Address("bob", "example.test")
FULL = Address("full", "example.test")
STAFF = Address("staff", "example.test")
SENDER = Address("sender", "example.net")
NOW = 1_000_000_000


@implementer(IAccount)
@define(slots=False)
class Account:
    address: Address
    others: tuple = ()
    is_down: bool = False
    display_name: str = ""
    administrator: Address | None = None

    def open_mailboxes(self):
        raise NotImplementedError

    def may_send_as(self, address):
        if self.is_down:
            return fail(Unavailable(cause="test"))
        return succeed(address == self.address or address in self.others)


@define
class Queue:
    """As much of a queue as transactions ask."""

    refusal: object = None
    asked: list = field(factory=list)

    def check_acceptance(self, octets, recipients):
        self.asked.append((octets, recipients))
        return self.refusal


@define
class House:
    receiver: MessageReceiver
    directory: MemoryDirectory
    store: MemoryMailStore
    journal: MemoryJournal
    spool: MemorySpool
    clock: Clock
    service: str
    queue: Queue | None = None

    def onward(self):
        """(reverse-path, recipients with their destinations) of everything given to the queue."""
        return [
            (
                str(delivery.reverse_path) if delivery.reverse_path else "",
                {str(each.address): str(each.destination) for each in delivery.recipients},
            )
            for record in self.journal.records
            for message in record.messages
            for delivery in message.deliveries
            if isinstance(delivery, OnwardDelivery)
        ]

    def session(self, **changes):
        account = {"account": ALICE} if self.service == "submission" else {}
        return session_view(**{"service": self.service, **account, **changes})

    def begin(self, reverse_path=SENDER, account=None, session=None, **parameters):
        return self.receiver.begin(session or self.session(), reverse_path, mail_parameters(**parameters), account)

    def inbox(self, account=ALICE):
        """The messages of an account, as octets."""
        mailbox = self.store.account(account).find("INBOX")
        return [mailbox._messages[uid].octets for uid in mailbox.uids]

    def content(self):
        """The content of the one record in the journal."""
        (record,) = self.journal.records
        (message,) = record.messages
        if isinstance(message.content, InlineContent):
            return message.content.octets
        with open(message.content.path, "rb") as file:
            return file.read()


DOMAINS = (DomainSettings("example.test"),)
REWRITING = SenderRewriting([b"secret"])


def make_house(
    service="mx",
    *,
    filters=(),
    inline_limit=128 * 1024,
    apply=True,
    routes=None,
    domains=DOMAINS,
    signer=None,
    lists=(),
    run_in_thread=execute,
    **settings,
):
    """``lists``: rules on who may send. ``routes``: with a queue, and these transport rules; None: nothing leaves."""
    clock = Clock()
    clock.advance(NOW)
    directory = MemoryDirectory()
    for address in (ALICE, BOB, STAFF):
        directory.add_user(address, "secret")
    directory.add_user(FULL, "secret", quota_octets=200)
    directory.add_alias(Address("both", "example.test"), [ALICE, BOB])
    directory.add_alias(Address("outside", "example.test"), [ALICE, Address("friend", "example.org")])
    store = MemoryMailStore()
    journal = MemoryJournal(MemoryApplier(store) if apply else None)
    spool = MemorySpool(inline_limit)
    pipeline = filters if isinstance(filters, FilterPipeline) else pipeline_of(*filters, clock=clock)
    local_domains = LocalDomains(domains)
    queue: Any = None if routes is None else Queue()
    router = (
        None if routes is None else TransportRules([RouteSettings(**each) for each in routes], local_domains.all_names)
    )
    resolver = AddressResolver(local_domains, directory, take_turns=partial(next_turn, clock))
    posting = PostingPolicy(
        resolver,
        AddressRights(local_domains, directory, lists),
        believes_senders=settings.get("believe_list_senders", False),
    )
    receiver = MessageReceiver(
        evolve(DeliverySettings(), **settings),
        service=service,
        hostname="mail.example.test",
        resolver=resolver,
        filters=pipeline,
        spool=spool,
        journal=journal,
        store=store,
        clock=clock,
        router=router,
        queue=queue,
        rewriting=None if routes is None else REWRITING,
        signer=signer,
        posting=posting,
        run_in_thread=run_in_thread,
    )
    return House(receiver, directory, store, journal, spool, clock, service, queue)


@pytest.fixture
def house_factory():
    return make_house


def mail_parameters(size=None, *, is_8bit=False, **envelope):
    """What MAIL said."""
    body = BodyType.EIGHT_BIT if is_8bit else BodyType.SEVEN_BIT
    return MailParameters(size, EnvelopeParameters(body=body, **envelope))
