"""Servers that hang, trickle, lie and babble: each costs one attempt at most, and the request goes on with the next."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailsrv.directory.ldap import messages
from mailsrv.directory.ldap.client import Attempts, LdapClient, ServiceAccount, TlsFiles
from mailsrv.directory.ldap.connection import EMPTY_PAGES, PAGE_ENTRIES
from mailsrv.directory.ldap.filters import equal
from mailsrv.directory.ldap.messages import tlv
from mailsrv.directory.ldap.search import Search
from mailsrv.directory.ldap.servers import Servers, parse_server
from mailsrv.directory.ldap.trouble import NoServer, NoSuchEntry, RequestTrouble, ServerTrouble
from mailsrv.directory.ldap.workers import InPlace

ATTEMPT_SECONDS = 0.8
"""Where it is waited out."""
ALICE = ("uid=alice,dc=test", {"uid": (b"alice",)})

Conversation = Callable[[socket.socket], None]
"""What a server does on one connection."""


def message(number: int, tag: int, content: bytes, controls: bytes = b"") -> bytes:
    return tlv(0x30, tlv(2, number.to_bytes(5, "big")) + tlv(tag, content) + controls)


def entry(number: int, dn: str = "uid=alice,dc=test", uid: bytes = b"alice") -> bytes:
    attribute = tlv(0x30, tlv(4, b"uid") + tlv(0x31, tlv(4, uid)))
    return message(number, messages.SEARCH_ENTRY, tlv(4, dn.encode()) + tlv(0x30, attribute))


def done(number: int, code: int = 0, cookie: bytes | None = None, tag: int = messages.SEARCH_DONE) -> bytes:
    controls = b""
    if cookie is not None:
        value = tlv(0x30, tlv(2, b"\0") + tlv(4, cookie))
        controls = tlv(0xA0, tlv(0x30, tlv(4, messages.PAGED_RESULTS) + tlv(4, value)))
    return message(number, tag, tlv(0x0A, bytes((code,))) + tlv(4, b"") + tlv(4, b""), controls)


NOTICE = message(
    0,
    messages.EXTENDED_RESPONSE,
    tlv(0x0A, b"\x34") + tlv(4, b"") + tlv(4, b"going down") + tlv(0x8A, messages.NOTICE_OF_DISCONNECTION),
)
UNHEARD_OF = message(0, messages.EXTENDED_RESPONSE, tlv(0x0A, b"\0") + tlv(4, b"") + tlv(4, b"") + tlv(0x8A, b"1.2.3"))


def next_request(one: socket.socket) -> messages.Message | None:
    """What the client asks; None when it has gone."""
    octets = b""
    while (size := messages.message_size(octets, 1 << 20)) is None or len(octets) < size:
        data = one.recv(65536)
        if not data:
            return None
        octets += data
    return messages.read_message(octets)


def answering(*answers: Callable[[int], bytes]) -> Conversation:
    """Each request is answered by the next of these; the last one again and again."""

    def converse(one: socket.socket) -> None:
        count = 0
        while (request := next_request(one)) is not None:
            one.sendall(answers[min(count, len(answers) - 1)](request.number))
            count += 1

    return converse


def good(number: int) -> bytes:
    return entry(number) + done(number)


def silent(one: socket.socket) -> None:
    while one.recv(65536):
        pass


def trickling(one: socket.socket) -> None:
    """One octet at a time, for ever."""
    request = next_request(one)
    assert request is not None
    for octet in good(request.number) * 100:
        one.sendall(bytes((octet,)))
        time.sleep(0.02)


def babbling(octets: bytes) -> Conversation:
    def converse(one: socket.socket) -> None:
        next_request(one)
        one.sendall(octets)
        silent(one)

    return converse


@attrs.define(eq=False)
class FakeServer:
    """A server on loopback. Connections follow the conversations in turn, the last one again and again."""

    conversations: tuple[Conversation, ...]
    connections: int = 0
    _listener: socket.socket = attrs.field(factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _open: list[socket.socket] = attrs.field(factory=list)

    @property
    def uri(self) -> str:
        return f"ldap://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(one)
            converse = self.conversations[min(self.connections, len(self.conversations) - 1)]
            self.connections += 1
            threading.Thread(target=self._converse, args=(converse, one), daemon=True).start()

    def _converse(self, converse: Conversation, one: socket.socket) -> None:
        with contextlib.suppress(OSError, messages.MessageError), one:
            converse(one)

    def close(self) -> None:
        # A listener that is only closed goes on waiting in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.close()


@attrs.define(eq=False)
class House:
    """A client of some such servers."""

    clock: Clock = attrs.field(factory=Clock)
    fakes: list[FakeServer] = attrs.field(factory=list)

    def server(self, *conversations: Conversation) -> FakeServer:
        fake = FakeServer(conversations)
        self.fakes.append(fake)
        threading.Thread(target=fake.serve, daemon=True).start()
        return fake

    def client(self, *uris: str, attempt_seconds: float = 5.0) -> LdapClient:
        servers = Servers("x", [parse_server(uri, starttls=False) for uri in uris], seconds=time.monotonic)
        attempts = Attempts(servers, TlsFiles(), ServiceAccount(), attempt_seconds=attempt_seconds)
        return LdapClient(
            attempts,
            searches=InPlace(),
            binds=InPlace(),
            probes=InPlace(),
            clock=self.clock,
            call_from_thread=lambda function: function(),
            retry_seconds=15.0,
        )


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    for fake in made.fakes:
        fake.close()


def ask(client: LdapClient, *, limit: int = 5, seconds: float = 10.0) -> Any:
    """DNs and values, or what it fails with."""
    found: list[Any] = []
    question = client.search(Search("dc=test", equal("uid", "alice"), ("uid",), limit=limit), seconds=seconds)
    Deferred.fromCoroutine(question).addCallbacks(
        lambda entries: [(each.dn, dict(each.values)) for each in entries], lambda failure: failure.value
    ).addBoth(found.append)
    return found[0]


HOSTILE = {
    "silent": silent,
    "trickling": trickling,
    "no LDAP": babbling(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "huge": babbling(b"\x30\x84\x7f\xff\xff\xff"),
    "endless length": babbling(b"\x30\x89" + b"\xff" * 9),
    "indefinite length": babbling(b"\x30\x80\x02\x01\x01\0\0"),
    "cut entry": answering(lambda number: message(number, messages.SEARCH_ENTRY, b"\x04\x7fcut")),
    "another's answer": answering(lambda number: good(number + 1)),
    "answer to another operation": answering(lambda number: done(number, tag=messages.BIND_RESPONSE)),
    "busy": answering(lambda number: done(number, code=51)),
    "notice of disconnection": babbling(NOTICE),
    "closes at once": lambda one: None,
    "closes half-way": answering(lambda number: entry(number)[:-3]),
}


@pytest.mark.parametrize("kind", list(HOSTILE))
def test_r_auth_7_the_request_goes_on_with_the_next_server_and_the_first_is_left_alone(house, kind):
    first, second = house.server(HOSTILE[kind]), house.server(answering(good))
    client = house.client(first.uri, second.uri, attempt_seconds=ATTEMPT_SECONDS)
    began = time.monotonic()
    assert ask(client) == [ALICE]
    assert time.monotonic() - began < ATTEMPT_SECONDS + 1.5
    assert [server.is_up for server in client.servers.all] == [False, True]
    connections = first.connections
    assert ask(client) == [ALICE]
    assert first.connections == connections, "nobody else pays for it"


@pytest.mark.parametrize("kind", ["silent", "trickling", "no LDAP", "closes at once"])
def test_r_auth_7_a_tls_handshake_that_never_ends_or_is_none(house, kind):
    first, second = house.server(HOSTILE[kind]), house.server(answering(good))
    client = house.client(first.uri.replace("ldap:", "ldaps:"), second.uri, attempt_seconds=ATTEMPT_SECONDS)
    began = time.monotonic()
    assert ask(client) == [ALICE]
    assert time.monotonic() - began < ATTEMPT_SECONDS + 1.5
    assert not client.servers.all[0].is_up


def test_a_server_that_lists_pages_without_end_or_entries_is_left(house):
    first = house.server(answering(lambda number: done(number, cookie=b"again")))
    second = house.server(answering(good))
    client = house.client(first.uri, second.uri)
    assert ask(client, limit=PAGE_ENTRIES + 1) == [ALICE]
    assert "no end" in client.servers.all[0].cause


def test_some_empty_pages_are_none_of_its_faults(house):
    pages = [lambda number: done(number, cookie=b"more")] * EMPTY_PAGES
    server = house.server(answering(*pages, good))
    assert ask(house.client(server.uri), limit=PAGE_ENTRIES + 1) == [ALICE]


def test_pages_end_where_as_many_are_there_as_were_asked_for(house):
    def page(number: int) -> bytes:
        return entry(number) * PAGE_ENTRIES + done(number, cookie=b"more")

    server = house.server(answering(page, lambda number: entry(number) * 10 + done(number, cookie=b"more")))
    assert len(ask(house.client(server.uri), limit=PAGE_ENTRIES + 10)) == PAGE_ENTRIES + 10


def test_a_kept_connection_with_a_notice_of_disconnection_is_made_anew(house):
    server = house.server(answering(good, lambda number: NOTICE), answering(good))
    client = house.client(server.uri)
    assert ask(client) == ask(client) == [ALICE]
    assert server.connections == 2
    assert client.servers.all[0].is_up


def test_other_notices_referrals_and_intermediate_answers_are_passed_over(house):
    def answer(number: int) -> bytes:
        reference = message(number, messages.SEARCH_REFERENCE, tlv(4, b"ldap://elsewhere.test/dc=test"))
        between = message(number, messages.INTERMEDIATE_RESPONSE, tlv(0x80, b"1.2.3"))
        return UNHEARD_OF + reference + between + good(number)

    assert ask(house.client(house.server(answering(answer)).uri)) == [ALICE]


def test_what_is_wrong_with_the_question_is_not_the_servers_fault(house):
    for code, kind in ((32, NoSuchEntry), (50, RequestTrouble), (10, RequestTrouble)):
        server = house.server(answering(partial(done, code=code)))
        client = house.client(server.uri)
        assert isinstance(ask(client), kind)
        assert client.servers.all[0].is_up


def test_a_server_that_does_not_heed_limits_is_not_down(house):
    """Samba: it would be down for everybody as soon as some entries have the same address."""
    server = house.server(answering(lambda number: entry(number) * 100 + done(number)), answering(good))
    client = house.client(server.uri)
    assert isinstance(ask(client), RequestTrouble)
    assert client.servers.all[0].is_up
    assert ask(client) == [ALICE]
    assert server.connections == 2, "nobody reads the rest"


def test_a_servers_own_limit_is_told_and_a_part_is_not_taken_for_the_whole(house):
    server = house.server(answering(lambda number: entry(number) * 3 + done(number, code=4)))
    client = house.client(server.uri)
    assert ask(client, limit=3) == [ALICE] * 3, "as many as were asked for"
    for limit in (4, PAGE_ENTRIES + 1):
        refused = ask(client, limit=limit)
        assert isinstance(refused, RequestTrouble)
        assert "sizeLimitExceeded" in str(refused)
    assert client.servers.all[0].is_up


def test_the_circuit_is_open_after_the_last_and_one_probe_closes_it(house):
    # The first connection hangs, then so does the first probe.
    first = house.server(silent, silent, answering(good))
    client = house.client(first.uri, attempt_seconds=ATTEMPT_SECONDS)
    assert isinstance(ask(client), ServerTrouble)
    began = time.monotonic()
    for _ in range(100):
        assert isinstance(ask(client), NoServer)
    assert time.monotonic() - began < ATTEMPT_SECONDS
    assert first.connections == 1
    house.clock.advance(1)
    assert first.connections == 2
    assert isinstance(ask(client), NoServer), "half-open: a probe, and nobody's request"
    house.clock.advance(2)
    assert first.connections == 3
    assert ask(client) == [ALICE]


@pytest.mark.parametrize("patience", [0.0, 10 * ATTEMPT_SECONDS])
def test_a_hard_question_that_takes_its_time_shuts_no_server_for_everybody(house, patience):
    def slow(number: int) -> bytes:
        time.sleep(1.5 * ATTEMPT_SECONDS)
        return good(number)

    client = house.client(house.server(answering(slow)).uri, attempt_seconds=ATTEMPT_SECONDS)
    found: list[Any] = []
    question = client.with_connection(
        lambda connection, end: connection.search(Search("dc=test", equal("uid", "alice"), ("uid",), limit=5), end),
        seconds=5.0,
        patience=patience,
    )
    Deferred.fromCoroutine(question).addErrback(lambda failure: failure.value).addBoth(found.append)
    assert isinstance(found[0], tuple) is bool(patience)
    assert client.servers.all[0].is_up is bool(patience)


def test_the_deadline_holds_for_all_attempts_together(house):
    servers = [house.server(silent) for _ in range(5)]
    client = house.client(*(server.uri for server in servers), attempt_seconds=ATTEMPT_SECONDS)
    began = time.monotonic()
    assert isinstance(ask(client, seconds=2 * ATTEMPT_SECONDS), ServerTrouble)
    assert time.monotonic() - began < 4 * ATTEMPT_SECONDS
    assert sum(server.connections for server in servers) <= 3


def extended(number: int) -> bytes:
    return done(number, tag=messages.EXTENDED_RESPONSE)


@pytest.mark.parametrize("injected", [UNHEARD_OF, good(2), b"\0", b"\x30"])
def test_r_tls_2_what_is_said_in_the_clear_after_starttls_ends_the_connection(house, injected):
    server = house.server(answering(lambda number: extended(number) + injected))
    client = house.client(server.uri)
    client.servers.all[0].starttls = True
    assert isinstance(ask(client), ServerTrouble)
    assert "in the clear" in client.servers.all[0].cause


@pytest.mark.parametrize("answer", [good, done, lambda number: done(number, code=2, tag=messages.EXTENDED_RESPONSE)])
def test_r_tls_2_without_starttls_nothing_is_asked(house, answer):
    asked: list[int] = []

    def converse(one: socket.socket) -> None:
        while (request := next_request(one)) is not None:
            asked.append(request.tag)
            one.sendall(answer(request.number))

    client = house.client(house.server(converse).uri)
    client.servers.all[0].starttls = True
    assert isinstance(ask(client), ServerTrouble)
    assert asked == [messages.EXTENDED_REQUEST]


def test_r_auth_7_a_user_whose_bind_is_referred_elsewhere_shuts_the_server_for_nobody(house):
    server = house.server(answering(lambda number: done(number, code=10, tag=messages.BIND_RESPONSE)))
    client = house.client(server.uri)
    outcome: list[Any] = []
    Deferred.fromCoroutine(client.check_password("uid=alice,dc=test", "x", seconds=2.0)).addBoth(outcome.append)
    assert outcome[0].check(RequestTrouble)
    assert client.servers.all[0].is_up


def test_a_part_of_an_attribute_that_begins_beyond_all_numbers_is_an_attribute_of_that_name(house):
    name = b"member;range=0-" + b"9" * 5000
    content = tlv(4, b"cn=all,dc=test") + tlv(0x30, tlv(0x30, tlv(4, name) + tlv(0x31, tlv(4, b"a"))))
    server = house.server(answering(lambda number: message(number, messages.SEARCH_ENTRY, content) + done(number)))
    assert ask(house.client(server.uri)) == [("cn=all,dc=test", {name.decode(): (b"a",)})]


def test_r_auth_1_a_bind_is_answered_by_nothing_but_an_answer_to_a_bind(house):
    """Neither a search's end nor another's success is a right password."""
    for answer in (good, lambda number: done(number + 1, tag=messages.BIND_RESPONSE), lambda number: done(number)):
        client = house.client(house.server(answering(answer)).uri)
        outcome: list[Any] = []
        Deferred.fromCoroutine(client.check_password("uid=alice,dc=test", "x", seconds=2.0)).addBoth(outcome.append)
        assert outcome[0].check(ServerTrouble)


def test_active_directorys_parts_of_a_large_attribute_are_put_together(house):
    def part(number: int, name: bytes, *values: bytes) -> bytes:
        attribute = tlv(0x30, tlv(4, name) + tlv(0x31, b"".join(tlv(4, value) for value in values)))
        content = tlv(4, b"cn=all,dc=test") + tlv(0x30, attribute)
        return message(number, messages.SEARCH_ENTRY, content) + done(number)

    server = house.server(
        answering(
            lambda number: part(number, b"member;range=0-1", b"a", b"b"),
            lambda number: part(number, b"member;range=2-3", b"c", b"d"),
            lambda number: part(number, b"member;range=4-*", b"e"),
        )
    )
    assert ask(house.client(server.uri)) == [("cn=all,dc=test", {"member": (b"a", b"b", b"c", b"d", b"e")})]
    # One that gives the same part for ever is asked no further.
    server = house.server(answering(lambda number: part(number, b"member;range=0-1", b"a", b"b")))
    assert isinstance(ask(house.client(server.uri)), RequestTrouble)


def test_certificates_need_no_more_than_name_and_chain():
    """Python 3.13 would refuse those that authorities of directories have signed for years."""
    assert not TlsFiles().context().verify_flags & ssl.VERIFY_X509_STRICT
