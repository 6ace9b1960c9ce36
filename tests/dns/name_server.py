"""A DNS server made of functions: answers to the resolver's questions without a network."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.names import dns

from mailsrv.dns.servers import Server
from mailsrv.dns.wire import TLSA

Answers = list[tuple[str, object]]


def record(name: str, payload: Any, *, ttl: int = 300, kind: int | None = None) -> dns.RRHeader:
    """One record; ``payload`` of twisted.names, or the octets of a type it does not know."""
    if isinstance(payload, bytes):
        unknown: Any = dns.UnknownRecord(payload)
        unknown.TYPE = kind = kind or TLSA
        payload = unknown
    return dns.RRHeader(name.encode(), kind or payload.TYPE, ttl=ttl, payload=payload)


def soa(name: str, *, minimum: int = 60, ttl: int = 600) -> dns.RRHeader:
    return record(name, dns.Record_SOA(b"ns.test", b"admin.test", 1, 2, 3, 4, minimum), ttl=ttl)


@define
class Told:
    """What a zone says to one question."""

    answers: list[dns.RRHeader] = field(factory=list)
    authority: list[dns.RRHeader] = field(factory=list)
    rcode: int = 0
    is_authentic: bool = False
    is_truncated: bool = False


def question_of(query: bytes) -> tuple[str, int]:
    message = dns.Message()
    message.fromStr(query)
    return message.queries[0].name.name.decode() or ".", message.queries[0].type


def make_reply(query: bytes, told: Told) -> bytes:
    message = dns.Message()
    message.fromStr(query)
    message.answer = 1
    message.recAv = 1
    message.additional = []
    message.answers, message.authority, message.rCode = told.answers, told.authority, told.rcode
    message.authenticData = told.is_authentic
    message.trunc = told.is_truncated
    return message.toStr()


@define(eq=False)
class FakeExchange:
    """Servers by address. What answers None never answers; a server that is not there refuses."""

    clock: Clock
    servers: dict[str, Callable[[str, int], Told | bytes | None]] = field(factory=dict)
    tcp_servers: dict[str, Callable[[str, int], Told | bytes | None]] = field(factory=dict)
    asked: list[tuple[str, str, int]] = field(factory=list)
    asked_by_tcp: list[str] = field(factory=list)
    queries: list[bytes] = field(factory=list)
    held: list[tuple[Deferred[bytes], bytes]] | None = None

    def ask_udp(self, server: Server, query: bytes, timeout: float) -> Deferred[bytes]:
        name, kind = question_of(query)
        self.asked.append((server.address, name, kind))
        self.queries.append(query)
        return self._answer(self.servers, server, query, timeout)

    def ask_tcp(self, server: Server, query: bytes, timeout: float) -> Deferred[bytes]:
        self.asked_by_tcp.append(server.address)
        return self._answer(self.tcp_servers or self.servers, server, query, timeout)

    def _answer(
        self,
        servers: dict[str, Callable[[str, int], Told | bytes | None]],
        server: Server,
        query: bytes,
        timeout: float,
    ) -> Deferred[bytes]:
        if server.address not in servers:
            return fail(Refused())
        told = servers[server.address](*question_of(query))
        if told is None:
            silent: Deferred[bytes] = Deferred()
            silent.addTimeout(timeout, self.clock)
            return silent
        octets = told if isinstance(told, bytes) else make_reply(query, told)
        octets = query[:2] + octets[2:]
        if self.held is not None:
            held: Deferred[bytes] = Deferred()
            self.held.append((held, octets))
            return held
        return succeed(octets)


def claimed_answers(reply: bytes, count: int) -> bytes:
    """The same reply with another number of answers in its header."""
    return reply[:6] + struct.pack("!H", count) + reply[8:]
