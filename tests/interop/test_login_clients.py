"""Programs that log in by password, made to take one mechanism after the other."""

from __future__ import annotations

import smtplib
from pathlib import Path

import pytest

from tests.interop.peers import imapflow, mutt
from tests.interop.running import ALICE, BOB, MailServer, run

PASSWORD_MECHANISMS = ("PLAIN", "LOGIN")


@pytest.mark.parametrize("mechanism", PASSWORD_MECHANISMS)
@pytest.mark.parametrize("service", ["imaps", "pop3s"])
def test_curl_reads(mail_server: MailServer, service: str, mechanism: str) -> None:
    def read(password: str, expect: int = 0) -> None:
        run(
            *("curl", "-sS", "--insecure", "--user", f"{ALICE}:{password}", "--login-options", f"AUTH={mechanism}"),
            f"{service}://127.0.0.1:{mail_server.ports[service]}/",
            expect=expect,
        )

    read(mail_server.password)
    read("wrong", expect=67)


@pytest.mark.parametrize("mechanism", PASSWORD_MECHANISMS)
def test_curl_submits(mail_server: MailServer, tmp_path: Path, mechanism: str) -> None:
    letter = tmp_path / "letter"
    letter.write_text(f"From: {ALICE}\nTo: {BOB}\nSubject: curl by {mechanism}\n\nHello\n")
    run(
        *("curl", "-sS", "--insecure", "--user", f"{ALICE}:{mail_server.password}"),
        *("--login-options", f"AUTH={mechanism}", "--mail-from", ALICE, "--mail-rcpt", BOB),
        *("--upload-file", letter, f"smtps://127.0.0.1:{mail_server.ports['submissions']}"),
    )
    assert mail_server.wait_for_subject(BOB, f"curl by {mechanism}")


@pytest.mark.parametrize("mechanism", PASSWORD_MECHANISMS)
def test_smtplib(mail_server: MailServer, mechanism: str) -> None:
    with smtplib.SMTP("localhost", mail_server.ports["submission"]) as client:
        client.starttls(context=mail_server.client_context())
        client.ehlo()
        client.user, client.password = ALICE, mail_server.password
        method = client.auth_plain if mechanism == "PLAIN" else client.auth_login
        assert client.auth(mechanism, method)[0] == 235


@pytest.mark.parametrize("mechanism", PASSWORD_MECHANISMS)
def test_msmtp(mail_server: MailServer, tmp_path: Path, mechanism: str) -> None:
    letter = tmp_path / "letter"
    letter.write_text(f"From: {ALICE}\nTo: {BOB}\nSubject: msmtp by {mechanism}\n\nHello\n")
    with letter.open() as text:
        run(
            *("msmtp", "--host=127.0.0.1", f"--port={mail_server.ports['submission']}", "--tls=on"),
            *("--tls-starttls=on", "--tls-certcheck=off", f"--auth={mechanism.lower()}", f"--user={ALICE}"),
            *(f"--passwordeval=echo {mail_server.password}", f"--from={ALICE}", BOB),
            stdin=text,
        )
    assert mail_server.wait_for_subject(BOB, f"msmtp by {mechanism}")


@pytest.mark.parametrize("method", ["LOGIN", "AUTH=PLAIN", "AUTH=LOGIN"])
def test_imapflow(mail_server: MailServer, method: str) -> None:
    def log_in(password: str) -> dict[str, object]:
        auth = {"user": ALICE, "pass": password, "loginMethod": method}
        return imapflow.log_in(mail_server.ports["imaps"], mail_server.certificate, auth)

    assert "exists" in log_in(mail_server.password)
    refused = log_in("wrong")["error"]
    assert isinstance(refused, dict)
    assert refused["authenticationFailed"]
    assert refused["code"] == "AUTHENTICATIONFAILED"


@pytest.mark.parametrize("mechanism", ["plain", "login"])
def test_mutt_reads(mail_server: MailServer, tmp_path: Path, mechanism: str) -> None:
    mail_server.deliver(BOB, f"From: <{ALICE}>\r\nSubject: for mutt by {mechanism}\r\n\r\nHello\r\n".encode())
    assert f"for mutt by {mechanism}" in mutt.saves(
        mail_server, tmp_path, f'set imap_authenticators="{mechanism}"\nset imap_pass="{mail_server.password}"\n'
    )
