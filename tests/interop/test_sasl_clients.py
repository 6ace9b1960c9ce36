"""Clients that log in without sending their password, by SMTP, IMAP and POP3: SCRAM, also bound to the channel."""

from __future__ import annotations

import base64
import hashlib
import imaplib
import json
import poplib
import smtplib
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.jwk import ECKey
from scramp import ScramClient

from tests.interop.peers import mutt, nodemailer
from tests.interop.running import ALICE, BOB, MailServer, run

MAILSRVCTL = (Path(sys.executable).with_name("mailsrvctl"),)
ISSUER = "https://login.example.test"
SIGNING_KEY = ECKey.generate_key("P-256", {"kid": "one"})


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
        extra=(
            f'[[oauth]]\nissuer = "{ISSUER}"\naudience = ["mail"]\nscope = "mail"\njwks_file = "keys.json"\n'
            'algorithms = ["ES256"]\n'
        ),
    )
    (server.folder / "keys.json").write_text(json.dumps({"keys": [SIGNING_KEY.as_dict(private=False)]}))
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
            return str(self.client.get_client_first()).encode()
        if self.stage == 2:
            self.client.set_server_first((challenge or b"").decode())
            return str(self.client.get_client_final()).encode()
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


def test_mutt_by_scram(mail_server: MailServer, tmp_path: Path) -> None:
    mail_server.deliver(BOB, f"From: <{ALICE}>\r\nSubject: for mutt by scram\r\n\r\nHello\r\n".encode())
    settings = f'set imap_authenticators="scram-sha-256"\nset imap_pass="{mail_server.password}"\n'
    assert "for mutt by scram" in mutt.saves(mail_server, tmp_path, settings)


def token(address: str = ALICE, audience: str = "mail") -> str:
    """As the provider of the users' identities would give one to the client."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": audience, "exp": now + 300, "iat": now, "scope": "mail", "email": address}
    return jwt.encode({"alg": "ES256", "kid": "one"}, claims, SIGNING_KEY)


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
@pytest.mark.parametrize("service", ["imaps", "pop3s"])
def test_curl_reads_with_a_token(mail_server: MailServer, service: str, mechanism: str) -> None:
    def read(bearer: str, expect: int = 0) -> str:
        return run(
            *("curl", "-sS", "--insecure", "--user", f"{ALICE}:", "--oauth2-bearer", bearer),
            *("--login-options", f"AUTH={mechanism}", f"{service}://127.0.0.1:{mail_server.ports[service]}/"),
            expect=expect,
        )

    assert ("INBOX" in read(token())) is (service == "imaps")
    read(token(audience="another"), expect=67)
    read(token(BOB), expect=67)


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
def test_curl_submits_with_a_token(mail_server: MailServer, tmp_path: Path, mechanism: str) -> None:
    letter = tmp_path / "letter"
    letter.write_text(f"From: {ALICE}\nTo: {BOB}\nSubject: curl {mechanism}\n\nHello\n")

    def send(bearer: str, expect: int = 0) -> None:
        run(
            *("curl", "-sS", "--insecure", "--user", f"{ALICE}:", "--oauth2-bearer", bearer),
            *("--login-options", f"AUTH={mechanism}", "--mail-from", ALICE, "--mail-rcpt", BOB),
            *("--upload-file", letter, f"smtps://127.0.0.1:{mail_server.ports['submissions']}"),
            expect=expect,
        )

    send(token())
    mail_server.wait_for_subject(BOB, f"curl {mechanism}")
    send(token(audience="another"), expect=67)


@pytest.mark.parametrize("mechanism", ["oauthbearer", "xoauth2"])
def test_msmtp_submits_with_a_token(mail_server: MailServer, tmp_path: Path, mechanism: str) -> None:
    letter = tmp_path / "letter"
    letter.write_text(f"From: {ALICE}\nTo: {BOB}\nSubject: msmtp {mechanism}\n\nHello\n")
    with letter.open() as text:
        run(
            *("msmtp", "--host=127.0.0.1", f"--port={mail_server.ports['submission']}", "--tls=on"),
            *("--tls-starttls=on", "--tls-certcheck=off", f"--auth={mechanism}", f"--user={ALICE}"),
            *(f"--passwordeval=echo {token()}", f"--from={ALICE}", BOB),
            stdin=text,
        )
    mail_server.wait_for_subject(BOB, f"msmtp {mechanism}")


def test_nodemailer_submits_with_a_token(mail_server: MailServer) -> None:
    def send(bearer: str) -> str:
        job = {
            "ca": str(mail_server.certificate),
            "transport": {
                "host": "localhost",
                "port": mail_server.ports["submissions"],
                "secure": True,
                "tls": {},
                "auth": {"type": "OAuth2", "user": ALICE, "accessToken": bearer},
            },
            "messages": [{"from": ALICE, "to": BOB, "subject": "node token", "text": "Hello"}],
        }
        done = subprocess.run(
            nodemailer.command(),
            input=json.dumps(job).encode(),
            capture_output=True,
            check=True,
            timeout=60,
        )
        [answer] = json.loads(done.stdout)
        return str(answer)

    assert send(token()).startswith("250 2.")
    assert "EAUTH" in send(token(audience="another"))


@pytest.mark.parametrize(("mechanism", "head"), [("OAUTHBEARER", f"n,a={ALICE},"), ("XOAUTH2", f"user={ALICE}")])
def test_python_clients_with_a_token(mail_server: MailServer, mechanism: str, head: str) -> None:
    def answer(_challenge: bytes) -> bytes:
        return f"{head}\1auth=Bearer {token()}\1\1".encode()

    with imaplib.IMAP4_SSL("127.0.0.1", mail_server.ports["imaps"], ssl_context=insecure()) as client:
        client.authenticate(mechanism, answer)
        assert client.select()[0] == "OK"
