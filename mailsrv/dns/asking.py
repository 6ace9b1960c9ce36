"""One question to several servers: timeouts, rounds, TCP after truncation, and which servers are slow.

A server that says SERVFAIL, REFUSED or nonsense is not asked the same again; one that does not
answer is asked again in the next round, with more time, and last by everybody for a while.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from twisted.internet import defer

from mailsrv.dns.exchange import DnsExchange
from mailsrv.dns.servers import Server
from mailsrv.dns.settings import DnsSettings
from mailsrv.dns.wire import NOERROR, NXDOMAIN, RCODES, Reply, WireError, decode_reply, encode_query
from mailsrv.interfaces.resolver import DnsFailure

SLOW_SECONDS = 30.0


class Asking:
    """Questions to servers, without any memory of answers."""

    def __init__(self, settings: DnsSettings, exchange: DnsExchange, seconds: Callable[[], float]) -> None:
        self._settings = settings
        self._exchange = exchange
        self._seconds = seconds
        self._slow_until: dict[Server, float] = {}

    async def ask(self, servers: Sequence[Server], name: str, record_type: int, *, wants_dnssec: bool) -> Reply:
        """A NOERROR or NXDOMAIN answer; raises DnsFailure, whose cause names each server's fault."""
        faults: dict[Server, str] = {}
        left = self._quick_first(servers)
        timeout = self._settings.timeout
        for _ in range(self._settings.rounds):
            for server in tuple(left):
                try:
                    reply = await self.ask_one(server, name, record_type, timeout, wants_dnssec=wants_dnssec)
                except defer.TimeoutError:
                    faults[server] = "no answer in time"
                    self._slow_until[server] = self._seconds() + SLOW_SECONDS
                    continue
                except WireError as error:
                    faults[server] = str(error)
                except Exception as error:
                    # Sockets and twisted.internet have many; whichever it is, this server gave no answer.
                    faults[server] = f"cannot be asked ({type(error).__name__})"
                    self._slow_until[server] = self._seconds() + SLOW_SECONDS
                else:
                    if reply.rcode in (NOERROR, NXDOMAIN):
                        self._slow_until.pop(server, None)
                        return reply
                    faults[server] = RCODES.get(reply.rcode, f"answer code {reply.rcode}")
                left.remove(server)
            timeout *= 2
        raise DnsFailure(name, cause="; ".join(f"{server}: {fault}" for server, fault in faults.items()))

    async def ask_one(
        self, server: Server, name: str, record_type: int, timeout: float, *, wants_dnssec: bool
    ) -> Reply:
        """Any answer of one server, by TCP if it does not fit into a datagram. Raises WireError, or what sockets do."""
        query = encode_query(secrets.randbits(16), name, record_type, wants_dnssec=wants_dnssec)
        octets = await self._exchange.ask_udp(server, query, timeout)
        limit = self._settings.max_records
        reply = decode_reply(octets, name, record_type, limit)
        if reply.is_truncated:
            octets = await self._exchange.ask_tcp(server, query, timeout)
            reply = decode_reply(octets, name, record_type, limit)
            if reply.is_truncated:
                raise WireError("an answer that is truncated even by TCP")
        return reply

    def _quick_first(self, servers: Sequence[Server]) -> list[Server]:
        if len(self._slow_until) > 64:
            # Servers that are no longer in use.
            self._slow_until.clear()
        now = self._seconds()
        return sorted(servers, key=lambda server: self._slow_until.get(server, 0.0) > now)
