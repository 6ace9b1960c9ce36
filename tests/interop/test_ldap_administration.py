"""Access rules by group, administrators by group, and the state of the directory, over a real OpenLDAP."""

from __future__ import annotations

import imaplib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailsrv.tls.self_signed import write_self_signed
from tests.interop.slapd import BASE, SERVICE, SERVICE_PASSWORD, Slapd, person
from tests.scenarios.server import WholeServer

ENTRIES = (
    person("alice", "sesame"),
    person("boss", "chief"),
    person("kiosk", "screen"),
    f"dn: cn=admins,ou=groups,{BASE}\nobjectClass: groupOfNames\ncn: admins\nmember: cn=inner,ou=groups,{BASE}\n",
    f"dn: cn=inner,ou=groups,{BASE}\nobjectClass: groupOfNames\ncn: inner\nmember: uid=boss,ou=people,{BASE}\n",
    f"dn: cn=kiosks,ou=groups,{BASE}\nobjectClass: groupOfNames\ncn: kiosks\nmember: uid=kiosk,ou=people,{BASE}\n",
)
RULES = """
[auth.impersonation]
enabled = true
[[access]]
action = "deny"
groups = ["kiosks"]
services = ["imap"]
"""
pytestmark = pytest.mark.slow


@pytest.fixture
def slapd(tmp_path: Path) -> Iterator[Slapd]:
    write_self_signed("localhost", str(tmp_path / "ldap.pem"), str(tmp_path / "ldap.key"))
    (tmp_path / "secret").write_text(SERVICE_PASSWORD + "\n")
    with Slapd(tmp_path / "ldap", tmp_path / "ldap.pem", tmp_path / "ldap.key", ENTRIES) as one:
        yield one


@pytest.fixture
def server(tmp_path: Path, slapd: Slapd) -> Iterator[WholeServer]:
    directory = (
        f'[[directory]]\ntype = "ldap"\nuri = ["{slapd.uri}"]\nbase = "{BASE}"\nca_file = "{slapd.certificate}"\n'
        f'bind_dn = "{SERVICE}"\nbind_password_file = "{tmp_path / "secret"}"\nattempt_seconds = 1.0\n'
        'administrator_groups = ["admins"]\n'
    )
    server = WholeServer(
        tmp_path / "mail", users=("local",), extra=directory + RULES, sections={"server": "status_seconds = 0.2"}
    )
    with server:
        yield server


def control(server: WholeServer, *arguments: str) -> tuple[int, Any]:
    command = [str(Path(sys.executable).with_name("mailsrvctl")), "--config", str(server.config_path), *arguments]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def log_in(server: WholeServer, name: str, password: str) -> str:
    client = imaplib.IMAP4_SSL("localhost", server.ports["imaps"], ssl_context=server.client_context(), timeout=30)
    try:
        client.authenticate("PLAIN", lambda _: f"\0{name}\0{password}".encode())
    except imaplib.IMAP4.error as error:
        return str(error)
    finally:
        client.shutdown()
    return "OK"


def wait_for_status(server: WholeServer, status: int) -> Any:
    deadline = time.monotonic() + 40
    while True:
        found, told = control(server, "status")
        if found == status:
            return told
        assert time.monotonic() < deadline, told
        time.sleep(0.1)


def test_groups_of_the_directory_decide_and_its_state_is_told(
    server: WholeServer, slapd: Slapd, tmp_path: Path
) -> None:
    assert log_in(server, "alice", "sesame") == "OK"
    assert "Authentication failed" in log_in(server, "kiosk", "screen")
    assert server.wait_for_event("kiosk@example.test from 127.0.0.1 failed: access rule 1 denies it")
    assert log_in(server, "alice*boss", "chief") == "OK"
    assert server.wait_for_event("boss@example.test logs in as alice@example.test")
    assert "Authentication failed" in log_in(server, "boss*alice", "sesame")
    (tmp_path / "chief").write_text("chief\n")
    status, steps = control(server, "auth", "test", "alice*boss", "--password-file", str(tmp_path / "chief"))
    assert (status, steps[-1]["result"]) == (0, "logged in as alice@example.test (by boss@example.test)")

    told = wait_for_status(server, 0)
    [ldap] = [each for each in told["directories"] if each["servers"]]
    assert (ldap["is_out"], ldap["servers"][0]["uri"], ldap["servers"][0]["is_up"]) == (False, slapd.uri, True)
    assert ldap["answers"] >= 2
    slapd.kill()
    assert "UNAVAILABLE" in log_in(server, "nobody", "knows")
    told = wait_for_status(server, 1)
    [ldap] = [each for each in told["directories"] if each["servers"]]
    assert (ldap["is_out"], ldap["servers"][0]["is_up"]) == (True, False)
    assert any("cannot be asked" in concern for concern in told["concerns"])
    slapd.start()
    wait_for_status(server, 0)
    assert log_in(server, "boss", "chief") == "OK"
