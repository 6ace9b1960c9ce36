"""A directory of some size: two OpenLDAP servers with 10,000 users, 1,000 groups and a list of all these groups."""

from __future__ import annotations

import imaplib
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from mailsrv.directory.domains import LocalDomains
from mailsrv.directory.resolution import LocalAccounts
from mailsrv.directory.resolve import AddressResolver
from mailsrv.directory.settings import DomainSettings
from tests.interop.slapd import BASE, person
from tests.interop.test_ldap_directory import Site, ex, ldap_table, log_in, make_site, result
from tests.scenarios.server import WholeServer

pytestmark = pytest.mark.slow

USERS, GROUPS = 10_000, 1_000
LOGINS = 60


def group(name: str, members: list[str]) -> str:
    return (
        f"dn: cn={name},ou=groups,{BASE}\nobjectClass: groupOfNames\nobjectClass: mailUser\ncn: {name}\n"
        f"mail: {name}@example.test\n" + "".join(f"member: {member}\n" for member in members)
    )


def entries() -> tuple[str, ...]:
    size = USERS // GROUPS
    users = [f"uid=u{number},ou=people,{BASE}" for number in range(USERS)]
    return (
        *(person(f"u{number}", f"pw{number}") for number in range(USERS)),
        *(group(f"g{number}", users[number * size : (number + 1) * size]) for number in range(GROUPS)),
        group("everybody", [f"cn=g{number},ou=groups,{BASE}" for number in range(GROUPS)]),
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = make_site(tmp_path_factory.mktemp("large"), 2, entries())
    yield made
    for server in made.servers:
        server.kill()


def test_a_list_of_a_thousand_groups_is_expanded_to_all_their_members(site: Site) -> None:
    directory = site.parts(*site.servers, attempt_seconds=10.0).directory
    resolver = AddressResolver(LocalDomains([DomainSettings("example.test")]), directory, target_limit=20_000)
    expanded = result(Deferred.fromCoroutine(resolver.resolve(ex("everybody"))))
    assert isinstance(expanded, LocalAccounts)
    assert {account.account for account in expanded.accounts} == {ex(f"u{number}") for number in range(USERS)}


def test_anybody_logs_in_while_a_server_dies(site: Site, tmp_path: Path) -> None:
    first, second = site.servers
    server = WholeServer(tmp_path / "mail", users=(), extra=ldap_table(site, first, second))
    server.passwd_path.touch()
    chosen = random.Random(5).sample(range(USERS), LOGINS)
    answers: dict[int, str] = {}

    def log_in_some(numbers: list[int]) -> None:
        for number in numbers:
            name = f"u{number}" if number % 2 else f"u{number}@example.test"
            answers[number] = log_in(server, name, f"pw{number}")

    with server:
        server.deliver(f"g{chosen[0] % GROUPS}@example.test", b"Subject: to ten\r\n\r\nhello\r\n")
        threads = [threading.Thread(target=log_in_some, args=(chosen[part::4],)) for part in range(4)]
        for thread in threads:
            thread.start()
        first.kill()
        for thread in threads:
            thread.join(60)
        assert answers == dict.fromkeys(chosen, "OK")
        number = chosen[0] % GROUPS * (USERS // GROUPS)
        with imaplib.IMAP4_SSL("localhost", server.ports["imaps"], ssl_context=server.client_context()) as client:
            client.login(f"u{number}", f"pw{number}")
            assert client.select("INBOX", readonly=True)[1] == [b"1"]
    server.check_log()
