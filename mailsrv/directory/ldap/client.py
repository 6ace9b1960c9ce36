"""Operations on a directory of several servers, each carried over to the next server where one fails.

Two sorts of connections that never mix: the service account searches, users' passwords are tried on others (a bind
changes who a connection is). The operation's deadline holds for all attempts together.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import TypeVar

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.directory.ldap.connection import Credentials, LdapConnection, LdapEntry
from mailsrv.directory.ldap.observed import Observer, observed
from mailsrv.directory.ldap.results import BindOutcome
from mailsrv.directory.ldap.search import Search, entry_at
from mailsrv.directory.ldap.servers import LdapServer, Servers
from mailsrv.directory.ldap.service_records import ServerFinder
from mailsrv.directory.ldap.trouble import (
    ConnectionLost,
    LdapTrouble,
    NoServer,
    OutOfTime,
    RequestTrouble,
    ServerTrouble,
)
from mailsrv.directory.ldap.workers import IWorkers, Lane

T = TypeVar("T")

FIRST_PROBE_SECONDS = 1.0
FORGET_SECONDS = 900.0
"""A directory nobody asked for so long (a reload replaced it) probes no more until somebody does."""


class LdapError(Exception):
    """The settings of a directory cannot be used; a sentence for the administrator."""


@frozen
class TlsFiles:
    """What TLS towards the servers is made of. An empty ``ca_file``: what the system trusts."""

    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""

    def context(self) -> ssl.SSLContext:
        """Certificates and names are always checked. Waits for the disk. Raises ServerTrouble."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            # Since Python 3.13 also extensions are demanded that certificates of many directories do not have.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if self.certificate_file:
                context.load_cert_chain(self.certificate_file, self.key_file or None)
        except (OSError, ValueError) as error:
            raise ServerTrouble(f"the TLS files cannot be used: {error}") from error
        return context


@frozen
class ServiceAccount:
    """Whose rights searches are made with. No ``bind_dn``: anonymous, or by the client certificate."""

    bind_dn: str = ""
    password_file: str = ""
    external: bool = False

    def credentials(self) -> Credentials:
        """Read anew for each connection, so that a changed password is taken up. Raises ServerTrouble."""
        if self.external:
            return Credentials(external=True)
        if not self.bind_dn:
            return Credentials()
        try:
            with open(self.password_file, "rb") as file:
                password = file.read(4096).rstrip(b"\r\n")
        except OSError as error:
            raise ServerTrouble(f"the password file cannot be read: {error.strerror}") from error
        if not password:
            raise ServerTrouble("the password file is empty")
        return Credentials(self.bind_dn, password)


class Attempts:
    """The blocking part: runs in threads, never in the reactor's."""

    def __init__(self, servers: Servers, tls: TlsFiles, account: ServiceAccount, *, attempt_seconds: float) -> None:
        self.servers = servers
        self._tls = tls
        self._account = account
        self._attempt_seconds = attempt_seconds
        self._context: ssl.SSLContext | None = None

    def run(
        self,
        lane: Lane,
        deadline: float,
        work: Callable[[LdapConnection, float], T],
        *,
        as_service: bool,
        patience: float = 0.0,
    ) -> T:
        """Do it on the first server that can. Raises LdapTrouble.

        ``patience``: how long each answer may take, where that is more than what an attempt has. Who is slow to answer
        a hard question is not down for everybody.
        """
        trouble: ServerTrouble | None = None
        for server in self.servers.usable():
            if time.monotonic() >= deadline:
                break
            try:
                connection, is_kept = self._connected(server, lane, deadline, patience, as_service=as_service)
                try:
                    return work(connection, deadline)
                except ConnectionLost:
                    if not is_kept:
                        raise
                # Servers close connections that were idle: that says nothing about the server.
                lane.close()
                connection, _ = self._connected(server, lane, deadline, patience, as_service=as_service)
                return work(connection, deadline)
            except ServerTrouble as error:
                lane.close()
                self.servers.mark_down(server, str(error))
                trouble = error
        raise trouble or NoServer("no server answered in time")

    def _connected(
        self, server: LdapServer, lane: Lane, deadline: float, patience: float, *, as_service: bool
    ) -> tuple[LdapConnection, bool]:
        """The lane's connection to the server, and whether it was there already."""
        kept = lane.connection
        is_kept = kept is not None and kept.server is server and kept.generation == server.generation
        if kept is None or not is_kept or kept.is_spent:
            lane.close()
            end = min(deadline, time.monotonic() + self._attempt_seconds)
            try:
                kept, is_kept = self.open(server, end, as_service=as_service), False
            except OutOfTime as error:
                if end >= deadline:
                    raise
                # Its share of the request's time was over, a bit at each of the steps: the next one has time yet.
                raise ServerTrouble("no connection in time") from error
            lane.connection = kept
        kept.patience = max(self._attempt_seconds, patience)
        return kept, is_kept

    def open(self, server: LdapServer, deadline: float, *, as_service: bool) -> LdapConnection:
        """A new connection, with TLS as the settings say and bound as the service account. Raises ServerTrouble."""
        context = self._context
        if context is None and (server.is_ldaps or server.starttls):
            # Two threads may both make one; either will do.
            context = self._context = self._tls.context()
        credentials = self._account.credentials() if as_service else None
        connection = LdapConnection(server, context, deadline, patience=self._attempt_seconds)
        try:
            if credentials is not None and (credentials.dn or credentials.external):
                outcome = connection.bind(credentials, deadline)
                if not outcome.is_right:
                    raise ServerTrouble(f"the service account is refused: {outcome.reason}")
        except RequestTrouble as error:
            # Without its account this server is of no use; another may know it.
            connection.close()
            raise ServerTrouble(f"the service account is refused: {error}") from error
        except BaseException:
            connection.close()
            raise
        return connection

    def probe(self, lane: Lane, deadline: float) -> None:
        """Try those that are down, and let those that answer serve again."""
        for server in self.servers.down():
            # Files may have been what was wrong.
            self._context = None
            end = min(deadline, time.monotonic() + self._attempt_seconds)
            try:
                connection = self.open(server, end, as_service=True)
                try:
                    connection.search(entry_at("", ("supportedLDAPVersion",)), end)
                finally:
                    connection.close()
            except LdapTrouble as error:
                self.servers.mark_down(server, str(error))
            else:
                self.servers.mark_up(server)


