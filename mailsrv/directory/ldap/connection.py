"""One connection to one server, over ldap3. Blocks: for threads only, one thread at a time.

ldap3 (SAFE_SYNC: results belong to the caller) speaks SASL; StartTLS, simple binds and searches, which make up the
load, are written and read by ``messages.py``. Sockets and TLS
are ours: one TLS context for all connections (ldap3 loads the trust store for each), names checked by the TLS library,
and a deadline over every operation as a whole. Referrals are not followed: a password must not go where an answer
points to.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic, sleep
from typing import Any, TypeVar

from attrs import field, frozen
from ldap3 import ANONYMOUS, EXTERNAL, NONE, SAFE_SYNC, SASL, Connection, Server
from ldap3.core.exceptions import LDAPException
from ldap3.strategy.safeSync import SafeSyncStrategy

from mailsrv.directory.ldap import messages
from mailsrv.directory.ldap.deadline_socket import DeadlineSocket
from mailsrv.directory.ldap.dial import connect, say
from mailsrv.directory.ldap.filters import Filter
from mailsrv.directory.ldap.results import (
    SUCCESS,
    BindOutcome,
    as_mapping,
    bind_outcome,
    check_search,
    describe,
)
from mailsrv.directory.ldap.search import Search
from mailsrv.directory.ldap.servers import LdapServer
from mailsrv.directory.ldap.trouble import ConnectionLost, OutOfTime, RequestTrouble, ServerTrouble

# ldap3 2.9.1 uses names that pyasn1 has renamed and still knows.
warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(ldap3|pyasn1)\.")

ANSWER_OCTETS = 64 * 1024 * 1024
"""Most octets of one answer (a page of entries)."""
PAGE_ENTRIES = 500
EMPTY_PAGES = 20
"""Most pages in a row without an entry, which servers may send (RFC 2696 3): one that sends more goes in circles."""
RANGE_VALUES = 200_000
"""Most values of one attribute that a server shows in parts."""
_READ_OCTETS = 65_536
_ENTRIES_IN_ONE_GO, _PAUSE_SECONDS = 16, 0.0001
_TIME_LIMIT_SECONDS = 60
_RANGE = re.compile(r"(.+);range=(\d{1,9})-(\d{1,9}|\*)")
_ANY_ENTRY = messages.encode_filter("(objectClass=*)")

T = TypeVar("T")


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
        self.server = server
        self.patience = patience
        """Seconds for each answer. A request of many questions may take as long as its deadline says."""
        self.generation = server.generation
        """What the server's was when this was opened: what broke since is not to be reused."""
        self.is_spent = False
        """An answer may be under way that nobody waits for: not to be used again."""
        self._answered = False
        self._unread = bytearray()
        try:
            self._socket = DeadlineSocket(connect(server, deadline))
        except OSError as error:
            raise ServerTrouble(f"cannot connect: {say(error)}") from error
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
            # RFC 4513 3.1.3: nothing else is said before.
            self._start_tls(context, deadline)

    def _start_tls(self, context: ssl.SSLContext | None, deadline: float) -> None:
        """RFC 4511 4.14."""
        number = self._next_number()
        request = messages.extended_request(number, messages.START_TLS)
        result = as_mapping(self._exchange(number, request, messages.EXTENDED_RESPONSE, deadline))
        if result["result"] != SUCCESS:
            raise ServerTrouble(f"StartTLS is refused: {describe(result)}")
        if self._unread:
            # R-TLS-2: what came in the clear after the answer is somebody else's, and would count as the server's.
            raise ServerTrouble("more was said in the clear after StartTLS")
        self._shake_hands(context)

    def _shake_hands(self, context: ssl.SSLContext | None) -> None:
        if context is None:
            raise ServerTrouble("TLS is not set up")
        try:
            self._socket.start_tls(context, self.server.tls_name or self.server.host)
        except OSError as error:
            raise ServerTrouble(f"TLS failed: {say(error)}") from error

    @property
    def tls_version(self) -> str:
        """``TLSv1.3``; "" without TLS."""
        return self._socket.tls_version

    def bind(self, credentials: Credentials, deadline: float) -> BindOutcome:
        """Be somebody. Never with an empty password, which every name could be had with (R-AUTH-1, RFC 4513 5.1.2)."""
        if not credentials.external:
            return self._bind_simply(credentials, deadline)
        connection = self._ldap
        connection.authentication, connection.sasl_mechanism, connection.sasl_credentials = SASL, EXTERNAL, ""
        return bind_outcome(self._ask(deadline, lambda: connection.bind(read_server_info=False))[1])

    def _bind_simply(self, credentials: Credentials, deadline: float) -> BindOutcome:
        if not credentials.dn or not credentials.password:
            return BindOutcome(False, "an empty name or password")
        number = self._next_number()
        request = messages.bind_request(number, credentials.dn, credentials.password)
        return bind_outcome(as_mapping(self._exchange(number, request, messages.BIND_RESPONSE, deadline)))

    def _exchange(self, number: int, request: bytes, expected: int, deadline: float) -> messages.Outcome:
        """A request that has one answer."""

        def exchange() -> messages.Outcome:
            self._socket.sendall(request)
            answer = self._next_answer(number)
            if answer.tag != expected:
                raise messages.MessageError("the answer to another operation")
            return messages.read_outcome(answer.content)

        return self._ask(deadline, exchange)

    def search(self, search: Search, deadline: float) -> tuple[LdapEntry, ...]:
        """The entries; page by page where there may be many (RFC 2696)."""
        limit = search.limit
        octets = messages.encode_filter(search.what.text)
        entries: list[LdapEntry] = []
        paged = search.is_paged or limit > PAGE_ENTRIES
        empty_pages = 0
        cookie = b""
        while True:
            # A server is not asked for more than is wanted, nor trusted to stop there.
            left = limit - len(entries)
            page = (min(PAGE_ENTRIES, left), cookie) if paged else None
            question = partial(
                messages.search_request,
                base=search.base,
                what=octets,
                attributes=search.attributes,
                whole_tree=search.whole_tree,
                size_limit=0 if paged else limit,
                time_limit_seconds=_TIME_LIMIT_SECONDS,
                page=page,
                controls=search.controls,
            )
            found, outcome, cookie = self._ask(deadline, partial(self._page, question, left))
            entries += found
            check_search(outcome, search.base, is_full=len(entries) >= limit)
            empty_pages = 0 if found else empty_pages + 1
            if empty_pages > EMPTY_PAGES:
                self.is_spent = True
                raise ServerTrouble("pages without entries, and no end of them")
            if not cookie or len(entries) >= limit:
                return tuple(self._with_whole_ranges(entry, deadline) for entry in entries[:limit])

    def _page(self, question: Callable[[int], bytes], left: int) -> tuple[list[LdapEntry], messages.Outcome, bytes]:
        """One question, written for a number, and its answers, until the one that ends them."""
        number = self._next_number()
        self._socket.sendall(question(number))
        entries: list[LdapEntry] = []
        while True:
            answer = self._next_answer(number)
            if answer.tag == messages.SEARCH_ENTRY:
                if len(entries) >= left:
                    # What comes yet is not waited for.
                    self.is_spent = True
                    raise RequestTrouble("there are more entries than were asked for")
                entries.append(LdapEntry(*messages.read_entry(answer.content)))
                if len(entries) % _ENTRIES_IN_ONE_GO == 0:
                    # A computing thread keeps the interpreter for a switch interval each time the reactor wants it.
                    sleep(_PAUSE_SECONDS)
            elif answer.tag == messages.SEARCH_DONE:
                return entries, messages.read_outcome(answer.content), messages.read_page_cookie(answer.controls)
            elif answer.tag not in (messages.SEARCH_REFERENCE, messages.INTERMEDIATE_RESPONSE):
                raise messages.MessageError("no answer to a search")

    def _with_whole_ranges(self, entry: LdapEntry, deadline: float) -> LdapEntry:
        """Active Directory shows large attributes in parts (``member;range=0-1499``; MS-ADTS 3.1.1.3.1.3.3)."""
        parts = [match for name in entry.values if (match := _RANGE.fullmatch(name)) is not None]
        if not parts:
            return entry
        values = dict(entry.values)
        for match in parts:
            name, last = match[1], match[3]
            collected = list(values.pop(match[0]))
            while last != "*":
                if len(collected) > RANGE_VALUES:
                    raise RequestTrouble(f"{name} of {entry.dn!r} has more than {RANGE_VALUES} values")
                wanted = f"{name};range={int(last) + 1}-*"
                question = partial(
                    messages.search_request,
                    base=entry.dn,
                    what=_ANY_ENTRY,
                    attributes=(wanted,),
                    whole_tree=False,
                    size_limit=1,
                    time_limit_seconds=_TIME_LIMIT_SECONDS,
                )
                found, outcome, _ = self._ask(deadline, partial(self._page, question, 1))
                check_search(outcome, entry.dn)
                more = [(m, v) for e in found for n, v in e.values.items() if (m := _RANGE.fullmatch(n)) is not None]
                if not more or int(more[0][0][2]) != int(last) + 1:
                    raise RequestTrouble(f"{name} of {entry.dn!r} cannot be read whole")
                last = more[0][0][3]
                collected += more[0][1]
            values[name] = (*values.get(name, ()), *collected)
        return LdapEntry(entry.dn, values)

    def begin_search(
        self,
        base: str,
        what: Filter,
        attributes: Sequence[str],
        deadline: float,
        *,
        controls: Sequence[bytes] = (),
        whole_tree: bool = True,
    ) -> int:
        """Ask without waiting: what comes of it, and may never end, :meth:`next_message` gives. Answers its number."""
        number = self._next_number()
        request = messages.search_request(
            number,
            base,
            messages.encode_filter(what.text),
            attributes,
            whole_tree=whole_tree,
            size_limit=0,
            time_limit_seconds=0,
            controls=controls,
        )
        self._ask(deadline, lambda: self._socket.sendall(request))
        return number

    def next_message(self, seconds: float) -> messages.Message | None:
        """Whatever comes next, of any operation; None where nothing whole has come in so many ``seconds``."""
        self._socket.expect(monotonic() + seconds, ANSWER_OCTETS)
        try:
            return messages.read_message(self._next_octets())
        except TimeoutError:
            # What has come of it is kept.
            return None
        except OSError as error:
            raise ConnectionLost(f"the connection broke: {say(error)}") from error
        except messages.MessageError as error:
            self.is_spent = True
            raise ServerTrouble(str(error)) from error

    def _next_number(self) -> int:
        number: int = self._ldap.server.next_message_id()
        return number

    def _next_answer(self, number: int) -> messages.Message:
        """The next message of an operation. Raises OSError, and MessageError for what does not belong to it."""
        while True:
            answer = messages.read_message(self._next_octets())
            if answer.number == number:
                return answer
            if answer.number != 0:
                raise messages.MessageError("an answer to another question")
            # RFC 4511 4.4: what nobody asked for. Others than this one are to be ignored.
            name = messages.read_response_name(answer.content) if answer.tag == messages.EXTENDED_RESPONSE else b""
            if name == messages.NOTICE_OF_DISCONNECTION:
                outcome = messages.read_outcome(answer.content)
                raise ConnectionResetError(f"the server ends the connection: {describe(as_mapping(outcome))}")

    def _next_octets(self) -> bytes:
        """A whole message."""
        unread = self._unread
        while (size := messages.message_size(unread, ANSWER_OCTETS)) is None or len(unread) < size:
            data = self._socket.recv(_READ_OCTETS)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            unread += data
        octets = bytes(unread[:size])
        del unread[:size]
        return octets

    def _ask(self, deadline: float, operation: Callable[[], T]) -> T:
        began = monotonic()
        if began >= deadline:
            raise OutOfTime("the request took too long")
        self._socket.expect(min(deadline, began + self.patience), ANSWER_OCTETS)
        try:
            answer = operation()
        except (OSError, LDAPException) as error:
            was_late = isinstance(error, TimeoutError) or "in time" in str(error) or "timed out" in str(error)
            if was_late and monotonic() - began < self.patience / 2:
                # The connection is of no use any more: the answer may still come.
                self.is_spent = True
                raise OutOfTime("the request took too long") from error
            kind = ConnectionLost if self._answered and not was_late else ServerTrouble
            raise kind("no answer in time" if was_late else f"the connection broke: {say(error)}") from error
        except messages.MessageError as error:
            self.is_spent = True
            raise ServerTrouble(str(error)) from error
        except (IndexError, KeyError, TypeError, ValueError) as error:
            # What ldap3's decoder makes of octets that are no LDAP.
            self.is_spent = True
            raise ServerTrouble(f"the answer is no LDAP ({type(error).__name__})") from error
        self._answered = True
        return answer

    def close(self) -> None:
        """At once; nothing is waited for."""
        self._socket.close()
