"""A POP3 listener over the memory store, with users whose passwords are known."""

import pytest
from attrs import define, field
from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.errors import Unavailable
from mailsrv.interfaces.account import IAccount, InvalidCredentials
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.mailbox import NewMessage
from mailsrv.pop3.factory import Pop3ServerFactory
from mailsrv.pop3.settings import Pop3Settings
from mailsrv.store.memory import MemoryMailStore
from mailsrv.wire.connection_limits import ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.tls_mode import TlsMode

ALICE = Address("alice", "example.test")


@implementer(IAccount)
class StoredAccount:
    display_name = ""
    administrator = None

    def __init__(self, address, store):
        self.address = address
        self._store = store

    def open_mailboxes(self):
        return self._store.open_account(self.address)

    def may_send_as(self, address):
        return succeed(address == self.address)


@define
class Realm:
    """Portal in one object: twisted.cred is the auth folder's business."""

    store: MemoryMailStore
    seen: list = field(factory=list)
    failure: Exception | None = None
    logouts: int = 0

    def login(self, credentials, mind, interface):
        self.seen.append(credentials)
        if self.failure is not None:
            return fail(self.failure)
        if credentials.authcid == "down@example.test":
            return fail(Unavailable(cause="test"))
        name = credentials.authcid.partition("@")[0]
        if credentials.password != f"{name} secret":
            return fail(InvalidCredentials())
        return succeed((IAccount, StoredAccount(Address(name, "example.test"), self.store), self._log_out))

    def _log_out(self):
        self.logouts += 1


@define
class Server:
    factory: Pop3ServerFactory
    store: MemoryMailStore
    realm: Realm
    clock: Clock

    def add(self, octets, account=ALICE):
        self.store.account(account).append("INBOX", [NewMessage(InlineContent(octets))])

    def inbox(self, account=ALICE):
        return self.store.account(account).find("INBOX")


def make_server(*, tls="none", networks="127.0.0.0/8", limits=None, **settings):
    clock = Clock()
    store = MemoryMailStore()
    realm = Realm(store)
    factory = Pop3ServerFactory(
        Pop3Settings(**settings),
        hostname="mail.example.test",
        portal=realm,  # type: ignore[arg-type]
        context_factory=object(),
        tls_mode=TlsMode(tls),
        plaintext_networks=NetworkSet(networks.split()),
        connections=ConnectionTable(limits or LimitsSettings(), clock.seconds),
        clock=clock,
    )
    return Server(factory, store, realm, clock)


@pytest.fixture
def server_factory():
    return make_server