class LdapClient:
    """Asked in the reactor thread. ``clock`` None: for commands, which do not outlive a failure."""

    _log = Logger()

    def __init__(
        self,
        attempts: Attempts,
        *,
        searches: IWorkers,
        binds: IWorkers,
        probes: IWorkers,
        clock: IReactorTime,
        call_from_thread: Callable[[Callable[[], object]], object],
        retry_seconds: float,
        finder: ServerFinder | None = None,
    ) -> None:
        """``finder``: where the DNS says which servers there are."""
        self.servers = attempts.servers
        self._finder = finder
        self.searches = searches
        self.binds = binds
        self._attempts = attempts
        self._probes = probes
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._wait = FIRST_PROBE_SECONDS
        self._is_probing = False
        self._asked_at = clock.seconds()
        self.observer: Observer | None = None
        """Is told every search, in the thread that asks."""
        self.servers.on_down = lambda: call_from_thread(self._schedule_probe)
        if finder is not None:
            self.servers.on_empty = lambda: call_from_thread(finder.look)

    async def find_servers(self, seconds: float) -> None:
        """Have servers to ask. Raises NoServer."""
        if self._finder is not None:
            await self._finder.find(seconds)

    async def search(self, search: Search, *, seconds: float) -> tuple[LdapEntry, ...]:
        """Entries. Raises LdapTrouble, or Unavailable where too many wait."""
        return await self.with_connection(lambda connection, end: connection.search(search, end), seconds=seconds)

    async def with_connection(
        self, work: Callable[[LdapConnection, float], T], *, seconds: float, patience: float = 0.0
    ) -> T:
        """Several searches in one go, as the service account; ``patience`` as in :meth:`Attempts.run`."""
        if self.observer is not None:
            work = observed(work, self.observer)
        await self.find_servers(seconds)
        self._note_use()
        return await self.searches.run(
            lambda lane, deadline: self._attempts.run(lane, deadline, work, as_service=True, patience=patience),
            seconds,
        )

    async def check_password(self, dn: str, password: str, *, seconds: float) -> BindOutcome:
        """Whether the directory takes the password. Raises as ``search``."""
        try:
            octets = password.encode("utf-8")
        except UnicodeEncodeError:
            octets = b""
        if not octets or not dn or b"\0" in octets:
            # R-AUTH-1: refused before the directory sees it.
            return BindOutcome(False, "no password anybody could have")
        await self.find_servers(seconds)
        self._note_use()
        credentials = Credentials(dn, octets)
        return await self.binds.run(
            lambda lane, deadline: self._attempts.run(
                lane, deadline, lambda connection, end: connection.bind(credentials, end), as_service=False
            ),
            seconds,
        )

    def _note_use(self) -> None:
        self._asked_at = self._clock.seconds()
        if not self._is_probing and not all(server.is_up for server in self.servers.all):
            self._schedule_probe()

    def _schedule_probe(self) -> None:
        if self._is_probing:
            return
        self._is_probing = True
        self._wait = FIRST_PROBE_SECONDS
        self._clock.callLater(self._wait, self._probe)

    def _probe(self) -> None:
        if self._clock.seconds() - self._asked_at > FORGET_SECONDS:
            self._is_probing = False
            return
        self._probes.run(self._attempts.probe, 60.0).addBoth(self._probed)

    def _probed(self, result: object) -> None:
        if isinstance(result, Failure):
            self._log.failure("The directory's servers could not be probed", result)
        if not self.servers.down():
            self._is_probing = False
            return
        self._wait = min(self._wait * 2, self._retry_seconds)
        self._clock.callLater(self._wait, self._probe)
