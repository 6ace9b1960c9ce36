"""``make run-ldap``: the demonstration does what it says, and what changes in its directory holds at once."""

from __future__ import annotations

import imaplib
import re
import signal
import smtplib
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import ldap3
import pytest

from tests.ports import lasting_port
from tests.scenarios.server import ROOT

START_SECONDS = 90
BIN = Path(sys.executable).parent
TOOL = ROOT / "tools" / "demo_ldap.py"


@attrs.frozen(eq=False)
class Demo:
    """What it printed, and where it is."""

    text: str
    config: Path
    process: subprocess.Popen[str]

    @property
    def password(self) -> str:
        found = re.search(r"password: (\w+)", self.text)
        assert found is not None
        return found[1]

    def port(self, service: str) -> int:
        found = re.search(rf"{service} +127\.0\.0\.1:(\d+)", self.text)
        assert found is not None
        return int(found[1])

    def directory(self) -> ldap3.Connection:
        """As the demonstration says it is to be changed."""
        found = re.search(r"ldapi://\S+", self.text)
        assert found is not None
        server = ldap3.Server(found[0], get_info=ldap3.NONE)
        return ldap3.Connection(
            server, authentication=ldap3.SASL, sasl_mechanism=ldap3.EXTERNAL, sasl_credentials="", auto_bind=True
        )

    def imap(self, user: str) -> imaplib.IMAP4_SSL:
        context = ssl._create_unverified_context()
        client = imaplib.IMAP4_SSL("127.0.0.1", self.port("IMAP"), ssl_context=context, timeout=30)
        client.login(user, self.password)
        return client


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    (folder / "etc").mkdir()
    config = folder / "etc" / "demo-ldap.toml"
    text = (ROOT / "etc" / "demo-ldap.toml").read_text()
    text = re.sub(r"tcp:\d+:", lambda _: f"tcp:{lasting_port()}:", text)
    config.write_text(text.replace("localhost:2389", f"localhost:{lasting_port()}"))
    with (folder / "out").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", TOOL, BIN, config], cwd=ROOT, stdout=out, stderr=out, text=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while "mailsrv is ready" not in (printed := (folder / "out").read_text()):
            assert process.poll() is None, printed
            assert time.monotonic() < deadline, printed
            time.sleep(0.1)
        while "changes are followed" not in (folder / "out").read_text():
            assert time.monotonic() < deadline, printed
            time.sleep(0.1)
        yield Demo(printed, config, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.mark.slow
def test_the_lines_it_prints_work(demo: Demo) -> None:
    lines = demo.text[demo.text.index("    printf") : demo.text.index("See what")]
    begin, _, end = lines.partition("    curl -sSk 'imaps")
    subprocess.run(["bash", "-ec", begin], check=True, timeout=60)
    deadline = time.monotonic() + 20
    while True:
        read = subprocess.run(
            ["bash", "-c", "curl -sSk 'imaps" + end], check=False, timeout=60, capture_output=True, text=True
        )
        if "Hello, all!" in read.stdout:
            break
        assert time.monotonic() < deadline, read
        time.sleep(0.2)
    told = subprocess.run(
        [BIN / "mailsrvctl", "--config", demo.config, "ldap", "check", "staff@example.test"],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    ).stdout
    assert "alice@example.test, bob@example.test" in told


@pytest.mark.slow
def test_a_domain_of_the_directory_alone_is_served(demo: Demo) -> None:
    told = subprocess.run(
        [BIN / "mailsrvctl", "--config", demo.config, "ldap", "check", "bob@club.example.test"],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    ).stdout
    assert "delivered here (associatedDomain of dc=club,ou=domains,dc=example,dc=test)" in told
    with smtplib.SMTP("127.0.0.1", demo.port("SMTP"), timeout=30) as client:
        client.ehlo("elsewhere.test")
        client.mail("x@elsewhere.test")
        assert client.rcpt("bob@club.example.test")[0] == 250
        assert client.rcpt("bob@other.example.test")[0] == 550


@pytest.mark.slow
def test_a_changed_password_ends_open_sessions_at_once(demo: Demo) -> None:
    bob = demo.imap("bob")
    alice = demo.imap("alice.example@example.test")
    connection = demo.directory()
    began = time.monotonic()
    assert connection.extend.standard.modify_password("uid=bob,ou=people,dc=example,dc=test", new_password="another")
    assert bob.readline() == b"* BYE The password has changed, log in again\r\n"
    # Told by the server: long before the next round over all sessions.
    assert time.monotonic() - began < 10
    assert alice.noop()[0] == "OK"
    with pytest.raises(imaplib.IMAP4.error):
        demo.imap("bob")
    assert connection.extend.standard.modify_password(
        "uid=bob,ou=people,dc=example,dc=test", new_password=demo.password
    )


@pytest.mark.slow
def test_a_new_user_can_log_in_at_once(demo: Demo) -> None:
    connection = demo.directory()
    dn = "uid=dave,ou=people,dc=example,dc=test"
    attributes = {"cn": "Dave", "sn": "D", "uid": "dave", "mail": "dave@example.test", "userPassword": demo.password}
    with pytest.raises(imaplib.IMAP4.error):
        demo.imap("dave")
    assert connection.add(dn, ["inetOrgPerson", "mailsrvUser"], attributes)
    deadline = time.monotonic() + 15
    while True:
        try:
            dave = demo.imap("dave")
        except imaplib.IMAP4.error:
            assert time.monotonic() < deadline
        else:
            break
    assert connection.delete(dn)
    assert dave.readline() == b"* BYE The account is gone\r\n"


def test_without_slapd_it_prints_the_one_command_that_installs_it(tmp_path: Path) -> None:
    code = f"import shutil, sys; shutil.which = lambda *_, **__: None; sys.argv = ['x', {str(BIN)!r}]; " + (
        f"import runpy; runpy.run_path({str(TOOL)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "sudo apt-get install --no-install-recommends slapd" in done.stderr
