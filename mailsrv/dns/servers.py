"""Which resolvers are asked: those of the settings, or those of resolv.conf(5).

Reading resolv.conf is a small file of this machine; it is looked at again once a minute, because
networks change under a server that runs for months.
"""

from __future__ import annotations

import ipaddress
import os

from attrs import frozen
from twisted.logger import Logger

PORT = 53
RESOLV_CONF = "/etc/resolv.conf"
LOOK_AGAIN_SECONDS = 60.0
_MAX_SERVERS = 8
_MAX_OCTETS = 65536


@frozen
class Server:
    """A resolver; ``is_loopback`` and ``has_trust_option`` say whether its AD bit can be believed by default."""

    address: str
    port: int = PORT
    has_trust_option: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine."""
        return ipaddress.ip_address(self.address).is_loopback

    @property
    def is_ipv6(self) -> bool:
        """Whether the address is one of IPv6."""
        return ":" in self.address

    def __str__(self) -> str:
        address = f"[{self.address}]" if self.is_ipv6 else self.address
        return address if self.port == PORT else f"{address}:{self.port}"


def parse_server(text: str) -> Server:
    """``ADDRESS``, ``ADDRESS:PORT``, ``[IPV6]:PORT``. Raises ValueError."""
    address, port = text, str(PORT)
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text} is not an address with a port")
        port = rest[1:] or str(PORT)
    elif text.count(":") == 1:
        address, port = text.split(":")
    try:
        parsed = ipaddress.ip_address(address)
        number = int(port) if port.isascii() and port.isdigit() else 0
    except ValueError as error:
        raise ValueError(f"{text} is not the address of a resolver") from error
    if not 0 < number < 65536:
        raise ValueError(f"{text} has no port between 1 and 65535")
    return Server(str(parsed), number)


def parse_resolv_conf(text: str) -> tuple[Server, ...]:
    """The name servers of a resolv.conf; lines that cannot be understood are passed over, as libc does."""
    servers: list[Server] = []
    has_trust_option = False
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0].startswith(("#", ";")):
            continue
        if words[0] == "options":
            has_trust_option = has_trust_option or "trust-ad" in words[1:]
        elif words[0] == "nameserver":
            try:
                servers.append(Server(str(ipaddress.ip_address(words[1]))))
            except ValueError:
                continue
    return tuple(Server(one.address, one.port, has_trust_option) for one in servers[:_MAX_SERVERS])


class ServerList:
    """The servers now: fixed ones, or those of a file that is read again when it changed."""

    _log = Logger()

    def __init__(self, fixed: tuple[str, ...], path: str = RESOLV_CONF) -> None:
        self._path = "" if fixed else path
        self._servers = tuple(parse_server(text) for text in fixed)
        self._look_again_at = 0.0
        self._stamp: tuple[int, int] | None = None

    def current(self, now: float) -> tuple[Server, ...]:
        """At least one; without any in the file the one on this machine (resolv.conf(5))."""
        if self._path and now >= self._look_again_at:
            self._look_again_at = now + LOOK_AGAIN_SECONDS
            self._look()
        return self._servers or (Server("127.0.0.1"),)

    def _look(self) -> None:
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return
            with open(self._path, encoding="utf-8", errors="replace") as file:
                text = file.read(_MAX_OCTETS)
        except OSError as error:
            self._log.warn("{path} cannot be read: {reason}", path=self._path, reason=error.strerror)
            return
        self._servers, self._stamp = parse_resolv_conf(text), stamp
