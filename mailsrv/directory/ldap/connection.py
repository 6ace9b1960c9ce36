"""One connection to one server, over ldap3. Blocks: for threads only, one thread at a time.

ldap3 encodes, decodes and keeps count of messages (SAFE_SYNC: results belong to the caller). Sockets and TLS are ours:
one TLS context for all connections (ldap3 loads the trust store for each), names checked by the TLS library, and a
deadline over every operation as a whole. Referrals are not followed: a password must not go where an answer points to.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import warnings
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from attrs import field, frozen
from ldap3 import ANONYMOUS, BASE, EXTERNAL, NONE, SAFE_SYNC, SASL, SIMPLE, SUBTREE, Connection, Server
from ldap3.core.exceptions import LDAPException
from ldap3.strategy.safeSync import SafeSyncStrategy

from mailsrv.directory.ldap.deadline_socket import DeadlineSocket
from mailsrv.directory.ldap.filters import Filter
from mailsrv.directory.ldap.servers import LdapServer
from mailsrv.directory.ldap.trouble import ConnectionLost, OutOfTime, RequestTrouble, ServerTrouble

# ldap3 2.9.1 uses names that pyasn1 has renamed and still knows.
warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(ldap3|pyasn1)\.")

ANSWER_OCTETS = 64 * 1024 * 1024
"""Most octets of one answer (a page of entries)."""
PAGE_ENTRIES = 500
_START_TLS = "1.3.6.1.4.1.1466.20037"
_PAGED_RESULTS = "1.2.840.113556.1.4.319"

# RFC 4511 4.1.9
_SUCCESS, _TIME_LIMIT, _SIZE_LIMIT, _ADMIN_LIMIT, _REFERRAL = 0, 3, 4, 11, 10
_CONFIDENTIALITY_REQUIRED = 13
_CONSTRAINT, _NO_SUCH_OBJECT, _INAPPROPRIATE, _INVALID, _UNWILLING = 19, 32, 48, 49, 53
_SERVER_CANNOT = frozenset({1, 2, 7, 8, 10, 13, 51, 52, 80})


@frozen
class LdapEntry:
    """An entry: names of attributes in lower case."""

    dn: str
    values: Mapping[str, tuple[bytes, ...]] = field(repr=False)

    def texts(self, attribute: str) -> tuple[str, ...]:
        """The values of an attribute that are UTF-8, in an order of our own: the directory's has no meaning."""
        found = []
        for value in self.values.get(attribute.lower(), ()):
            with contextlib.suppress(UnicodeDecodeError):
                found.append(value.decode("utf-8"))
        return tuple(sorted(found))

    def first(self, attribute: str) -> str:
        """The first value, or ""."""
        return next(iter(self.texts(attribute)), "")


@frozen
class Credentials:
    """Who we are towards the server. Neither ``dn`` nor ``external``: nobody."""

    dn: str = ""
    password: bytes = field(default=b"", repr=False)
    external: bool = False
    """By client certificate (SASL EXTERNAL, RFC 4422 appendix A)."""


@frozen
class BindOutcome:
    """What a server said to a name and a password."""

    is_right: bool
    reason: str = ""
    """For the log, where it is not."""


class _OwnSocketStrategy(SafeSyncStrategy):  # type: ignore[misc]
    """ldap3's synchronous strategy on a socket that is open already."""

    def __init__(self, connection: Connection, opened: DeadlineSocket) -> None:
        super().__init__(connection)
        self._opened = opened

    def open(self, reset_usage: bool = True, read_server_info: bool = True) -> None:
        if self._opened.fileno() < 0:
            raise OSError("the connection is closed")
        self._outstanding: dict[int, Any] = {}
        self.connection.socket = self._opened
        self.connection.closed = False
        self._start_listen()


