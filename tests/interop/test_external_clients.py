"""Log-in by client certificate: curl and Python's libraries against a whole server, by IMAP, POP3 and SMTP."""

from __future__ import annotations

import imaplib
import poplib
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.running import ALICE, BOB, MailServer, run
from tests.ports import lasting_port
from tests.scenarios.server import LISTENERS
from tests.tls.authority import SERVER, Issued, email, issue, revoke

CA = issue(None, common_name="CA of users", is_ca=True)
ELSEWHERE = issue(None, common_name="CA of users", is_ca=True)
SHOWN = {
    "alice": issue(CA, email(ALICE)),
    "bob": issue(CA, email(BOB)),
    "both": issue(CA, email(ALICE), email(BOB)),
    "nobody": issue(CA, email("nobody@example.test")),
    "nameless": issue(CA),
    "expired": issue(CA, email(ALICE), from_days=-9, to_days=-1),
    "revoked": issue(CA, email(ALICE)),
    "wrong-ca": issue(ELSEWHERE, email(ALICE)),
    "no-eku": issue(CA, email(ALICE), usages=()),
    "server-eku": issue(CA, email(ALICE), usages=SERVER),
}
BAD = ("expired", "revoked", "wrong-ca", "no-eku", "server-eku")
PORTS = {name: lasting_port() for name in ("imap", "imaps", "pop3s", "submission", "submissions", "required")}


