"""What a client may do how often, and how many of its connections there may be (RELIABILITY 7.1).

One table serves all listeners of a process; with a :class:`~mailsrv.wire.shared_table.SharedTable` of
several workers it holds for all of them together, but for ``connections_total``, which is of each.
A connection over a limit is told so by its protocol (421, BYE, -ERR) and closed.

An office behind one address is one network (R-NAT-1): what counts against a network are the
connections that have *not* logged in; one that logs in stops counting, gives the network its place in
the rate back, and from then on everything it does counts under its user. Clients in exempt networks and
on Unix sockets (address "") count only in the total.

A limit that is hit is logged once a minute for each client, not for each command.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from twisted.logger import Logger

from mailsrv.errors import MailError
from mailsrv.status import POLICY_DELAY, SYSTEM_ERROR, EnhancedStatus
from mailsrv.wire.networks import NetworkSet, network_key
from mailsrv.wire.rates import Rate, parse_rate
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.shared_table import SharedTable

_log = Logger()
_Key = TypeVar("_Key", bound=Hashable)
_ONCE_A_MINUTE = Rate(1, 60.0, 1)


class TooManyConnections(MailError):
    """A limit on connections is reached; ``limit`` names the setting, for log and metrics."""

    def __init__(self, limit: str, status: EnhancedStatus = POLICY_DELAY) -> None:
        super().__init__(status, "Too many connections, try again later", cause=f"limit {limit}")
        self.limit = limit


class RateKind(enum.Enum):
    """What is counted by network or user."""

    CONNECTIONS = "connections"
    TRANSACTIONS = "transactions"
    RECIPIENTS = "recipients"
    WRONG_RECIPIENTS = "wrong_recipients"
    ERRORS = "errors"


class ConnectionTable:
    """Counts connections. ``seconds`` is the wall clock, the same for all who share the table."""

    def __init__(
        self, settings: LimitsSettings, seconds: Callable[[], float], shared: SharedTable | None = None
    ) -> None:
        """Without ``shared`` it is a table of this process alone."""
        self._seconds = seconds
        self._shared = shared or SharedTable.in_memory(settings.networks_remembered)
        self._buckets = self._shared.buckets
        self.total = 0
        """Connections open now."""
        self.refusals: Counter[str] = Counter()
        """How often each limit was hit, for metrics."""
        self._per_network: Counter[tuple[str, str]] = Counter()
        self._per_user: Counter[tuple[str, str, str]] = Counter()
        self.replace_settings(settings)

    def replace_settings(self, settings: LimitsSettings) -> None:
        """Use these from now on. Connections that are open stay and count, and what was used of a rate is kept.

        How many networks are remembered is settled when the table is made.
        """
        self.settings = settings
        self.exempt_networks = NetworkSet(settings.exempt_networks)
        self._connection_rate = Rate(settings.new_connections_per_minute, 60.0, settings.new_connections_per_minute)
        self._network_limits: Mapping[str, tuple[str, int]] = {
            "smtp": ("smtp_connections_per_network", settings.smtp_connections_per_network),
            "imap": ("imap_connections_per_network", settings.imap_connections_per_network),
            "pop3": ("pop3_connections_per_network", settings.pop3_connections_per_network),
        }
        self._network_rates: Mapping[RateKind, Rate | None] = {
            RateKind.CONNECTIONS: self._connection_rate,
            RateKind.TRANSACTIONS: parse_rate(settings.network_transactions),
            RateKind.RECIPIENTS: parse_rate(settings.network_recipients),
            RateKind.WRONG_RECIPIENTS: parse_rate(settings.network_wrong_recipients),
            RateKind.ERRORS: parse_rate(settings.network_errors),
        }
        self._user_rates: Mapping[RateKind, Rate | None] = {
            RateKind.CONNECTIONS: parse_rate(settings.user_connections),
            RateKind.TRANSACTIONS: parse_rate(settings.user_transactions),
            RateKind.RECIPIENTS: parse_rate(settings.user_recipients),
            RateKind.WRONG_RECIPIENTS: parse_rate(settings.user_wrong_recipients),
            RateKind.ERRORS: parse_rate(settings.user_errors),
        }

    def open(self, address: str, protocol: str) -> ConnectionSlot:
        """Count a new connection of ``protocol`` (``smtp``, ``imap``, ``pop3``); raises :class:`TooManyConnections`.

        Close the slot when the connection is gone.
        """
        if self.total >= self.settings.connections_total:
            raise self._refusal("connections_total", "", SYSTEM_ERROR)
        network = "" if not address or address in self.exempt_networks else network_key(address)
        if network:
            name, limit = self._network_limits[protocol]
            key = (protocol, network)
            elsewhere = self._shared.elsewhere(_name(key))
            if self._per_network[key] + elsewhere >= limit:
                raise self._refusal(name, network)
            if not self._buckets.take("network connections", network, self._connection_rate, self._seconds()):
                raise self._refusal("new_connections_per_minute", network)
            self._count_network(key, 1)
        self.total += 1
        return ConnectionSlot(self, protocol, network)

    def close(self) -> None:
        """The process ends: what it counted counts no more."""
        self._shared.close()

    # Rates

    def take(self, kind: RateKind, *, network: str, user: str) -> bool:
        """Count one; False if that is over the rate of the user, or of the network where there is no user."""
        rates, whose, name = (self._user_rates, "user", user) if user else (self._network_rates, "network", network)
        rate = rates[kind]
        if rate is None or not name:
            return True
        if self._buckets.take(f"{whose} {kind.value}", name, rate, self._seconds()):
            return True
        self._note_refusal(f"{whose}_{kind.value}", name)
        return False

    def _note_refusal(self, limit: str, name: str) -> None:
        self.refusals[limit] += 1
        if name and self._buckets.take(f"log {limit}", name, _ONCE_A_MINUTE, self._seconds()):
            _log.warn("limit {limit} is reached by {client}", limit=limit, client=name)

    def _refusal(self, limit: str, name: str, status: EnhancedStatus = POLICY_DELAY) -> TooManyConnections:
        self._note_refusal(limit, name)
        return TooManyConnections(limit, status)

    # Connections

    def _count_network(self, key: tuple[str, str], step: int) -> None:
        self._shared.publish(_name(key), _count(self._per_network, key, step))

    def _count_user(self, key: tuple[str, str, str], step: int) -> None:
        self._shared.publish(_name(key), _count(self._per_user, key, step))

    def _authenticate(self, slot: ConnectionSlot, user: str) -> None:
        key = (slot.protocol, user, slot.network)
        if self._per_user[key] + self._shared.elsewhere(_name(key)) >= (self.settings.connections_per_user_and_network):
            raise self._refusal("connections_per_user_and_network", user)
        if not self.take(RateKind.CONNECTIONS, network=slot.network, user=user):
            raise TooManyConnections("user_connections")
        self._buckets.give_back("network connections", slot.network, self._connection_rate, self._seconds())
        self._count_user(key, 1)
        self._count_network((slot.protocol, slot.network), -1)

    def _close(self, slot: ConnectionSlot) -> None:
        self.total -= 1
        if not slot.network:
            return
        if slot.user:
            self._count_user((slot.protocol, slot.user, slot.network), -1)
        else:
            self._count_network((slot.protocol, slot.network), -1)


class ConnectionSlot:
    """The place of one connection in the table."""

    __slots__ = ("_is_open", "_table", "network", "protocol", "user")

    def __init__(self, table: ConnectionTable, protocol: str, network: str) -> None:
        self._table = table
        self._is_open = True
        self.protocol = protocol
        self.network = network
        """"" for clients that are not counted by network."""
        self.user = ""

    @property
    def is_exempt(self) -> bool:
        """Whether limits and delays by address do not apply."""
        return not self.network

    def authenticate(self, user: str) -> None:
        """The connection belongs to ``user`` (the canonical address as text) now.

        Raises :class:`TooManyConnections` if that user has too many from this network; the slot
        then stays as it was. A second user in one connection is counted with the first.
        """
        if self.network and self._is_open and not self.user:
            self._table._authenticate(self, user)
            self.user = user

    def take(self, kind: RateKind) -> bool:
        """Count one of ``kind`` under the user, or under the network; False if that is over the rate.

        What is refused is not counted. Always True for clients in exempt networks.
        """
        return not self.network or self._table.take(kind, network=self.network, user=self.user)

    def close(self) -> None:
        """The connection is gone. Safe to call twice."""
        if self._is_open:
            self._is_open = False
            self._table._close(self)


def _name(key: tuple[str, ...]) -> str:
    return "\0".join(key)


def _count(counter: Counter[_Key], key: _Key, step: int) -> int:
    """The new count; a key with none is forgotten."""
    count = counter[key] + step
    if count > 0:
        counter[key] = count
    else:
        counter.pop(key, None)
    return count