class LdapConnection:
    """Open from the start. Raises ServerTrouble, ConnectionLost where it was of use before, RequestTrouble."""

    def __init__(
        self, server: LdapServer, context: ssl.SSLContext | None, deadline: float, *, patience: float = 10.0
    ) -> None:
        """``patience``: seconds for each answer. A request of many questions may take as long as its deadline says."""
        self.server = server
        self._patience = patience
        self.generation = server.generation
        """What the server's was when this was opened: what broke since is not to be reused."""
        self.is_spent = False
        """An answer may be under way that nobody waits for: not to be used again."""
        self._answered = False
        try:
            self._socket = DeadlineSocket(_connect(server, deadline))
        except OSError as error:
            raise ServerTrouble(f"cannot connect: {_say(error)}") from error
        try:
            self._open(context, deadline)
        except BaseException:
            self._socket.close()
            raise

    def _open(self, context: ssl.SSLContext | None, deadline: float) -> None:
        server = self.server
        self._socket.expect(deadline, ANSWER_OCTETS)
        if server.is_ldaps:
            self._shake_hands(context)
        self._ldap = Connection(
            Server(server.host, port=server.port, get_info=NONE),
            client_strategy=SAFE_SYNC,
            auto_referrals=False,
            check_names=False,
            authentication=ANONYMOUS,
            return_empty_attributes=False,
        )
        strategy = _OwnSocketStrategy(self._ldap, self._socket)
        for name in ("send", "open", "get_response", "post_send_single_response", "post_send_search"):
            setattr(self._ldap, name, getattr(strategy, name))
        self._ldap.strategy = strategy
        strategy.open()
        if server.starttls:
            # RFC 4511 4.14; RFC 4513 3.1.3: nothing else is said before.
            result = self._ask(deadline, lambda: self._ldap.extended(_START_TLS))[1]
            if result["result"] != _SUCCESS:
                raise ServerTrouble(f"StartTLS is refused: {_describe(result)}")
            self._shake_hands(context)

    def _shake_hands(self, context: ssl.SSLContext | None) -> None:
        if context is None:
            raise ServerTrouble("TLS is not set up")
        try:
            self._socket.start_tls(context, self.server.host)
        except OSError as error:
            raise ServerTrouble(f"TLS failed: {_say(error)}") from error

    @property
    def tls_version(self) -> str:
        """``TLSv1.3``; "" without TLS."""
        return self._socket.tls_version

    def bind(self, credentials: Credentials, deadline: float) -> BindOutcome:
        """Be somebody. Never with an empty password, which every name could be had with (R-AUTH-1, RFC 4513 5.1.2)."""
        connection = self._ldap
        if credentials.external:
            connection.authentication, connection.sasl_mechanism = SASL, EXTERNAL
            connection.sasl_credentials = ""
        elif not credentials.dn:
            connection.authentication, connection.user, connection.password = ANONYMOUS, None, None
        elif not credentials.password:
            return BindOutcome(False, "an empty password")
        else:
            connection.authentication = SIMPLE
            connection.user, connection.password = credentials.dn, credentials.password
        try:
            result = self._ask(deadline, lambda: connection.bind(read_server_info=False))[1]
        finally:
            connection.password = None
        return _bind_outcome(result)

    def search(
        self,
        base: str,
        what: Filter,
        attributes: Sequence[str],
        deadline: float,
        *,
        limit: int,
        whole_tree: bool = True,
    ) -> tuple[LdapEntry, ...]:
        """Entries below (or at) ``base``, at most ``limit``; page by page where there may be many (RFC 2696)."""
        entries: list[LdapEntry] = []
        paged = limit > PAGE_ENTRIES
        cookie: bytes | None = None
        while True:
            _, result, response, _ = self._ask(
                deadline,
                lambda cookie=cookie: self._ldap.search(
                    base,
                    what.text,
                    search_scope=SUBTREE if whole_tree else BASE,
                    dereference_aliases="NEVER",
                    attributes=list(attributes),
                    size_limit=0 if paged else limit,
                    time_limit=60,
                    paged_size=PAGE_ENTRIES if paged else None,
                    paged_criticality=True,
                    paged_cookie=cookie,
                ),
            )
            self._check_search(result, base)
            entries += [_entry(each) for each in response or () if each["type"] == "searchResEntry"]
            control = (result.get("controls") or {}).get(_PAGED_RESULTS)
            cookie = control["value"]["cookie"] if control else None
            if not cookie or len(entries) >= limit:
                return tuple(entries[:limit])

    def _check_search(self, result: Mapping[str, Any], base: str) -> None:
        code = result["result"]
        # At the size limit we have as many as we asked for.
        if code in (_SUCCESS, _SIZE_LIMIT):
            return
        if code in _SERVER_CANNOT and code != _REFERRAL:
            raise ServerTrouble(_describe(result))
        raise RequestTrouble(f"the search below {base!r} failed: {_describe(result)}")

    def _ask(self, deadline: float, operation: Any) -> Any:
        began = monotonic()
        if began >= deadline:
            raise OutOfTime("the request took too long")
        self._socket.expect(min(deadline, began + self._patience), ANSWER_OCTETS)
        try:
            answer = operation()
        except (OSError, LDAPException) as error:
            was_late = isinstance(error, TimeoutError) or "in time" in str(error) or "timed out" in str(error)
            if was_late and monotonic() - began < self._patience / 2:
                # The connection is of no use any more: the answer may still come.
                self.is_spent = True
                raise OutOfTime("the request took too long") from error
            kind = ConnectionLost if self._answered and not was_late else ServerTrouble
            raise kind("no answer in time" if was_late else f"the connection broke: {_say(error)}") from error
        except (IndexError, KeyError, TypeError, ValueError) as error:
            # What ldap3's decoder makes of octets that are no LDAP.
            raise ServerTrouble(f"the answer is no LDAP ({type(error).__name__})") from error
        self._answered = True
        return answer

    def close(self) -> None:
        """At once; nothing is waited for."""
        self._socket.close()