def _listeners() -> str:
    text = ""
    for name, port in PORTS.items():
        service, tls = LISTENERS.get(name, ("imap", "implicit"))
        use = "require" if name == "required" else "request"
        text += f'\n[[listen]]\nservice = "{service}"\nendpoint = "tcp:{port}:interface=127.0.0.1"\ntls = "{tls}"\n'
        text += f'client_certificates = "{use}"\n'
    return text


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Certificate and key of each, in one file."""
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "ca.pem").write_bytes(CA.pem)
    (folder / "crl.pem").write_bytes(revoke(CA, SHOWN["revoked"]))
    paths = {"ca": folder / "ca.pem", "crl": folder / "crl.pem"}
    for name, issued in SHOWN.items():
        _write(folder / f"{name}.pem", issued)
        paths[name] = folder / f"{name}.pem"
    return paths


def _write(path: Path, issued: Issued) -> None:
    path.write_bytes(issued.key_pem + issued.pem)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, shown: dict[str, Path]) -> Iterator[MailServer]:
    server = MailServer(
        tmp_path_factory.mktemp("external"),
        sections={
            "tls": f'client_ca_file = "{shown["ca"]}"\nclient_crl_file = "{shown["crl"]}"',
            "smtp": "greeting_delay_seconds = 0.0",
            "auth": "failure_delay_seconds = 0.0",
        },
        plaintext_networks="[]",
        extra=_listeners(),
    )
    with server:
        yield server
    server.check_log()


def context(server: MailServer, path: Path | None) -> ssl.SSLContext:
    made = server.client_context()
    if path is not None:
        made.load_cert_chain(path)
    return made


def imap(server: MailServer, path: Path | None, port: str = "imaps") -> imaplib.IMAP4_SSL:
    return imaplib.IMAP4_SSL("localhost", PORTS[port], ssl_context=context(server, path), timeout=30)


def curl(server: MailServer, path: Path, *words: object, expect: int = 0) -> str:
    """With an initial response: in a later one curl writes "=" for nothing, for the initial one alone (RFC 4954)."""
    return run(
        *(
            "curl",
            "-sS",
            "--sasl-ir",
            "--cacert",
            server.certificate,
            "--cert",
            path,
            "--login-options",
            "AUTH=EXTERNAL",
            *words,
        ),
        expect=expect,
    )


def test_curl_reads_by_certificate(server, shown):
    server.deliver(ALICE, b"From: x@example.org\r\nSubject: seen by certificate\r\n\r\nHello\r\n")
    server.wait_for_subject(ALICE, "seen by certificate")
    for user in ("", ALICE):
        words = ("--user", f"{user}:") if user else ()
        listing = curl(
            server, shown["alice"], *words, f"imaps://localhost:{PORTS['imaps']}/INBOX?SUBJECT%20certificate"
        )
        assert "* SEARCH 1" in listing
        assert "1 " in curl(server, shown["alice"], *words, f"pop3s://localhost:{PORTS['pop3s']}/")
    listing = curl(server, shown["alice"], "--ssl-reqd", f"imap://localhost:{PORTS['imap']}/INBOX?ALL")
    assert "* SEARCH 1" in listing
    # Somebody else's name, and no name where the certificate has two.
    curl(server, shown["alice"], "--user", f"{BOB}:", f"imaps://localhost:{PORTS['imaps']}/INBOX?ALL", expect=67)
    curl(server, shown["both"], f"imaps://localhost:{PORTS['imaps']}/INBOX?ALL", expect=67)
    curl(server, shown["both"], "--user", f"{ALICE}:", f"imaps://localhost:{PORTS['imaps']}/INBOX?ALL")


def test_curl_submits_by_certificate(server, shown, tmp_path):
    letter = tmp_path / "letter"
    letter.write_text(f"From: {ALICE}\nTo: {BOB}\nSubject: sent by certificate\n\nHello\n")
    words = ("--mail-from", ALICE, "--mail-rcpt", BOB, "--upload-file", letter)
    curl(server, shown["alice"], *words, "--ssl-reqd", f"smtp://localhost:{PORTS['submission']}")
    server.wait_for_subject(BOB, "sent by certificate")
    curl(server, shown["alice"], *words, f"smtps://localhost:{PORTS['submissions']}")
    curl(server, shown["nobody"], *words, f"smtps://localhost:{PORTS['submissions']}", expect=67)


def offers(server: MailServer, path: Path | None) -> list[bool]:
    """Whether EXTERNAL is offered by IMAP, POP3, and SMTP with and without STARTTLS."""
    with imap(server, path) as client:
        assert b"CAPABILITY" not in client.welcome
        found = ["AUTH=EXTERNAL" in client.capabilities]
    pop3 = poplib.POP3_SSL("localhost", PORTS["pop3s"], context=context(server, path), timeout=30)
    found.append("EXTERNAL" in pop3.capa()["SASL"])
    pop3.quit()
    with smtplib.SMTP_SSL("localhost", PORTS["submissions"], context=context(server, path), timeout=30) as smtp:
        smtp.ehlo()
        found.append("EXTERNAL" in smtp.esmtp_features["auth"])
    with smtplib.SMTP("localhost", PORTS["submission"], timeout=30) as smtp:
        smtp.ehlo()
        assert "auth" not in smtp.esmtp_features
        smtp.starttls(context=context(server, path))
        smtp.ehlo()
        found.append("EXTERNAL" in smtp.esmtp_features["auth"])
    return found


def test_it_is_offered_to_whom_it_can_serve(server, shown):
    assert offers(server, shown["alice"]) == [True] * 4
    assert offers(server, shown["nobody"]) == [True] * 4
    for name in ("nameless", *BAD):
        assert offers(server, shown[name]) == [False] * 4, name
    assert offers(server, None) == [False] * 4
    # A listener that does not ask is none the wiser.
    with imaplib.IMAP4_SSL("localhost", server.ports["imaps"], ssl_context=context(server, shown["alice"])) as client:
        assert "AUTH=EXTERNAL" not in client.capabilities
        assert b"CAPABILITY" in client.welcome


def test_what_is_not_offered_does_not_work_and_passwords_do(server, shown):
    for name in (*BAD, "nameless"):
        with imap(server, shown[name]) as client:
            with pytest.raises(imaplib.IMAP4.error, match="Unknown mechanism"):
                client.authenticate("EXTERNAL", lambda _challenge: b"")
            client.login(ALICE, server.password)


def test_an_empty_response_to_an_empty_challenge(server, shown):
    with imap(server, shown["bob"]) as client:
        client.authenticate("EXTERNAL", lambda _challenge: b"")
        assert client.select()[0] == "OK"
    with smtplib.SMTP_SSL("localhost", PORTS["submissions"], context=context(server, shown["bob"])) as smtp:
        smtp.ehlo()
        assert smtp.docmd("AUTH", "EXTERNAL") == (334, b"")
        assert smtp.docmd("")[0] == 235
    with smtplib.SMTP_SSL("localhost", PORTS["submissions"], context=context(server, shown["bob"])) as smtp:
        smtp.ehlo()
        assert smtp.docmd("AUTH", "EXTERNAL *")[0] == 501
        assert smtp.docmd("AUTH", "EXTERNAL AAAA")[0] == 501
        assert smtp.docmd("AUTH", "EXTERNAL =")[0] == 235
    pop3 = poplib.POP3_SSL("localhost", PORTS["pop3s"], context=context(server, shown["bob"]), timeout=30)
    assert pop3._shortcmd("AUTH EXTERNAL").rstrip() == b"+"  # type: ignore[attr-defined]
    assert pop3._shortcmd("").startswith(b"+OK")  # type: ignore[attr-defined]
    pop3.quit()


def test_an_account_that_is_not_there_fails_like_a_wrong_password(server, shown):
    with imap(server, shown["nobody"]) as client, pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        client.authenticate("EXTERNAL", lambda _challenge: b"")
    server.wait_for_event("log-in as nobody@example.test from 127.0.0.1 failed: unknown user")


def test_where_one_is_required_there_is_no_connection_without(server, shown):
    with imap(server, shown["alice"], "required") as client:
        client.authenticate("EXTERNAL", lambda _challenge: b"")
    for name in (*BAD, None):
        with pytest.raises((ssl.SSLError, OSError, imaplib.IMAP4.abort)):
            imap(server, None if name is None else shown[name], "required")
    server.wait_for_event("a client certificate is not good: cert has expired")
    server.wait_for_event("a client certificate is not good: cert revoked")
    server.wait_for_event("a client without a certificate")


def test_r_sighup_a_new_revocation_list_counts_from_the_reload_on(server, shown):
    known = shown["crl"].read_bytes()
    assert offers(server, shown["alice"])[0]
    try:
        shown["crl"].write_bytes(revoke(CA, SHOWN["revoked"], SHOWN["alice"]))
        server.reload()
        assert not offers(server, shown["alice"])[0]
    finally:
        shown["crl"].write_bytes(known)
        server.reload()
    assert offers(server, shown["alice"])[0]
