"""A whole IMAP server in memory for the tests of this folder: memory store, one password, a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.errors import Unavailable
from mailsrv.imap.factory import ImapServerFactory
from mailsrv.imap.settings import ImapSettings
from mailsrv.interfaces.account import IAccount, InvalidCredentials, ISharedWith, PasswordCredentials
from mailsrv.interfaces.content import Content, InlineContent, ISpool, ISpoolWriter
from mailsrv.interfaces.mailbox import IAccountMailboxes, NewMessage
from mailsrv.store.memory import MemoryMailStore
from mailsrv.testing.dialogue import DialogueTransport
from mailsrv.wire.connection_limits import ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.tls_mode import TlsMode
from tests.sharing.sharing_setting import SharingStore

ALICE = Address("alice", "example.test")
CLIENT = IPv4Address("TCP", "192.0.2.7", 40000)
DATE = 1_700_000_000


@implementer(ISpoolWriter)
class MemoryWriter:
    def __init__(self, spool: MemorySpool) -> None:
        self.spool = spool
        self.size = 0
        self.pieces: list[bytes] = []
        spool.open += 1

    def write(self, octets: bytes) -> Deferred[None] | None:
        self.pieces.append(octets)
        self.size += len(octets)
        if self.spool.is_slow:
            waiting: Deferred[None] = Deferred()
            self.spool.waiting.append(waiting)
            return waiting
        return None

    def finish(self) -> Deferred[Content]:
        self.spool.open -= 1
        self.spool.finished += 1
        return succeed(InlineContent(b"".join(self.pieces)))

    def abort(self) -> None:
        self.spool.open -= 1


@implementer(ISpool)
class MemorySpool:
    def __init__(self) -> None:
        self.open = 0
        self.finished = 0
        self.discarded = 0
        self.is_slow = False
        self.waiting: list[Deferred[None]] = []

    def begin(self) -> MemoryWriter:
        return MemoryWriter(self)

    def discard(self, content: Content) -> None:
        self.discarded += 1


@implementer(IAccount)
@define
class MemoryUser:
    address: Address
    store: MemoryMailStore
    display_name: str = ""
    administrator: Address | None = None
    logged_out: int = 0

    def open_mailboxes(self) -> Deferred[IAccountMailboxes]:
        return self.store.open_account(self.address)

    def may_send_as(self, address: Address) -> Deferred[bool]:
        return succeed(True)


@implementer(ISharedWith)
@define
class SharedWithUser(MemoryUser):
    """Somebody who has rights to mailboxes of others."""

    sharing: SharingStore | None = None

    def open_with_shared(self) -> Deferred[IAccountMailboxes]:
        assert self.sharing is not None
        return self.sharing.open_account(self.address)


@define
class MemoryRealm:
    store: MemoryMailStore
    users: list[MemoryUser] = field(factory=list)
    sharing: SharingStore | None = None

    def requestAvatar(self, avatar_id: str, mind: object, *interfaces: object) -> object:
        if self.sharing is None:
            user = MemoryUser(ALICE, self.store)
        else:
            user = SharedWithUser(ALICE, self.store, sharing=self.sharing)
        self.users.append(user)

        def logout() -> None:
            user.logged_out += 1

        return IAccount, user, logout


class OnePassword:
    """Everybody's password is ``secret``; the user ``down`` cannot be looked up, ``slow`` takes until told."""

    credentialInterfaces = ()

    def __init__(self) -> None:
        self.waiting: list[Deferred[str]] = []
        self.asked: list[PasswordCredentials] = []

    def requestAvatarId(self, credentials: PasswordCredentials) -> Deferred[str]:
        self.asked.append(credentials)
        if credentials.authcid == "down":
            return fail(Unavailable(cause="the directory is down"))
        if credentials.authcid == "slow":
            waiting: Deferred[str] = Deferred()
            self.waiting.append(waiting)
            return waiting
        if credentials.password != "secret":
            return fail(InvalidCredentials())
        return succeed(credentials.authcid)


class MemoryPortal(Portal):
    def __init__(self, realm: MemoryRealm, checker: OnePassword) -> None:
        self.realm: Any = realm
        self.checker = checker

    def login(self, credentials: Any, mind: object, *interfaces: Any) -> Any:
        found: Any = self.checker.requestAvatarId(credentials)
        return found.addCallback(self.realm.requestAvatar, mind, *interfaces)


