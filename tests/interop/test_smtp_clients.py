"""Programs people send mail with: curl, swaks, mutt, smtplib. Each message is read back over IMAP."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.interop.running import ALICE, BOB, MailServer, run

LETTER = (
    f"From: Alice <{ALICE}>\nTo: Bob <{BOB}>\nSubject: {{subject}}\n\n"
    "First line.\n.a line that starts with a dot\n\n.\nLast line, after a lonely dot.\n"
)


def test_curl_submits_with_starttls(mail_server: MailServer, tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_text(LETTER.format(subject="by curl"))
    run(
        *("curl", "-sS", "--ssl-reqd", "--insecure", "--crlf", f"smtp://127.0.0.1:{mail_server.ports['submission']}"),
        *("--user", f"{ALICE}:{mail_server.password}", "--mail-from", ALICE, "--mail-rcpt", BOB, "-T", letter),
    )
    octets = mail_server.wait_for_subject(BOB, "by curl")
    assert b"\r\n.a line that starts with a dot\r\n\r\n.\r\nLast line" in octets


def test_curl_submits_bare_line_feeds(mail_server: MailServer, tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_text(LETTER.format(subject="bare"))
    run(
        *("curl", "-sS", "--insecure", f"smtps://127.0.0.1:{mail_server.ports['submissions']}"),
        *("--user", f"{ALICE}:{mail_server.password}", "--mail-from", ALICE, "--mail-rcpt", BOB, "-T", letter),
    )
    octets = mail_server.wait_for_subject(BOB, "bare")
    assert octets.count(b"\n") == octets.count(b"\r\n")
    assert b"First line.\r\n.a line" in octets


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_submits(mail_server: MailServer, mechanism: str) -> None:
    run(
        *("swaks", "--server", "127.0.0.1", "--port", mail_server.ports["submission"], "--tls"),
        *("--auth", mechanism, "--auth-user", ALICE, "--auth-password", mail_server.password),
        *("--from", ALICE, "--to", BOB, "--header", f"Subject: swaks {mechanism}", "--h-From", ALICE),
    )
    assert mail_server.wait_for_subject(BOB, f"swaks {mechanism}")


def test_swaks_delivers_to_the_mx_and_by_lmtp(mail_server: MailServer) -> None:
    common = ("--from", "someone@example.org", "--to", BOB)
    run("swaks", "--server", "127.0.0.1", "--port", mail_server.ports["mx"], *common, "--header", "Subject: to the mx")
    assert mail_server.wait_for_subject(BOB, "to the mx")
    run(
        *("swaks", "--socket", mail_server.lmtp_path, "--protocol", "LMTP"),
        *(*common, "--header", "Subject: by lmtp"),
    )
    assert mail_server.wait_for_subject(BOB, "by lmtp")


def test_swaks_is_refused_for_strangers_and_unknown_recipients(mail_server: MailServer) -> None:
    server = ("swaks", "--server", "127.0.0.1", "--port", mail_server.ports["mx"], "--from", "someone@example.org")
    unknown = run(*server, "--to", "nobody@example.test", expect=24)
    assert "550 5.1.1" in unknown
    foreign = run(*server, "--to", "someone@example.net", expect=24)
    assert "550 5.7.1" in foreign
    wrong = run(
        *("swaks", "--server", "127.0.0.1", "--port", mail_server.ports["submission"], "--tls", "--auth", "PLAIN"),
        *("--auth-user", ALICE, "--auth-password", "wrong", "--from", ALICE, "--to", BOB),
        expect=28,
    )
    assert "535 5.7.8" in wrong


def test_mutt_sends_in_batch(mail_server: MailServer, tmp_path: Path) -> None:
    attachment = tmp_path / "notes.bin"
    attachment.write_bytes(bytes(range(256)) * 40)
    settings = tmp_path / "muttrc"
    settings.write_text(
        f'set smtp_url="smtps://alice%40example.test@127.0.0.1:{mail_server.ports["submissions"]}/"\n'
        f'set smtp_pass="{mail_server.password}"\nset from="{ALICE}"\nset use_envelope_from=yes\n'
        "set ssl_verify_host=no\nset ssl_verify_dates=no\nset ssl_starttls=yes\nset copy=no\n"
        f'set certificate_file="{mail_server.certificate}"\nset hostname="client.example.test"\n'
    )
    body = tmp_path / "body"
    body.write_text("Written with mutt, äöü.\n")
    with body.open() as standard_input:
        run(
            *("mutt", "-n", "-F", settings, "-s", "from mutt", "-a", attachment, "--", BOB),
            stdin=standard_input,
            home=tmp_path,
        )
    assert b"notes.bin" in mail_server.wait_for_subject(BOB, "from mutt")


def test_smtplib_sends_utf8_addresses_and_large_messages(mail_server: MailServer) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = ALICE, BOB, "smtplib"
    message.set_content("Grüße\n" * 40_000)
    context = ssl.create_default_context(cafile=mail_server.certificate)
    with smtplib.SMTP("localhost", mail_server.ports["submission"]) as client:
        client.starttls(context=context)
        client.login(ALICE, mail_server.password)
        assert {"pipelining", "size", "8bitmime", "smtputf8", "enhancedstatuscodes"} <= set(client.esmtp_features)
        client.send_message(message, mail_options=("SMTPUTF8", "BODY=8BITMIME"))
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail(ALICE, ["nobody@example.test"], "Subject: never\r\n\r\n")
        with pytest.raises(smtplib.SMTPSenderRefused):
            client.sendmail(BOB, [ALICE], "Subject: forged\r\n\r\n")
    assert len(mail_server.wait_for_subject(BOB, "smtplib")) > 240_000
