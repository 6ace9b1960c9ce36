"""Programs that submit mail for others: msmtp as everybody's sendmail, nodemailer in web applications."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.interop.peers import nodemailer
from tests.interop.running import ALICE, BOB, MailServer, run


def msmtp_settings(server: MailServer, folder: Path, *, port: str = "submission", password: str = "") -> Path:
    """Of an account of alice's, TLS verified."""
    settings = folder / "msmtprc"
    settings.write_text(
        f"account default\nhost localhost\nport {server.ports[port]}\nfrom {ALICE}\n"
        f"auth on\nuser {ALICE}\npassword {password or server.password}\n"
        f"tls on\ntls_starttls {'on' if port == 'submission' else 'off'}\ntls_trust_file {server.certificate}\n"
    )
    settings.chmod(0o600)
    return settings


@pytest.mark.parametrize("port", ["submission", "submissions"])
def test_msmtp_submits(mail_server: MailServer, tmp_path: Path, port: str) -> None:
    subject = f"msmtp {port}"
    letter = tmp_path / "letter"
    letter.write_text(f"From: {ALICE}\nTo: {BOB}\nSubject: {subject}\n\nLine\n.dot\n.\nGrüße\n")
    settings = msmtp_settings(mail_server, tmp_path, port=port)
    with letter.open() as standard_input:
        run("msmtp", "-C", settings, "--read-recipients", stdin=standard_input)
    assert "Line\r\n.dot\r\n.\r\nGrüße\r\n".encode() in mail_server.wait_for_subject(BOB, subject)


def test_msmtp_asks_for_notices(mail_server: MailServer, tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_text(f"From: {ALICE}\nTo: {BOB}\nSubject: msmtp notices\n\nHi\n")
    with letter.open() as standard_input:
        run(
            *("msmtp", "-C", msmtp_settings(mail_server, tmp_path), "--dsn-notify=failure", "--dsn-return=headers"),
            *("--", BOB),
            stdin=standard_input,
        )
    assert mail_server.wait_for_subject(BOB, "msmtp notices")


def test_msmtp_is_told_why(mail_server: MailServer, tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_text("Subject: never\n\nHi\n")
    settings = msmtp_settings(mail_server, tmp_path, password="wrong")
    with letter.open() as standard_input:
        # EX_NOPERM
        assert "535 5.7.8" in run("msmtp", "-C", settings, BOB, stdin=standard_input, expect=77)
    settings = msmtp_settings(mail_server, tmp_path)
    with letter.open() as standard_input:
        # EX_DATAERR
        told = run("msmtp", "-C", settings, "--from=" + BOB, BOB, stdin=standard_input, expect=65)
    assert "5.7.1" in told


def by_nodemailer(server: MailServer, *messages: dict[str, Any], **options: object) -> list[str]:
    """What the server answered to each."""
    transport = {
        "host": "localhost",
        "port": server.ports["submission"],
        "secure": False,
        "requireTLS": True,
        "auth": {"user": ALICE, "pass": server.password},
        "tls": {"servername": "localhost"},
        **options,
    }
    job = {"transport": transport, "ca": str(server.certificate), "messages": messages}
    done = subprocess.run(
        nodemailer.command(),
        input=json.dumps(job),
        text=True,
        capture_output=True,
        timeout=60,
        check=True,
    )
    answers: list[str] = json.loads(done.stdout)
    return answers


def message(subject: str, **fields: object) -> dict[str, Any]:
    return {"from": f"Älice <{ALICE}>", "to": BOB, "subject": subject, "text": "Grüße\n.dot\n", **fields}


def test_nodemailer_submits_with_starttls_and_tls(mail_server: MailServer) -> None:
    [answer] = by_nodemailer(mail_server, message("node starttls"))
    assert answer.startswith("250 2.")
    [answer] = by_nodemailer(
        mail_server, message("node tls"), port=mail_server.ports["submissions"], secure=True, authMethod="LOGIN"
    )
    assert answer.startswith("250 2.")
    for subject in ("node starttls", "node tls"):
        assert b"with ESMTPSA" in mail_server.wait_for_subject(BOB, subject)


def test_nodemailer_sends_many_over_one_connection_with_attachments(mail_server: MailServer) -> None:
    attachment = bytes(range(256)) * 2000
    letters = [
        message(
            f"node {number}",
            html="<p>Grüße</p>",
            attachments=[
                {"filename": "größe.bin", "content": base64.b64encode(attachment).decode(), "encoding": "base64"}
            ],
        )
        for number in range(5)
    ]
    answers = by_nodemailer(mail_server, *letters, pool=True, maxConnections=1)
    assert all(answer.startswith("250 2.") for answer in answers)
    for number in range(5):
        octets = mail_server.wait_for_subject(BOB, f"node {number}")
        assert base64.b64encode(attachment)[:76] in octets


def test_nodemailer_is_told_why(mail_server: MailServer) -> None:
    unknown, forged = by_nodemailer(
        mail_server,
        message("never", to="nobody@example.test"),
        {**message("never"), "from": BOB},
    )
    assert unknown.startswith("EENVELOPE")
    assert "5.1.1" in unknown
    assert "5.7.1" in forged
    [denied] = by_nodemailer(mail_server, message("never"), auth={"user": ALICE, "pass": "wrong"})
    assert denied.startswith("EAUTH")
    assert "535 5.7.8" in denied
