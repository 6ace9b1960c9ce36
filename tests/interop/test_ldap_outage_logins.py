"""With ``auth.outage_seconds`` who logged in lately logs in while a real OpenLDAP hangs."""

from __future__ import annotations

import imaplib
import time
from collections.abc import Iterator
from pathlib import Path

import ldap3
import pytest

from tests.interop.slapd import ADMIN, ADMIN_PASSWORD, BASE, person
from tests.interop.test_ldap_directory import Site, ldap_table, log_in, make_site
from tests.scenarios.server import WholeServer


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = make_site(tmp_path / "site", 1, (person("alice", "sesame"), person("bob", "mellon")))
    yield made
    for server in made.servers:
        server.kill()


def test_who_logged_in_before_the_outage_logs_in_and_loses_the_session_after_it(site: Site, tmp_path: Path) -> None:
    (slapd,) = site.servers
    server = WholeServer(
        tmp_path / "mail",
        users=(),
        extra=ldap_table(site, slapd, cache_seconds=0.1),
        sections={"auth": "cache_seconds = 0.0\noutage_seconds = 3600.0", "sessions": "check_seconds = 1.0"},
    )
    server.passwd_path.touch()
    with server:
        assert log_in(server, "alice", "sesame") == "OK"
        slapd.freeze()
        time.sleep(0.2)
        assert "UNAVAILABLE" in log_in(server, "bob", "mellon")
        assert "UNAVAILABLE" in log_in(server, "alice", "wrong")
        client = imaplib.IMAP4_SSL("localhost", server.ports["imaps"], ssl_context=server.client_context())
        client.login("alice", "sesame")
        assert client.select("INBOX")[0] == "OK"
        # Nobody could tell during the outage; now it comes to light.
        slapd.thaw()
        with ldap3.Connection(ldap3.Server(slapd.uri), ADMIN, ADMIN_PASSWORD, auto_bind=True) as writer:
            change = {"userPassword": [(ldap3.MODIFY_REPLACE, ["another"])]}
            assert writer.modify(f"uid=alice,ou=people,{BASE}", change)
        client.sock.settimeout(40)
        assert client.readline().startswith(b"* BYE The password has changed")
        client.shutdown()
        server.wait_for_event("is let in by the password of before the outage")
    server.check_log()
    assert "sesame" not in server.log_text()
