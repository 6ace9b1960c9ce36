"""A whole server with two workers over a real OpenLDAP whose tree is emptied, and in which somebody plays the boss."""

from __future__ import annotations

import imaplib
import smtplib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ldap3
import pytest

from mailsrv.tls.self_signed import write_self_signed
from tests.interop.slapd import ADMIN, ADMIN_PASSWORD, BASE, SERVICE, SERVICE_PASSWORD, Slapd, person
from tests.scenarios.server import WholeServer

PEOPLE = f"ou=people,{BASE}"
SOON_SECONDS = 30
pytestmark = pytest.mark.slow


@pytest.fixture
def slapd(tmp_path: Path) -> Iterator[Slapd]:
    write_self_signed("localhost", str(tmp_path / "ldap.pem"), str(tmp_path / "ldap.key"))
    (tmp_path / "secret").write_text(SERVICE_PASSWORD + "\n")
    entries = tuple(person(name, f"{name}'s own") for name in ("alice", "boss", "mallory"))
    with Slapd(tmp_path / "ldap", tmp_path / "ldap.pem", tmp_path / "ldap.key", entries) as one:
        yield one


@pytest.fixture
def server(tmp_path: Path, slapd: Slapd) -> Iterator[WholeServer]:
    directory = (
        f'[[directory]]\ntype = "ldap"\nuri = ["{slapd.uri}"]\nbase = "{BASE}"\nca_file = "{slapd.certificate}"\n'
        f'bind_dn = "{SERVICE}"\nbind_password_file = "{tmp_path / "secret"}"\ncache_seconds = 1\n'
    )
    sections = {"sessions": "check_seconds = 1\nend_seconds = 2", "smtp": "greeting_delay_seconds = 0.0"}
    with WholeServer(tmp_path / "mail", users=("local",), workers=2, extra=directory, sections=sections) as one:
        yield one


def log_in(server: WholeServer, name: str, password: str) -> imaplib.IMAP4:
    client = imaplib.IMAP4("127.0.0.1", server.ports["imap"], timeout=SOON_SECONDS)
    client.login(name, password)
    return client


def idle(client: imaplib.IMAP4) -> None:
    client.select()
    client.send(b"i IDLE\r\n")
    assert client.readline().startswith(b"+")


def rcpt(server: WholeServer, name: str) -> int:
    with smtplib.SMTP("127.0.0.1", server.ports["mx"], local_hostname="localhost", timeout=SOON_SECONDS) as client:
        client.ehlo()
        client.mail("stranger@elsewhere.test")
        return client.rcpt(f"{name}@example.test")[0]


def test_r_auth_7_an_emptied_tree_bounces_nothing_and_closes_no_session_and_one_who_is_gone_is_out(
    server: WholeServer, slapd: Slapd
) -> None:
    bosses = [log_in(server, "boss", "boss's own") for _ in range(4)]  # over both workers
    for client in bosses:
        idle(client)
    alice = log_in(server, "alice", "alice's own")
    assert (rcpt(server, "alice"), rcpt(server, "nobody")) == (250, 550)
    with ldap3.Connection(ldap3.Server(slapd.uri), ADMIN, ADMIN_PASSWORD, auto_bind=True) as admin:
        kept: list[tuple[str, dict[str, Any]]] = []
        admin.search(BASE, "(objectClass=inetOrgPerson)", attributes=["*"])
        for entry in admin.entries:
            kept.append((entry.entry_dn, entry.entry_attributes_as_dict))
        for dn, _ in kept:
            admin.delete(dn)
        # Several rounds of looking at sessions, and of what is asked about looks.
        time.sleep(6)
        assert [rcpt(server, name) for name in ("mallory", "nobody")] == [451, 451]
        with pytest.raises(imaplib.IMAP4.error, match="UNAVAILABLE"):
            log_in(server, "mallory", "mallory's own")
        assert alice.noop()[0] == "OK"
        for dn, values in kept:
            if not dn.startswith("uid=boss"):
                admin.add(dn, attributes=values)
    for client in bosses:
        assert client.readline() == b"* BYE The account is gone\r\n"
    assert (rcpt(server, "mallory"), rcpt(server, "nobody")) == (250, 550)


def test_who_writes_the_bosss_address_into_their_entry_is_not_let_in_and_shuts_out_only_the_boss(
    server: WholeServer, slapd: Slapd
) -> None:
    with ldap3.Connection(ldap3.Server(slapd.uri), ADMIN, ADMIN_PASSWORD, auto_bind=True) as admin:
        changes = {
            "mail": [(ldap3.MODIFY_REPLACE, ["boss@example.test"])],
            "mailForwardingAddress": [(ldap3.MODIFY_ADD, ["mallory@elsewhere.test"])],
        }
        assert admin.modify(f"uid=mallory,{PEOPLE}", changes), admin.result
    for name in ("mallory", "boss@example.test"):
        with pytest.raises(imaplib.IMAP4.error, match="UNAVAILABLE"):
            log_in(server, name, "mallory's own")
    assert rcpt(server, "boss") == 451
    assert log_in(server, "alice", "alice's own").noop()[0] == "OK"
