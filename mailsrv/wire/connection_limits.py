"""The table that counts connections and refuses those over a limit (RELIABILITY 7.1).

One table serves all listeners of a process. A connection over a limit is told so by its protocol
(421, BYE, -ERR) and closed. An office behind one address is one network (R-NAT-1): what counts
against a network are the connections that have *not* logged in; one that logs in stops
counting, and gives the network its place in the rate back. Clients in exempt networks and on Unix
sockets (address "") count only in the total.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from mailsrv.errors import MailError
from mailsrv.status import POLICY_DELAY, SYSTEM_ERROR, EnhancedStatus
from mailsrv.wire.networks import NetworkSet, network_key
from mailsrv.wire.settings import LimitsSettings

_Key = TypeVar("_Key", bound=Hashable)


class TooManyConnections(MailError):
    """A limit on connections is reached; ``limit`` names the setting, for log and metrics."""

    def __init__(self, limit: str, status: EnhancedStatus = POLICY_DELAY) -> None:
        super().__init__(status, "Too many connections, try again later", cause=f"limit {limit}")
        self.limit = limit


class ConnectionTable:
    """Counts connections. ``seconds`` is a monotonic clock."""

    def __init__(self, settings: LimitsSettings, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self.total = 0
        """Connections open now."""
        self.refusals: Counter[str] = Counter()
        """How often each limit was hit, for metrics."""
        self._per_network: Counter[tuple[str, str]] = Counter()
        self._per_user: Counter[tuple[str, str, str]] = Counter()
        self.replace_settings(settings)

    def replace_settings(self, settings: LimitsSettings) -> None:
        """Use these from now on. Connections that are open stay and count; rates are counted anew."""
        self.settings = settings
        self.exempt_networks = NetworkSet(settings.exempt_networks)
        self._rates = _RateTable(settings.new_connections_per_minute, settings.networks_remembered, self._seconds)
        self._network_limits: Mapping[str, tuple[str, int]] = {
            "smtp": ("smtp_connections_per_network", settings.smtp_connections_per_network),
            "imap": ("imap_connections_per_network", settings.imap_connections_per_network),
            "pop3": ("pop3_connections_per_network", settings.pop3_connections_per_network),
        }

    def open(self, address: str, protocol: str) -> ConnectionSlot:
        """Count a new connection of ``protocol`` (``smtp``, ``imap``, ``pop3``); raises :class:`TooManyConnections`.

        Close the slot when the connection is gone.
        """
        if self.total >= self.settings.connections_total:
            raise self._refusal("connections_total", SYSTEM_ERROR)
        network = "" if not address or address in self.exempt_networks else network_key(address)
        if network:
            name, limit = self._network_limits[protocol]
            if self._per_network[protocol, network] >= limit:
                raise self._refusal(name)
            if not self._rates.take(network):
                raise self._refusal("new_connections_per_minute")
            self._per_network[protocol, network] += 1
        self.total += 1
        return ConnectionSlot(self, protocol, network)

    def _refusal(self, limit: str, status: EnhancedStatus = POLICY_DELAY) -> TooManyConnections:
        self.refusals[limit] += 1
        return TooManyConnections(limit, status)

    def _authenticate(self, slot: ConnectionSlot, user: str) -> None:
        key = (slot.protocol, user, slot.network)
        if self._per_user[key] >= self.settings.connections_per_user_and_network:
            raise self._refusal("connections_per_user_and_network")
        self._per_user[key] += 1
        self._rates.give_back(slot.network)
        _decrease(self._per_network, (slot.protocol, slot.network))

    def _close(self, slot: ConnectionSlot) -> None:
        self.total -= 1
        if not slot.network:
            return
        if slot.user:
            _decrease(self._per_user, (slot.protocol, slot.user, slot.network))
        else:
            _decrease(self._per_network, (slot.protocol, slot.network))


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

    def close(self) -> None:
        """The connection is gone. Safe to call twice."""
        if self._is_open:
            self._is_open = False
            self._table._close(self)


class _RateTable:
    """Token buckets by network, of bounded number: a full bucket holds a minute's connections."""

    def __init__(self, per_minute: int, capacity: int, seconds: Callable[[], float]) -> None:
        self._per_minute = float(per_minute)
        self._capacity = capacity
        self._seconds = seconds
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Network to (tokens, time they were counted), the longest quiet first."""

    def take(self, network: str) -> bool:
        """Take one token if there is one."""
        tokens = self._refilled(network)
        has_token = tokens >= 1.0
        self._put(network, tokens - 1.0 if has_token else tokens)
        return has_token

    def give_back(self, network: str) -> None:
        """Put one token back."""
        self._put(network, min(self._per_minute, self._refilled(network) + 1.0))

    def _refilled(self, network: str) -> float:
        tokens, counted_at = self._buckets.get(network, (self._per_minute, self._seconds()))
        return min(self._per_minute, tokens + (self._seconds() - counted_at) * self._per_minute / 60.0)

    def _put(self, network: str, tokens: float) -> None:
        self._buckets[network] = (tokens, self._seconds())
        self._buckets.move_to_end(network)
        if len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)


def _decrease(counter: Counter[_Key], key: _Key) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
