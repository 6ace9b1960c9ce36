"""Mail goes to hosts that the DNS and published policies name, and to nobody else: DANE and MTA-STS in one piece.

Knot has the zones, Unbound validates, a web server at port 443 publishes policies, and a second whole server takes the
mail of both domains: ``signed.test`` has a TLSA record, ``plain.test`` an MTA-STS policy.
"""

from __future__ import annotations

import http.server
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import define
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.interop.dns_server import DnsServers
from tests.ports import process_number
from tests.scenarios.server import ALICE, WholeServer
from tests.tls.authority import Issued, issue_for_host
from tests.tls.issued import CA, tlsa

pytestmark = pytest.mark.slow

WEB_ADDRESS = f"127.0.83.{1 + process_number()}"
"""Port 443 of an address that nobody else uses (RFC 8461 3.3 knows no other port)."""
BY_DANE, BY_STS = "bob@signed.test", "bob@plain.test"
POLICY = "version: STSv1\r\nmode: enforce\r\nmx: {mx}\r\nmax_age: 86400\r\n"


def write(issued: Issued, certificate: Path, key: Path) -> None:
    """A certificate with its issuer behind it."""
    certificate.write_bytes(b"".join(one.certificate.public_bytes(Encoding.PEM) for one in (issued, CA)))
    key.write_bytes(issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


class _PolicyHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        publisher: PolicyHost = self.server.publisher  # type: ignore[attr-defined]
        publisher.asked.append((self.headers["Host"], self.path))
        body = publisher.policy.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not on the terminal."""


class PolicyHost:
    """``mta-sts.plain.test``; ``asked`` has host and path of each request."""

    def __init__(self, folder: Path) -> None:
        self.policy = POLICY.format(mx="mx.plain.test")
        self.asked: list[tuple[str, str]] = []
        certificate, key = folder / "web.pem", folder / "web-key.pem"
        write(issue_for_host("mta-sts.plain.test", CA), certificate, key)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)

    @contextmanager
    def serving(self) -> Iterator[None]:
        server = http.server.ThreadingHTTPServer((WEB_ADDRESS, 443), _PolicyHandler)
        server.publisher = self  # type: ignore[attr-defined]
        server.socket = self._context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@define(eq=False)
class Net:
    ours: WholeServer
    hop: WholeServer
    web: PolicyHost

    def send(self, recipient: str, name: str) -> None:
        self.ours.submit(ALICE, recipient, f"From: {ALICE}\r\nSubject: {name}\r\n\r\nHello\r\n".encode())

    def fate(self, name: str, status: str) -> str:
        """What the log says of an attempt."""
        (event,) = self.ours.wait_for_event(f"status={status}", 30)
        return str(event["text"])

    def has_arrived(self, recipient: str, name: str) -> bool:
        local_part, _, domain = recipient.partition("@")
        files = (self.hop.mail_folder / domain / local_part).rglob("*")
        return any(f"Subject: {name}\r\n".encode() in each.read_bytes() for each in files if each.is_file())


@define
class Around:
    """What all tests share: the names, and the host that takes the mail."""

    folder: Path
    hop: WholeServer
    certificate: Issued
    resolver_port: int


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Around]:
    folder = tmp_path_factory.mktemp("v")
    certificate = issue_for_host("mx.plain.test", CA)
    hop = WholeServer(
        folder / "hop",
        sections={"smtp": "greeting_delay_seconds = 0.0"},
        extra='[[domain]]\nname = "signed.test"\n[[domain]]\nname = "plain.test"\n',
    )
    with hop.passwd_path.open("a") as file:
        file.writelines(f"{address}:{{PLAIN}}{hop.password}::::::\n" for address in (BY_DANE, BY_STS))
    (folder / "ca.pem").write_bytes(CA.certificate.public_bytes(Encoding.PEM))
    record = tlsa(3, certificate.certificate)
    text = f"{record.usage} {record.selector} {record.matching_type} {record.data.hex()}"
    more = {
        "signed.test": f"_{hop.ports['mx']}._tcp.mx 300 IN TLSA {text}\n",
        "plain.test": f'_mta-sts 1 IN TXT "v=STSv1; id=1;"\nmta-sts 300 IN A {WEB_ADDRESS}\n',
    }
    (folder / "dns").mkdir()
    with DnsServers(folder / "dns", text, more) as names:
        try:
            hop.start()
            yield Around(folder, hop, certificate, names.resolver_port)
            hop.stop()
        finally:
            hop.kill()


@pytest.fixture
def net(around: Around, tmp_path: Path) -> Iterator[Net]:
    hop = around.hop
    write(around.certificate, hop.certificate, hop.key)
    hop.reload()
    ours = WholeServer(
        tmp_path / "ours",
        sections={
            "dns": f'servers = ["127.0.0.1:{around.resolver_port}"]\n'
            'self_test_signed = "signed.test"\nself_test_broken = "bogus.test"',
            "relay": f"port = {hop.ports['mx']}",
            "tls_client": f'ca_file = "{around.folder}/ca.pem"',
        },
    )
    try:
        ours.start()
        yield Net(ours, hop, PolicyHost(around.folder))
        ours.stop()
        ours.check_log()
    finally:
        ours.kill()


def explained(net: Net, domain: str) -> dict[str, object]:
    """What ``mailsrvctl tls-policy`` says."""
    command = [str(Path(sys.executable).with_name("mailsrvctl")), "--config", str(net.ours.config_path)]
    done = subprocess.run([*command, "tls-policy", domain, "--json"], capture_output=True, check=True, timeout=60)
    table: dict[str, object] = json.loads(done.stdout)
    return table


def test_dane_lets_mail_to_the_host_of_the_record_alone(net: Net) -> None:
    net.send(BY_DANE, "proved")
    assert "sent" in net.fate("proved", "sent")
    assert net.has_arrived(BY_DANE, "proved")
    # Another host has taken its place, with a good certificate for its name but another key.
    write(issue_for_host("mx.signed.test", CA), net.hop.certificate, net.hop.key)
    net.hop.reload()
    net.ours.restart()
    net.send(BY_DANE, "not proved")
    assert "TLSA" in net.fate("not proved", "deferred")
    assert not net.has_arrived(BY_DANE, "not proved")


def test_mta_sts_lets_mail_to_the_hosts_of_the_policy_alone(net: Net) -> None:
    with net.web.serving():
        net.send(BY_STS, "allowed")
        net.fate("allowed", "sent")
        assert net.has_arrived(BY_STS, "allowed")
        assert net.web.asked == [("mta-sts.plain.test", "/.well-known/mta-sts.txt")]
    # The policy is kept, over a restart and while nobody publishes it.
    write(issue_for_host("other.plain.test", CA), net.hop.certificate, net.hop.key)
    net.hop.reload()
    net.ours.restart()
    net.send(BY_STS, "another certificate")
    assert "certificate" in net.fate("another certificate", "deferred")
    assert not net.has_arrived(BY_STS, "another certificate")


def test_mta_sts_keeps_mail_from_a_host_that_the_policy_does_not_name(net: Net) -> None:
    net.web.policy = POLICY.format(mx="*.elsewhere.test")
    with net.web.serving():
        net.send(BY_STS, "kept")
        assert "MTA-STS" in net.fate("kept", "deferred")
        assert not net.has_arrived(BY_STS, "kept")
        assert "elsewhere.test" in json.dumps(explained(net, "plain.test"))
