"""The servers of a directory: which there are, which are up, which is asked first.

The order of the URIs, or what the DNS says (``service_records.py``), is the priority. A server that failed is left
alone until a probe, made apart from anybody's request, finds it well again; then it is preferred again if it stands
further up. When none is up, nobody waits: the circuit is open. State changes are logged once. Used from several
threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from urllib.parse import unquote, urlsplit

from attrs import define
from twisted.logger import Logger

from mailsrv.directory.ldap.trouble import NoServer


@define(eq=False)
class LdapServer:
    """One server. ``starttls``: on its plain port."""

    uri: str
    host: str
    port: int
    is_ldaps: bool = False
    starttls: bool = False
    socket_path: str = ""
    tls_name: str = ""
    """Whom the certificate must name, where that is not ``host``."""
    addresses: tuple[str, ...] = ()
    """Of the host, where they are known already; otherwise they are looked up for each connection."""
    is_up: bool = True
    down_since: float = 0.0
    failures: int = 0
    """Probes and requests that failed since it was up."""
    generation: int = 0
    """Counts its failures: connections from before one are not used again."""
    cause: str = ""


def parse_server(uri: str, *, starttls: bool) -> LdapServer:
    """From ``ldap://host[:port]``, ``ldaps://…`` or ``ldapi://%2Fpath``. Raises ValueError."""
    parts = urlsplit(uri)
    if parts.scheme == "ldapi":
        path = unquote(parts.netloc)
        if not path.startswith("/"):
            raise ValueError(f"{uri!r}: expected ldapi:// and a path with %2F for each slash")
        return LdapServer(uri, "localhost", 0, socket_path=path)
    if parts.scheme not in ("ldap", "ldaps") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(f"{uri!r}: expected ldap://HOST, ldaps://HOST or ldapi://%2FPATH")
    if parts.username or parts.password:
        raise ValueError("a URI holds no user and no password")
    is_ldaps = parts.scheme == "ldaps"
    port = parts.port or (636 if is_ldaps else 389)
    return LdapServer(uri, parts.hostname, port, is_ldaps, starttls and not is_ldaps)


class Servers:
    """In order of priority. ``on_down`` is called, in whatever thread, when one goes down."""

    _log = Logger()

    def __init__(self, name: str, servers: Sequence[LdapServer], *, seconds: Callable[[], float]) -> None:
        self.all = tuple(servers)
        self.on_down: Callable[[], object] = _nothing
        self.on_empty: Callable[[], object] = _nothing
        """Called, in whatever thread, when somebody needs a server and none is known."""
        self._name = name
        self.seconds = seconds
        """The clock of ``down_since``."""
        self._lock = threading.Lock()

    def replace(self, servers: Sequence[LdapServer]) -> None:
        """Others from now on. What is known of those that stay is kept; connections to the rest are not used again."""
        with self._lock:
            known = {(server.uri, server.tls_name): server for server in self.all}
            kept = []
            for server in servers:
                same = known.get((server.uri, server.tls_name), server)
                same.addresses = server.addresses
                kept.append(same)
            is_changed, self.all = kept != list(self.all), tuple(kept)
        if is_changed:
            self._log.info(
                "Directory {name}: the servers are {uris}", name=self._name, uris=[server.uri for server in kept]
            )

    def usable(self) -> Sequence[LdapServer]:
        """Those that are up. Raises NoServer."""
        found = [server for server in self.all if server.is_up]
        if not found and not self.all:
            self.on_empty()
            raise NoServer("no server is known")
        if not found:
            causes = "; ".join(f"{server.uri}: {server.cause}" for server in self.all)
            raise NoServer(f"no server is up ({causes})")
        return found

    def down(self) -> Sequence[LdapServer]:
        """Those to probe."""
        return [server for server in self.all if not server.is_up]

    def mark_down(self, server: LdapServer, cause: str) -> None:
        """It failed."""
        with self._lock:
            server.generation += 1
            server.failures += 1
            server.cause = cause
            was_up, server.is_up = server.is_up, False
            if was_up:
                server.down_since = self.seconds()
            last = not any(each.is_up for each in self.all)
        if not was_up:
            return
        self._log.warn("Directory {name}: {uri} is down: {cause}", name=self._name, uri=server.uri, cause=cause)
        if last:
            self._log.error(
                "Directory {name}: no server is left. Mail for recipients seen lately is taken, other mail waits, "
                "and nobody can log in",
                name=self._name,
            )
        self.on_down()

    def mark_up(self, server: LdapServer) -> None:
        """A probe went well."""
        with self._lock:
            was_up, server.is_up = server.is_up, True
            server.failures = 0
            server.cause = ""
        if not was_up:
            self._log.info(
                "Directory {name}: {uri} is up again after {down_seconds:.1f} s",
                name=self._name,
                uri=server.uri,
                down_seconds=self.seconds() - server.down_since,
            )


def _nothing() -> None:
    """Nobody wants to know."""
