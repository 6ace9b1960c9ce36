"""Mailboxes of others by the rights in a real OpenLDAP server: given by a group, taken away while somebody reads."""

from __future__ import annotations

import imaplib
from collections.abc import Iterator
from pathlib import Path

import ldap3
import pytest

from tests.interop.peers import imapflow
from tests.interop.slapd import ADMIN, ADMIN_PASSWORD, person
from tests.interop.test_ldap_directory import GROUPS, PEOPLE, Site, ldap_table, make_site
from tests.scenarios.server import PASSWORD, WholeServer

SHARED = "Other Users/support@example.test"
SUPPORT_DN = f"uid=support,{PEOPLE}"
HELPERS = f"cn=helpers,{GROUPS}"
ENTRIES = (
    *(person(uid, PASSWORD) for uid in ("alice", "bob", "carol")),
    # Nobody logs in as the team itself.
    person("support", extra=f"seeAlso: {HELPERS}\nmaySendAs: uid=bob,{PEOPLE}\nemployeeType: team\n"),
    f"dn: {HELPERS}\nobjectClass: groupOfNames\ncn: helpers\nmember: uid=alice,{PEOPLE}\nmember: uid=bob,{PEOPLE}\n",
)
ATTRIBUTES = '{ shared_read = ["seeAlso"], shared_write = ["maySendAs"], disabled = ["employeeType=team"] }'


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = make_site(tmp_path, entries=ENTRIES)
    yield made
    made.servers[0].kill()


@pytest.fixture
def server(site: Site, tmp_path: Path) -> Iterator[WholeServer]:
    extra = ldap_table(site, *site.servers, attributes=ATTRIBUTES).replace("attempt_seconds = 0.5", "")
    one = WholeServer(tmp_path / "mail", users=(), extra=extra, sections={"sharing": "check_seconds = 1"})
    one.passwd_path.touch()
    with one:
        yield one


def log_in(server: WholeServer, user: str) -> imaplib.IMAP4:
    client = imaplib.IMAP4("127.0.0.1", server.ports["imap"], timeout=20)
    client.login(user, PASSWORD)
    return client


def change(site: Site, dn: str, **changes: tuple[str, list[str]]) -> None:
    connection = ldap3.Connection(ldap3.Server(site.servers[0].uri), ADMIN, ADMIN_PASSWORD, auto_bind=True)
    assert connection.modify(dn, {name: [change] for name, change in changes.items()}), connection.result


@pytest.mark.slow
def test_rights_of_users_and_groups_come_and_go(site: Site, server: WholeServer) -> None:
    quoted = f'"{SHARED}"'
    server.deliver("support@example.test", b"From: <a@example.org>\r\nSubject: help\r\n\r\nPlease\r\n")
    alice, bob, carol = (log_in(server, user) for user in ("alice", "bob", "carol"))
    assert carol.namespace()[1][0] == b'(("" "/")) NIL NIL'
    assert carol.select(quoted)[0] == "NO"
    with pytest.raises(imaplib.IMAP4.readonly):
        alice.select(quoted)
    assert alice.select(quoted, readonly=True) == ("OK", [b"1"])
    assert alice.store("1", "+FLAGS", "(\\Seen)")[0] == "NO"
    assert bob.select(quoted) == ("OK", [b"1"])
    assert bob.store("1", "+FLAGS", "(\\Flagged)")[0] == "OK"
    # The writer becomes a reader: the session is told, and goes on.
    bob.send(b"i IDLE\r\n")
    assert bob.readline().startswith(b"+")
    change(site, SUPPORT_DN, maySendAs=(ldap3.MODIFY_REPLACE, []))
    assert bob.readline() == b"* OK [READ-ONLY] The right to the mailbox has changed\r\n"
    # Who is not in the group any more is out, though nobody told of a change.
    alice.send(b"i IDLE\r\n")
    while not alice.readline().startswith(b"+"):
        pass
    change(site, HELPERS, member=(ldap3.MODIFY_DELETE, [f"uid=alice,{PEOPLE}"]))
    while (line := alice.readline()).startswith(b"* 1 FETCH"):
        pass
    assert line == b"* BYE The selected mailbox is there no more\r\n"
    # In an outage nothing changes for who is there.
    site.servers[0].kill()
    bob.readline()
    bob.send(b"DONE\r\n")
    while not (line := bob.readline()).startswith(b"i "):
        pass
    assert bob.fetch("1", "(BODY.PEEK[TEXT])")[0] == "OK"
    assert server.wait_for_event("cannot be asked", 30)
    assert bob.fetch("1", "(BODY.PEEK[TEXT])")[0] == "OK"


@pytest.mark.slow
def test_imapflow_reads_and_writes_them(server: WholeServer) -> None:
    server.deliver("support@example.test", b"From: <a@example.org>\r\nSubject: help\r\n\r\nPlease\r\n")

    def look(user: str, destination: str) -> dict[str, object]:
        auth = {"user": user, "pass": PASSWORD}
        return imapflow.look(server.ports["imaps"], server.certificate, auth, SHARED, destination)

    reading = look("alice", "INBOX")
    assert reading["readOnly"] is True
    assert reading["subjects"] == ["help"]
    assert reading["seen"] is False
    assert reading["copied"] == [1]
    assert f"{SHARED}/Sent" in reading["listed"]  # type: ignore[operator]
    assert look("alice", f"{SHARED}/Trash")["copied"] is None
    writing = look("bob", f"{SHARED}/Trash")
    assert writing["readOnly"] is not True
    assert writing["seen"] is True
    assert writing["copied"] == [1]
    assert "error" in look("carol", "INBOX")
