"""Sets of networks, and the network a client is counted under.

Addresses come as text from the transport; ``""`` (a Unix socket) and anything that is no IP
address is in no set. An IPv4 address that was mapped into IPv6 is the IPv4 address.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable
from typing import Any

from attrs import Attribute


def are_networks(_record: object, attribute: Attribute[Any], value: tuple[str, ...] | None) -> None:
    """The check of a setting that holds networks."""
    try:
        NetworkSet(value or ())
    except ValueError as error:
        raise ValueError(f"expected networks such as 192.0.2.0/24 ({error})", attribute) from error


class NetworkSet:
    """Networks from texts such as ``127.0.0.0/8``, ``::1`` or ``2001:db8::/32``; asked with ``in``.

    Raises ``ValueError`` for text that is no network, or one with host bits set.
    """

    __slots__ = ("_networks", "_texts")

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._texts = tuple(networks)
        # One set lookup for each different prefix length, however many networks are listed.
        self._networks: dict[tuple[int, int], set[int]] = {}
        for text in self._texts:
            network = _unmapped(ipaddress.ip_network(text))
            shift = network.max_prefixlen - network.prefixlen
            numbers = self._networks.setdefault((network.version, shift), set())
            numbers.add(int(network.network_address) >> shift)

    def __contains__(self, address: object) -> bool:
        if not self._networks or not isinstance(address, str):
            return False
        parsed = _parse(address)
        if parsed is None:
            return False
        number = int(parsed)
        return any(
            version == parsed.version and number >> shift in numbers
            for (version, shift), numbers in self._networks.items()
        )

    def __bool__(self) -> bool:
        return bool(self._texts)

    def __repr__(self) -> str:
        return f"NetworkSet({self._texts!r})"


def network_key(address: str) -> str:
    """The name under which a client is counted: itself for IPv4, its /64 for IPv6; "" stays ""."""
    parsed = _parse(address)
    if parsed is None:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return f"{ipaddress.IPv6Address(int(parsed) >> 64 << 64)}/64"


def _unmapped(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Of IPv4 addresses, where it is written as part of ``::ffff:0:0/96``: that is how they are looked for."""
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


@functools.lru_cache(4096)
def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed
