"""Rules on log-ins by groups of a real OpenLDAP are held against sessions that are open."""

from __future__ import annotations

import imaplib
import smtplib
from collections.abc import Iterator
from pathlib import Path

import ldap3
import pytest

from tests.interop.slapd import ADMIN, ADMIN_PASSWORD, BASE, Slapd, person
from tests.interop.test_ldap_changes import SYNCPROV
from tests.interop.test_ldap_directory import Site, group, ldap_table, make_site
from tests.scenarios.server import WholeServer

GUESTS, STRICT = f"cn=guests,ou=groups,{BASE}", f"cn=strict,ou=groups,{BASE}"
ALICE = f"uid=alice,ou=people,{BASE}"
RULES = '[[access]]\naction = "deny"\ngroups = ["guests"]\nservices = ["imap"]\n'
ENTRIES = (
    person("alice", "sesame"),
    person("bob", "mellon"),
    group("guests", f"cn=empty,{BASE}"),
    group("strict", f"cn=empty,{BASE}"),
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = make_site(tmp_path / "site", 1, ENTRIES, directives=SYNCPROV)
    yield made
    for server in made.servers:
        server.kill()


def join(slapd: Slapd, dn: str) -> None:
    """Alice is in that group from now on."""
    with ldap3.Connection(ldap3.Server(slapd.uri), ADMIN, ADMIN_PASSWORD, auto_bind=True) as connection:
        assert connection.modify(dn, {"member": [(ldap3.MODIFY_ADD, [ALICE])]})


def is_out(client: imaplib.IMAP4_SSL) -> str:
    """What the server says in the end."""
    client.sock.settimeout(30)
    return client.readline().decode()


def test_groups_that_change_and_rules_that_change_end_sessions(site: Site, tmp_path: Path) -> None:
    (slapd,) = site.servers
    directory = ldap_table(site, slapd) + 'changes = "sync"\n'
    server = WholeServer(tmp_path / "mail", users=(), extra=directory + RULES)
    server.passwd_path.touch()

    def log_in(name: str, password: str) -> imaplib.IMAP4_SSL:
        client = imaplib.IMAP4_SSL("localhost", server.ports["imaps"], ssl_context=server.client_context())
        client.login(name, password)
        return client

    with server:
        server.wait_for_event("changes are followed")
        alice, bob = log_in("alice", "sesame"), log_in("bob", "mellon")
        with smtplib.SMTP("localhost", server.ports["submission"]) as sender:
            sender.starttls(context=server.client_context())
            sender.login("alice", "sesame")
            join(slapd, GUESTS)
            assert is_out(alice).startswith("* BYE The account may not log in here any more")
            # The rule is about IMAP.
            assert sender.noop()[0] == 250
        with pytest.raises(imaplib.IMAP4.error):
            log_in("alice", "sesame")
        # Without the rule she may again, until more than the password is demanded of another group of hers.
        server.write_config(extra=directory)
        server.reload()
        alice = log_in("alice", "sesame")
        join(slapd, STRICT)
        assert alice.noop()[0] == "OK"
        demand = '[auth]\nsecond_factor_groups = ["strict"]'
        server.config_path.write_text(server.config_path.read_text().replace("[auth]", demand))
        server.reload()
        assert is_out(alice).startswith("* BYE More than the password is demanded")
        assert bob.noop()[0] == "OK"
        bob.logout()
    server.check_log()
