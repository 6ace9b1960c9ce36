"""What the tests of this folder share: a server on a clock, in memory, with a receiver that remembers."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve, field, frozen
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.account import IAccount, InvalidCredentials, PasswordCredentials
from mailsrv.smtp.factory import SmtpServerFactory
from mailsrv.smtp.settings import Service, SmtpSettings
from mailsrv.status import BAD_DOMAIN, BAD_MAILBOX, NOT_AUTHORISED, EnhancedStatus
from mailsrv.testing.dialogue import DialogueTransport
from mailsrv.testing.receiver import MemoryReceiver
from mailsrv.wire.connection_limits import ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.tls_mode import TlsMode

CLIENT = IPv4Address("TCP", "127.0.0.1", 40000)
STRANGER = IPv4Address("TCP", "192.0.2.1", 40000)
HOST = IPv4Address("TCP", "127.0.0.1", 25)


@implementer(IAccount)
@frozen
class Account:
    address: Address
    display_name: str = ""
    administrator: Address | None = None

    def open_mailboxes(self):
        raise NotImplementedError

    def may_send_as(self, address: Address) -> Deferred[bool]:
        return succeed(address == self.address)


@define(slots=False)
class MemoryPortal:
    """alice@example.test has the password ``secret``; the directory is down for ``down``."""

    logouts: int = 0
    attempts: list[PasswordCredentials] = field(factory=list)

    def login(self, credentials: PasswordCredentials, mind: object, *interfaces: object) -> Deferred:
        self.attempts.append(credentials)
        if credentials.authcid.startswith("down"):
            return fail(Unavailable())
        if credentials.password != "secret":
            return fail(InvalidCredentials())
        return succeed((IAccount, Account(Address("alice", "example.test")), self.log_out))

    def log_out(self) -> None:
        self.logouts += 1


def make_refusals() -> dict[str, Exception]:
    return {
        "rcpt nobody@example.test": MailError(BAD_MAILBOX, "No such user"),
        "rcpt later@example.test": Unavailable(),
        "rcpt bug@example.test": RuntimeError("secret detail"),
        "finish full@example.test": MailError(EnhancedStatus(5, 2, 2), "Mailbox full"),
        "verify nobody@example.test": MailError(BAD_MAILBOX, "No such user"),
        "verify down@example.test": Unavailable(),
        "verify away@elsewhere.example": MailError(BAD_DOMAIN, "Not a domain of this server"),
        "verify lost@elsewhere.example": Unavailable(),
        "verify bug@example.test": RuntimeError("secret detail"),
        "connect 198.51.100.1": MailError(NOT_AUTHORISED, "Go away"),
    }


def make_aliases() -> dict[str, tuple[Address, ...]]:
    return {
        "away@example.test": (Address("away", "elsewhere.example"),),
        "lost@example.test": (Address("lost", "elsewhere.example"),),
        "other@example.test": (Address("other", "example.org"),),
        "staff@example.test": (Address("alice", "example.test"), Address("bob", "example.test")),
        "umlauts@example.test": (Address("jürgen", "example.test"),),
    }


@define
class Server:
    """A factory and everything around it."""

    factory: SmtpServerFactory
    receiver: MemoryReceiver
    portal: MemoryPortal
    clock: Clock
    connections: ConnectionTable

    def connect(self, peer: IPv4Address = CLIENT, *, is_tls: bool = False) -> Client:
        protocol = self.factory.buildProtocol(peer)
        transport = DialogueTransport(protocol, HOST, peer, is_tls=is_tls)
        protocol.makeConnection(transport)
        return Client(self, transport)


@define
class Client:
    """The other end of one connection."""

    server: Server
    transport: DialogueTransport

    def say(self, octets: bytes) -> bytes:
        """Send, and take what the server says to that."""
        self.transport.deliver(octets)
        return self.hear()

    def hear(self) -> bytes:
        for _ in range(5):
            self.transport.pump()
            self.server.clock.advance(0)
        self.transport.pump()
        return self.transport.take()

    def say_lines(self, *lines: str) -> list[str]:
        return [self.say(line.encode() + b"\r\n").decode() for line in lines]

    def begin(self, *more: str) -> Client:
        """Greeting and EHLO (or what is given instead)."""
        self.hear()
        for line in more or ("EHLO client.example",):
            self.say(line.encode() + b"\r\n")
        return self


def make_server(
    *,
    service: Service = Service.MX,
    settings: SmtpSettings | None = None,
    limits: LimitsSettings | None = None,
    tls_mode: TlsMode = TlsMode.STARTTLS,
    plaintext: tuple[str, ...] = (),
    is_slow: bool = False,
    configure: Callable[[MemoryReceiver], None] | None = None,
    **changes: object,
) -> Server:
    clock = Clock()
    settings = evolve(settings or SmtpSettings(), **changes)  # type: ignore[arg-type]
    receiver = MemoryReceiver(make_refusals(), clock if is_slow else None, aliases=make_aliases())
    if configure is not None:
        configure(receiver)
    portal = MemoryPortal()
    connections = ConnectionTable(limits or LimitsSettings(), clock.seconds)
    factory = SmtpServerFactory(
        settings,
        receiver,
        service=service,
        hostname="mail.example.test",
        portal=portal if service is Service.SUBMISSION else None,  # type: ignore[arg-type]
        context_factory=object() if tls_mode is TlsMode.STARTTLS else None,
        tls_mode=tls_mode,
        plaintext_networks=NetworkSet(plaintext),
        connections=connections,
        clock=clock,
    )
    return Server(factory, receiver, portal, clock, connections)


__all__ = ["CLIENT", "HOST", "STRANGER", "Client", "MemoryPortal", "Server", "make_server"]