def _connect(server: LdapServer, deadline: float) -> socket.socket:
    """A TCP connection to the first of the host's addresses that takes one, or a Unix socket's (``ldapi``)."""
    if server.socket_path:
        local = socket.socket(socket.AF_UNIX)
        try:
            local.settimeout(max(0.001, deadline - monotonic()))
            local.connect(server.socket_path)
        except BaseException:
            local.close()
            raise
        return local
    addresses = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    failure: OSError = OSError("the name has no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        remaining = deadline - monotonic()
        if remaining <= 0:
            raise TimeoutError("no connection in time")
        one = socket.socket(family, kind, protocol)
        try:
            # An address that is silent must leave time for the others.
            one.settimeout(remaining / (len(addresses) - number))
            one.connect(address)
            # A request is one small write after another: 44 ms each otherwise.
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            one.close()
            failure = error
        else:
            return one
    raise failure


def _entry(response: Mapping[str, Any]) -> LdapEntry:
    return LdapEntry(
        response["dn"], {str(name).lower(): tuple(values) for name, values in response["raw_attributes"].items()}
    )


def _bind_outcome(result: Mapping[str, Any]) -> BindOutcome:
    code, message = result["result"], str(result.get("message") or "")
    if code == _SUCCESS:
        return BindOutcome(True)
    # 389 Directory Server says "unwilling" to an account that is shut, "constraint" after too many failures.
    is_shut = code == _UNWILLING and "inactivated" in message.lower()
    if code in (_INVALID, _NO_SUCH_OBJECT, _INAPPROPRIATE, _CONSTRAINT) or is_shut:
        return BindOutcome(False, _active_directory_reason(message) or _describe(result))
    raise ServerTrouble(f"a bind is answered with {_describe(result)}")


# MS-ADTS: the "data" of the diagnostic message.
_REASONS = {
    "525": "unknown user",
    "52e": "wrong password",
    "530": "may not log in at this time",
    "531": "may not log in from this workstation",
    "532": "the password has expired",
    "533": "the account is disabled",
    "701": "the account has expired",
    "773": "the password must be changed first",
    "775": "the account is locked",
}


def _active_directory_reason(message: str) -> str:
    _, found, rest = message.partition(", data ")
    return _REASONS.get(rest.partition(",")[0].strip().lower(), "") if found else ""


def _describe(result: Mapping[str, Any]) -> str:
    message = str(result.get("message") or "").strip().rstrip("\0")
    text = f"{result['description']} ({result['result']})"
    return f"{text}: {message[:200]!a}" if message else text


def _say(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is refused: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    return ascii(str(error))[:200].strip("'\"") or type(error).__name__


def is_ip_address(host: str) -> bool:
    """Whether a host is given by its address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
