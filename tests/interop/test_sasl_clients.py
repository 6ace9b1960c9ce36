"""Clients that log in without sending their password, by SMTP, IMAP and POP3: SCRAM, also bound to the channel."""

from __future__ import annotations

import base64
import hashlib
import imaplib
import poplib
import smtplib
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from scramp import ScramClient

from tests.interop.running import ALICE, BOB, MailServer, run

MAILSRVCTL = (Path(sys.executable).with_name("mailsrvctl"),)
pytestmark = pytest.mark.interop


class KeyedServer(MailServer):
    """Its users' passwords are set by the command, so that there are keys for SCRAM."""

    def new_user(self, name: str) -> str:
        address = super().new_user(name)
        self.write_config()
        done = subprocess.run(
            [*MAILSRVCTL, "--config", self.config_path, "user", "passwd", address, "--password-stdin"],
            input=f"{self.password}\n".encode(),
            check=False,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        return address


@pytest.fixture(scope="module")
def mail_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    server = KeyedServer(
        tmp_path_factory.mktemp("sasl"),
        sections={
            "smtp": "greeting_delay_seconds = 0.0",
            "passwords": 'scram = ["SCRAM-SHA-256", "SCRAM-SHA-1"]\nscram_iterations = 4096',
        },
        plaintext_networks="[]",
    )
    with server:
        yield server
    server.check_log()


class Dialogue:
    """What a client says in turn; scramp knows no order by itself."""

    def __init__(self, mechanism: str, password: str, binding: tuple[str, bytes] | None = None) -> None:
        self.client = ScramClient([mechanism], ALICE, password, channel_binding=binding)
        self._steps: Iterator[bytes] | None = None
        self.stage = 0

    def answer(self, challenge: bytes | None) -> bytes:
        self.stage += 1
        if self.stage == 1:
            return self.client.get_client_first().encode()
        if self.stage == 2:
            self.client.set_server_first((challenge or b"").decode())
            return self.client.get_client_final().encode()
        self.client.set_server_final((challenge or b"").decode())
        return b""


def end_point(certificate: bytes | None) -> tuple[str, bytes]:
    parsed = x509.load_der_x509_certificate(certificate or b"")
    assert parsed.signature_hash_algorithm is not None
    name = parsed.signature_hash_algorithm.name
    return "tls-server-end-point", hashlib.new(name, parsed.public_bytes(Encoding.DER)).digest()


def insecure() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS")


def imap_login(server: MailServer, mechanism: str, password: str) -> bool:
    client = imaplib.IMAP4_SSL("127.0.0.1", server.ports["imaps"], ssl_context=insecure())
    try:
        assert f"AUTH={mechanism}" in client.capabilities
        sock = client.socket()
        assert isinstance(sock, ssl.SSLSocket)
        binding = end_point(sock.getpeercert(True)) if mechanism.endswith("PLUS") else None
        dialogue = Dialogue(mechanism, password, binding)
        # imaplib answers the first, empty challenge with what begins.
        try:
            client.authenticate(mechanism, dialogue.answer)
        except imaplib.IMAP4.error:
            return False
        return client.select()[0] == "OK"
    finally:
        client.shutdown()


def smtp_login(server: MailServer, mechanism: str, password: str) -> bool:
    with smtplib.SMTP("127.0.0.1", server.ports["submission"]) as client:
        client.starttls(context=insecure())
        client.ehlo()
        assert mechanism in client.esmtp_features["auth"].split()
        assert isinstance(client.sock, ssl.SSLSocket)
        binding = end_point(client.sock.getpeercert(True)) if mechanism.endswith("PLUS") else None
        dialogue = Dialogue(mechanism, password, binding)
        code, text = client.docmd("AUTH", f"{mechanism} {base64.b64encode(dialogue.answer(None)).decode()}")
        while code == 334:
            code, text = client.docmd(base64.b64encode(dialogue.answer(base64.b64decode(text))).decode())
        return code == 235


def pop3_login(server: MailServer, mechanism: str, password: str) -> bool:
    client = poplib.POP3_SSL("127.0.0.1", server.ports["pop3s"], context=insecure())
    try:
        assert mechanism in client.capa()["SASL"]
        assert isinstance(client.sock, ssl.SSLSocket)
        binding = end_point(client.sock.getpeercert(True)) if mechanism.endswith("PLUS") else None
        dialogue = Dialogue(mechanism, password, binding)
        client._putcmd(f"AUTH {mechanism} {base64.b64encode(dialogue.answer(None)).decode()}")  # type: ignore[attr-defined]
        line, _ = client._getline()  # type: ignore[attr-defined]
        while line.startswith(b"+ "):
            client._putcmd(base64.b64encode(dialogue.answer(base64.b64decode(line[2:]))).decode())  # type: ignore[attr-defined]
            line, _ = client._getline()  # type: ignore[attr-defined]
        return bool(line.startswith(b"+OK"))
    finally:
        client.close()


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("log_in", [imap_login, smtp_login, pop3_login])
def test_scram_with_python_clients(
    mail_server: MailServer, log_in: Callable[[MailServer, str, str], bool], mechanism: str
) -> None:
    assert log_in(mail_server, mechanism, mail_server.password)
    assert not log_in(mail_server, mechanism, "wrong")


@pytest.mark.parametrize("mechanism", ["scram-sha-256", "scram-sha-1"])
def test_msmtp_by_scram(mail_server: MailServer, tmp_path: Path, mechanism: str) -> None:
    def send(subject: str, password: str, expect: int) -> str:
        message = tmp_path / "message"
        message.write_text(f"From: {ALICE}\nTo: {BOB}\nSubject: {subject}\n\nHello\n")
        with message.open() as text:
            return run(
                *("msmtp", "--host=127.0.0.1", f"--port={mail_server.ports['submissions']}", "--tls=on"),
                *("--tls-starttls=off", "--tls-certcheck=off", f"--auth={mechanism}", f"--user={ALICE}"),
                *(f"--passwordeval=echo {password}", f"--from={ALICE}", BOB),
                stdin=text,
                expect=expect,
            )

    send(mechanism, mail_server.password, 0)
    mail_server.wait_for_subject(BOB, mechanism)
    assert "authentication failed" in send("no", "wrong", 77)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1"])
def test_mbsync_by_scram(mail_server: MailServer, tmp_path: Path, mechanism: str) -> None:
    def settings(password: str) -> Path:
        file = tmp_path / "mbsyncrc"
        file.write_text(
            f"IMAPAccount there\nHost localhost\nPort {mail_server.ports['imaps']}\nUser {BOB}\n"
            f'Pass "{password}"\nSSLType IMAPS\nCertificateFile {mail_server.certificate}\nAuthMechs {mechanism}\n\n'
            "IMAPStore remote\nAccount there\n\n"
            f"MaildirStore local\nPath {tmp_path}/mail/\nInbox {tmp_path}/mail/INBOX\n\n"
            "Channel all\nFar :remote:\nNear :local:\nCreate Near\nSyncState *\n"
        )
        return file

    (tmp_path / "mail").mkdir()
    mail_server.deliver(BOB, f"From: <{ALICE}>\r\nSubject: synced\r\n\r\nHello\r\n".encode())
    run("mbsync", "-c", settings(mail_server.password), "all")
    assert any(b"Subject: synced" in path.read_bytes() for path in tmp_path.glob("mail/INBOX/*/*"))
    assert "NO" in run("mbsync", "-c", settings("wrong"), "all", expect=1)
