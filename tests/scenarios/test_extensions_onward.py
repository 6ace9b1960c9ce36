"""What a client asks for beyond plain mail, through the whole server and on to the next: DSN, DELIVERBY, REQUIRETLS,
FUTURERELEASE, long lines.

Our server hands mail on to two others: ``peer.test`` knows all extensions and has a certificate for its address,
``plain.test`` has neither. Alice has a mailbox at each of them, so each one's notices stay with it.
"""

from __future__ import annotations

import email
import re
import smtplib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from attrs import frozen
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mailsrv.mailauth.key_store import KeyState, KeyStore
from mailsrv.mailauth.keys import Algorithm
from tests.scenarios.server import ALICE, BOB, WholeServer
from tests.tls.authority import issue_for_host
from tests.tls.issued import CA

pytestmark = pytest.mark.slow

PEER, PLAIN = "bob@peer.test", "bob@plain.test"
LONG_LINE = b"word " * 300 + b"end"


@frozen
class Net:
    ours: WholeServer
    peer: WholeServer
    plain: WholeServer

    def submit(self, name: str, recipient: str, *mail_options: str, notify: str = "", body: bytes = b"Hello") -> None:
        """As Alice, with ENVID and subject ``name``."""
        message = b"From: %b\r\nTo: %b\r\nSubject: %b\r\n\r\n%b\r\n" % (
            ALICE.encode(), recipient.encode(), name.encode(), body
        )  # fmt: skip
        with self.client() as client:
            options = [f"NOTIFY={notify}", f"ORCPT=rfc822;{recipient}"] if notify else []
            assert client.sendmail(ALICE, [recipient], message, [f"ENVID={name}", *mail_options], options) == {}

    def client(self) -> smtplib.SMTP:
        """Alice is logged in, over TLS."""
        client = smtplib.SMTP("localhost", self.ours.ports["submission"], timeout=30)
        client.starttls(context=self.ours.client_context())
        client.login(ALICE, self.ours.password)
        client.ehlo_or_helo_if_needed()
        return client

    def notices(self, name: str, server: WholeServer | None = None) -> list[bytes]:
        """Those of a server about a message."""
        wanted = f"\r\nOriginal-Envelope-Id: {name}\r\n".encode()
        return [one for one in (server or self.ours).messages(ALICE) if wanted in one]

    def notice(self, name: str, server: WholeServer | None = None) -> bytes:
        """The one there has to be."""
        (found,) = wait_until(lambda: self.notices(name, server))
        return found

    def arrived(self, name: str, server: WholeServer, recipient: str) -> bytes:
        wanted = f"\r\nSubject: {name}\r\n".encode()
        (found,) = wait_until(lambda: [one for one in server.messages(recipient) if wanted in one])
        return found


def wait_until(look: Callable[[], list[bytes]]) -> list[bytes]:
    deadline = time.monotonic() + 30
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def action(notice: bytes) -> str:
    match = re.search(rb"\r\nAction: (\w+)\r\nStatus: ([\d.]+)\r\n", notice)
    assert match is not None, notice
    return b" ".join(match.groups()).decode()


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    folder = tmp_path_factory.mktemp("n")
    smtp = "greeting_delay_seconds = 0.0"
    peer = WholeServer(folder / "b", sections={"smtp": smtp}, extra=domain("peer.test"))
    off = '["DSN", "DELIVERBY", "REQUIRETLS", "BINARYMIME"]'
    plain = WholeServer(folder / "c", sections={"smtp": f"{smtp}\nextensions_off = {off}"}, extra=domain("plain.test"))
    for server, address in ((peer, PEER), (plain, PLAIN)):
        with server.passwd_path.open("a") as file:
            file.write(f"{address}:{{PLAIN}}{server.password}::::::\n")
    write_certificate(peer)
    ca_path = folder / "ca.pem"
    ca_path.write_bytes(CA.certificate.public_bytes(Encoding.PEM))
    started: list[WholeServer] = []
    try:
        for server in (peer, plain):
            started.append(server)
            server.start()
        ours = WholeServer(
            folder / "a",
            sections={"smtp": smtp, "tls_client": f'ca_file = "{ca_path}"'},
            extra=f'[[route]]\nto = "peer.test"\nvia = "smtp:127.0.0.1:{peer.ports["mx"]}"\ntls = "verify"\n'
            f'[[route]]\nto = "plain.test"\nvia = "smtp:127.0.0.1:{plain.ports["mx"]}"\n',
        )
        keys = KeyStore(str(ours.state_dir / "dkim"))
        keys.new("example.test", "s1", Algorithm.ED25519, bits=0, state=KeyState.ACTIVE, seconds=0)
        started.append(ours)
        ours.start()
        yield Net(ours, peer, plain)
        for server in started:
            server.stop()
            server.check_log()
    finally:
        for server in started:
            server.kill()


def domain(name: str) -> str:
    return f'[[domain]]\nname = "{name}"\n'