MESSAGES = {
    "plain": (
        b"Date: Tue, 14 Nov 2023 10:00:00 +0100\r\n"
        b"From: Bob <bob@example.test>\r\n"
        b"To: alice@example.test\r\n"
        b"Subject: Lunch\r\n"
        b"Message-ID: <1@example.test>\r\n"
        b"X-Mailer: pen and paper\r\n"
        b"\r\n"
        b"Soup today?\r\n"
    ),
    "umlaut": (
        b"Date: Wed, 15 Nov 2023 10:00:00 +0000\r\n"
        b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.test>\r\n"
        b"To: alice@example.test\r\n"
        b"Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: base64\r\n"
        b"\r\n"
        b"U2Now7ZuZSBHcsO8w59l\r\n"
    ),
    "parts": (
        b"Date: Thu, 16 Nov 2023 10:00:00 +0000\r\n"
        b"From: carol@example.test\r\n"
        b"To: alice@example.test\r\n"
        b"Subject: Parts\r\n"
        b"MIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="b"\r\n'
        b"\r\n"
        b"--b\r\n"
        b"Content-Type: text/plain\r\n"
        b"\r\n"
        b"one\r\n"
        b"--b\r\n"
        b"Content-Type: application/octet-stream\r\n"
        b"Content-Transfer-Encoding: base64\r\n"
        b"\r\n"
        b"AAECAw==\r\n"
        b"--b\r\n"
        b"Content-Type: message/rfc822\r\n"
        b"\r\n"
        b"Subject: inner\r\n"
        b"From: dave@example.test\r\n"
        b"\r\n"
        b"inner text\r\n"
        b"--b\r\n"
        b"Content-Type: text/x-odd\r\n"
        b"Content-Transfer-Encoding: x-odd\r\n"
        b"\r\n"
        b"????\r\n"
        b"--b--\r\n"
    ),
}


class Server:
    """Factory, store and clock; connections in memory."""

    owner = ALICE
    """Whose mailboxes the tests look at."""

    def __init__(
        self,
        settings: ImapSettings | None = None,
        *,
        tls: TlsMode = TlsMode.NONE,
        plaintext: tuple[str, ...] = ("192.0.2.0/24",),
        limits: LimitsSettings | None = None,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(DATE)
        self.store = MemoryMailStore()
        self.spool = MemorySpool()
        self.checker = OnePassword()
        self.realm = MemoryRealm(self.store)
        self.factory = ImapServerFactory(
            settings if settings is not None else ImapSettings(),
            hostname="mail.example.test",
            portal=MemoryPortal(self.realm, self.checker),
            spool=self.spool,
            context_factory=object() if tls is TlsMode.STARTTLS else None,
            tls_mode=tls,
            plaintext_networks=NetworkSet(plaintext),
            connections=ConnectionTable(limits if limits is not None else LimitsSettings(), self.clock.seconds),
            clock=self.clock,
        )

    @property
    def account(self):
        return self.store.account(self.owner)

    def mailbox(self, name: str = "INBOX"):
        return self.account.find(name)

    def add(
        self,
        octets: bytes,
        name: str = "INBOX",
        flags: tuple[str, ...] = (),
        date: int = DATE,
        account: Address | None = None,
    ) -> None:
        """Deliver behind the server's back."""
        done: list[object] = []
        message = NewMessage(InlineContent(octets), frozenset(flags), date, 60)
        self.store.account(account or self.owner).append(name, [message]).addCallback(done.append)
        assert done

    def share(self, what: str) -> None:
        """``support:read,team:write``: these accounts are shared with Alice."""
        if self.realm.sharing is None:
            self.realm.sharing = SharingStore(self.store, clock=self.clock)
        self.realm.sharing.granted[ALICE] = []
        for part in filter(None, what.split(",")):
            name, _, right = part.partition(":")
            self.realm.sharing.grant(ALICE, Address(name, "example.test"), may_write=right == "write")

    def share_from_now(self, what: str) -> None:
        """The same; it is noticed at once."""
        self.share(what)
        assert self.realm.sharing is not None
        self.realm.sharing.next_round()

    def fill(self, what: str) -> None:
        """``plain*3,umlaut,parts`` in INBOX."""
        for part in filter(None, what.split(",")):
            name, _, times = part.partition("*")
            for _ in range(int(times or 1)):
                self.add(MESSAGES[name])

    def connect(self) -> Client:
        return Client(self)


class Client:
    """One connection: says a line, gives what came back."""

    def __init__(self, server: Server, make: Callable[[], DialogueTransport] | None = None) -> None:
        self.server = server
        protocol: Any = server.factory.buildProtocol(CLIENT)
        self.protocol = protocol
        self.transport = DialogueTransport(self.protocol, peer=CLIENT)
        self.protocol.makeConnection(self.transport)
        self.tags = 0
        self.take()

    def pump(self) -> None:
        for _ in range(200):
            self.transport.pump()
            calls = [
                call for call in self.server.clock.getDelayedCalls() if call.getTime() <= self.server.clock.seconds()
            ]
            if not calls:
                break
            self.server.clock.advance(0)

    def take(self) -> bytes:
        self.pump()
        return self.transport.take()

    def send(self, octets: bytes) -> bytes:
        self.transport.deliver(octets)
        return self.take()

    def say(self, command: str | bytes) -> bytes:
        """A command with a tag of its own; the answers."""
        if isinstance(command, str):
            command = command.encode()
        self.tags += 1
        return self.send(b"t%d %b\r\n" % (self.tags, command))

    def ok(self, command: str | bytes) -> list[bytes]:
        """The untagged answers to a command that must succeed."""
        said = self.say(command)
        lines = said.split(b"\r\n")
        assert lines[-2].startswith(b"t%d OK" % self.tags), said
        return lines[:-2]

    def login(self) -> Client:
        self.ok("LOGIN alice secret")
        return self

    def select(self, name: str = "INBOX") -> Client:
        self.login()
        self.ok(f"SELECT {name}")
        return self