def write_certificate(server: WholeServer) -> None:
    """One for 127.0.0.1, of a CA; behind it the CA, for the clients of the test."""
    issued = issue_for_host("localhost", CA, addresses=("127.0.0.1",))
    server.certificate.write_bytes(
        issued.certificate.public_bytes(Encoding.PEM) + CA.certificate.public_bytes(Encoding.PEM)
    )
    server.key.write_bytes(issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


# -- DSN (RFC 3461)


def test_success_in_a_mailbox_here_is_told_and_the_notice_is_signed(net: Net) -> None:
    net.submit("local", BOB, notify="SUCCESS")
    notice = net.notice("local")
    assert action(notice) == "delivered 2.0.0"
    assert b"\r\nDKIM-Signature: " in notice.partition(b"\r\nFrom:")[0]
    assert b"Hello" not in notice.partition(b"Subject: local")[2]


def test_success_at_a_host_without_dsn_is_relayed(net: Net) -> None:
    net.submit("plain", PLAIN, notify="SUCCESS,FAILURE")
    notice = net.notice("plain")
    assert action(notice) == "relayed 2.0.0"
    assert f"Original-Recipient: rfc822; {PLAIN}\r\n".encode() in notice
    net.arrived("plain", net.plain, PLAIN)


def test_success_at_a_host_with_dsn_is_its_to_tell(net: Net) -> None:
    net.submit("peer", PEER, notify="SUCCESS")
    notice = net.notice("peer", net.peer)
    assert action(notice) == "delivered 2.0.0"
    assert f"Original-Recipient: rfc822; {PEER}\r\n".encode() in notice
    assert net.notices("peer") == []


def test_a_failure_is_told_unless_nobody_wants_to_hear_of_it(net: Net) -> None:
    net.submit("never", "nobody@plain.test", notify="NEVER")
    net.submit("failure", "nobody@plain.test", notify="FAILURE")
    notice = net.notice("failure")
    assert action(notice).startswith("failed 5.1.1")
    assert b"\r\nDKIM-Signature: " in notice.partition(b"\r\nFrom:")[0]
    assert net.notices("never") == []


# -- DELIVERBY (RFC 2852)


def test_deliver_by_in_mode_r_goes_only_where_it_is_kept(net: Net) -> None:
    net.submit("by-r", PLAIN, "BY=600;R")
    notice = net.notice("by-r")
    assert action(notice) == "failed 5.4.7"
    assert b"\r\nDeliver-By-Date: " in notice
    net.submit("by-r-peer", PEER, "BY=600;R")
    net.arrived("by-r-peer", net.peer, PEER)
    assert net.notices("by-r-peer") == []


@pytest.mark.parametrize(("recipient", "mode"), [(PLAIN, "N"), (PEER, "NT"), (PEER, "RT")])
def test_deliver_by_left_behind_or_traced_is_relayed(net: Net, recipient: str, mode: str) -> None:
    name = f"by-{mode}-{recipient[4:9]}"
    net.submit(name, recipient, f"BY=600;{mode}")
    notice = net.notice(name)
    assert action(notice) == "relayed 2.0.0"
    assert b"\r\nDeliver-By-Date: " in notice


@pytest.mark.parametrize(
    ("parameter", "code"),
    [("BY=0;R", 501), ("BY=-5;R", 501), ("BY=30;R", 555), ("BY=0;N", 250), ("BY=-5;N", 250), ("BY=60;X", 501)],
)
def test_times_to_deliver_by(net: Net, parameter: str, code: int) -> None:
    with net.client() as client:
        assert client.mail(ALICE, [parameter])[0] == code


# -- REQUIRETLS (RFC 8689)


def test_requiretls_goes_where_it_is_kept(net: Net) -> None:
    net.submit("secret", PEER, "REQUIRETLS")
    net.arrived("secret", net.peer, PEER)


def test_requiretls_comes_back_where_it_is_not(net: Net) -> None:
    net.submit("too-secret", PLAIN, "REQUIRETLS", "RET=FULL", body=b"The secret")
    notice = net.notice("too-secret")
    assert action(notice) == "failed 5.7.30"
    assert b"The secret" not in notice


# -- FUTURERELEASE (RFC 4865)


def test_mail_is_held_until_its_time(net: Net) -> None:
    begun = time.monotonic()
    net.submit("held", PEER, "HOLDFOR=2")
    until = (datetime.now(UTC) + timedelta(seconds=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    net.submit("held-here", BOB, f"HOLDUNTIL={until}")
    net.arrived("held", net.peer, PEER)
    assert time.monotonic() - begun >= 1.5
    net.arrived("held-here", net.ours, BOB)


@pytest.mark.parametrize("parameter", ["HOLDFOR=99999999", "HOLDUNTIL=2999-01-01T00:00:00Z", "HOLDFOR=-1", "HOLDFOR=x"])
def test_a_hold_that_cannot_be_is_501(net: Net, parameter: str) -> None:
    with net.client() as client:
        assert client.has_extn("futurerelease")
        assert client.mail(ALICE, [parameter])[0] == 501


# -- long lines (RFC 5321 4.5.3.1.6)


def test_r_smtp_9_long_lines_are_encoded_and_signed_anew_or_go_as_binary_content(net: Net) -> None:
    net.submit("long", PLAIN, body=LONG_LINE)
    net.submit("long-peer", PEER, body=LONG_LINE)
    encoded = net.arrived("long", net.plain, PLAIN)
    assert max(map(len, encoded.split(b"\r\n"))) <= 998
    assert email.message_from_bytes(encoded).get_payload(decode=True) == LONG_LINE + b"\r\n"
    assert encoded.count(b"\r\nDKIM-Signature: ") == 2
    kept = net.arrived("long-peer", net.peer, PEER)
    assert kept.endswith(b"\r\n\r\n" + LONG_LINE + b"\r\n")
    assert kept.count(b"\r\nDKIM-Signature: ") == 1
