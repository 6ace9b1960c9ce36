"""Programs that log in by tokens of a provider that the server asks: found by discovery, well and badly behaved."""

from __future__ import annotations

import base64
import imaplib
import json
import poplib
import smtplib
import subprocess
import time
from collections.abc import Iterator
from os import environ
from pathlib import Path

import pytest

from tests.interop.oidc_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    INTROSPECTION,
    REFRESH_TOKEN,
    TOKEN,
    Fault,
    OidcProvider,
)
from tests.interop.peers import imapflow, mutt, nodemailer
from tests.interop.running import ALICE, BOB, MailServer, run

MECHANISMS = ("OAUTHBEARER", "XOAUTH2")
FETCH_SECONDS = 1.0


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProvider]:
    with OidcProvider(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture(scope="module")
def mail_server(tmp_path_factory: pytest.TempPathFactory, provider: OidcProvider) -> Iterator[MailServer]:
    """Its provider's JWTs are good by their signature, its other tokens by its word."""
    table = (
        f'[[oauth]]\nissuer = "{provider.issuer}"\naudience = ["mail"]\nscope = "mail"\nalgorithms = ["ES256"]\n'
        f'fetch_seconds = {FETCH_SECONDS}\nclock_skew_seconds = 0\nca_file = "{provider.ca_path}"\n'
    )
    asking = (
        f'client_id = "{CLIENT_ID}"\nclient_secret_file = "{provider.secret_path}"\n'
        "introspection_cache_seconds = 1.0\nintrospection_pause_seconds = 0.5\n"
    )
    server = MailServer(
        tmp_path_factory.mktemp("oauth"),
        sections={
            "smtp": "greeting_delay_seconds = 0.0",
            "sessions": "check_seconds = 1.0",
            "auth": "failure_delay_seconds = 0.1",
        },
        plaintext_networks="[]",
        extra=f"{table}\n{table}{asking}",
    )
    with server:
        yield server
    server.check_log()
    log = server.log_text()
    assert not [token for token in provider.given if token in log]
    assert CLIENT_SECRET not in log
    assert "eyJ" not in log


@pytest.fixture(autouse=True)
def good_again(provider: OidcProvider) -> Iterator[None]:
    yield
    provider.faults.clear()


def message(token: str, name: str = ALICE) -> str:
    return f"user={name}\1auth=Bearer {token}\1\1"


def imap_says(server: MailServer, token: str) -> str:
    """OK, or why not."""
    client = imaplib.IMAP4_SSL("localhost", server.ports["imaps"], ssl_context=server.client_context(), timeout=30)
    try:
        # To the challenge that tells what is wrong the answer is empty.
        answers = iter([message(token).encode()])
        return client.authenticate("XOAUTH2", lambda _challenge: next(answers, b""))[0]
    except imaplib.IMAP4.error as error:
        return str(error)
    finally:
        client.shutdown()


def smtp_says(server: MailServer, token: str) -> str:
    with smtplib.SMTP_SSL("localhost", server.ports["submissions"], context=server.client_context()) as client:
        client.ehlo()
        answers = iter([message(token)])
        try:
            code, text = client.auth("XOAUTH2", lambda _challenge=None: next(answers, ""))
        except smtplib.SMTPAuthenticationError as error:
            code, text = error.smtp_code, error.smtp_error  # type: ignore[assignment]
        return f"{code} {text!r}"


def pop3_says(server: MailServer, token: str) -> str:
    client = poplib.POP3_SSL("localhost", server.ports["pop3s"], context=server.client_context(), timeout=30)
    try:
        client._putcmd(f"AUTH XOAUTH2 {base64.b64encode(message(token).encode()).decode()}")  # type: ignore[attr-defined]
        line, _ = client._getline()  # type: ignore[attr-defined]
        if line.startswith(b"+ "):
            client._putcmd("")  # type: ignore[attr-defined]
            line, _ = client._getline()  # type: ignore[attr-defined]
        return str(line.decode())
    finally:
        client.close()


def test_python_clients_by_jwt_and_by_opaque_token(mail_server: MailServer, provider: OidcProvider) -> None:
    for token in (provider.mint(ALICE), provider.give(ALICE)):
        assert imap_says(mail_server, token) == "OK"
        assert smtp_says(mail_server, token).startswith("235 ")
        assert pop3_says(mail_server, token).startswith("+OK")
    for token in (provider.mint(BOB), provider.give(BOB), provider.mint(ALICE, aud="web"), "made-up"):
        assert "AUTHENTICATIONFAILED" in imap_says(mail_server, token)
        assert smtp_says(mail_server, token).startswith("535 b'5.7.8")
        assert pop3_says(mail_server, token).startswith("-ERR [AUTH]")


def test_tokens_with_many_claims(mail_server: MailServer, provider: OidcProvider) -> None:
    for token in (provider.mint(ALICE, groups=["staff" * 10] * 80), provider.mint(ALICE, groups=["x" * 6000])):
        assert 4000 < len(token) < 9000
        assert imap_says(mail_server, token) == "OK"
        assert smtp_says(mail_server, token).startswith("235 ")
        assert pop3_says(mail_server, token).startswith("+OK")
    # What is longer than a line may be is refused, and nothing else happens.
    huge = provider.mint(ALICE, groups=["x" * 9000])
    assert imap_says(mail_server, huge) != "OK"
    assert not pop3_says(mail_server, huge).startswith("+OK")
    assert not smtp_says(mail_server, huge).startswith("2")


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_curl(mail_server: MailServer, provider: OidcProvider, mechanism: str) -> None:
    def read(token: str, expect: int = 0) -> None:
        run(
            *("curl", "-sS", "--insecure", "--user", f"{ALICE}:", "--oauth2-bearer", token),
            *("--login-options", f"AUTH={mechanism}", f"imaps://127.0.0.1:{mail_server.ports['imaps']}/"),
            expect=expect,
        )

    read(provider.give(ALICE))
    read(provider.mint(ALICE))
    read(provider.give(ALICE, scope="openid"), expect=67)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_imapflow(mail_server: MailServer, provider: OidcProvider, mechanism: str) -> None:
    without = ("AUTH=OAUTHBEARER",) if mechanism == "XOAUTH2" else ()

    def log_in(token: str) -> dict[str, object]:
        auth = {"user": ALICE, "accessToken": token}
        return imapflow.log_in(mail_server.ports["imaps"], mail_server.certificate, auth, without=without)

    assert "exists" in log_in(provider.mint(ALICE))
    refused = log_in(provider.mint(ALICE, aud="web"))["error"]
    assert isinstance(refused, dict)
    assert refused["authenticationFailed"]
    told = refused["oauthError"]
    assert told["status"] == ("invalid_token" if mechanism == "OAUTHBEARER" else "401")
    assert told["scope"] == "mail"
    if mechanism == "OAUTHBEARER":
        assert told["openid-configuration"] == f"{provider.issuer}/.well-known/openid-configuration"


@pytest.mark.parametrize("mechanism", ["oauthbearer", "xoauth2"])
def test_mutt(mail_server: MailServer, provider: OidcProvider, tmp_path: Path, mechanism: str) -> None:
    mail_server.deliver(BOB, f"From: <{ALICE}>\r\nSubject: for mutt by {mechanism}\r\n\r\nHello\r\n".encode())
    fetching = f'set imap_authenticators="{mechanism}"\nset imap_oauth_refresh_command="echo {provider.give(BOB)}"\n'
    assert f"for mutt by {mechanism}" in mutt.saves(mail_server, tmp_path, fetching)


def test_nodemailer_fetches_its_token_itself(mail_server: MailServer, provider: OidcProvider) -> None:
    job = {
        "ca": str(mail_server.certificate),
        "transport": {
            "host": "localhost",
            "port": mail_server.ports["submissions"],
            "secure": True,
            "tls": {},
            "auth": {
                "type": "OAuth2",
                "user": ALICE,
                "clientId": CLIENT_ID,
                "clientSecret": CLIENT_SECRET,
                "refreshToken": REFRESH_TOKEN,
                # No good any more: the server says so, and a new one is fetched.
                "accessToken": provider.mint(ALICE, -10),
                "accessUrl": f"{provider.issuer}{TOKEN}",
            },
        },
        "messages": [{"from": ALICE, "to": BOB, "subject": "node refreshed", "text": "Hello"}],
    }
    done = subprocess.run(
        nodemailer.command(),
        input=json.dumps(job).encode(),
        env={**environ, "NODE_EXTRA_CA_CERTS": str(provider.ca_path)},
        capture_output=True,
        check=True,
        timeout=60,
    )
    [answer] = json.loads(done.stdout)
    assert str(answer).startswith("250 2."), answer
    assert TOKEN in provider.requests
    assert mail_server.wait_for_subject(BOB, "node refreshed")


def test_r_auth_7_a_provider_that_is_down_or_hangs(mail_server: MailServer, provider: OidcProvider) -> None:
    good = provider.give(ALICE)
    for fault in (Fault.ERROR, Fault.HUNG):
        provider.faults[INTROSPECTION] = fault
        began = time.monotonic()
        assert "UNAVAILABLE" in imap_says(mail_server, good)
        assert smtp_says(mail_server, good).startswith("454 b'4.7.0")
        assert pop3_says(mail_server, good).startswith("-ERR [SYS/TEMP]")
        assert time.monotonic() - began < 3 * FETCH_SECONDS + 2
        # Who needs no answer of it does not notice.
        assert imap_says(mail_server, provider.mint(ALICE)) == "OK"
        with mail_server.imap(BOB):
            pass
    provider.faults.clear()
    time.sleep(0.6)
    assert imap_says(mail_server, good) == "OK"


def test_a_token_that_is_taken_back(mail_server: MailServer, provider: OidcProvider) -> None:
    token = provider.give(ALICE)
    assert imap_says(mail_server, token) == "OK"
    provider.revoke(token)
    time.sleep(1.1)
    assert "AUTHENTICATIONFAILED" in imap_says(mail_server, token)


@pytest.mark.slow
def test_a_session_ends_with_its_token(mail_server: MailServer, provider: OidcProvider) -> None:
    client = imaplib.IMAP4_SSL("localhost", mail_server.ports["imaps"], ssl_context=mail_server.client_context())
    try:
        client.authenticate("XOAUTH2", lambda _challenge: message(provider.give(ALICE, 2)).encode())
        client.select()
        client.send(b"x IDLE\r\n")
        assert client.readline().startswith(b"+")
        assert client.readline() == b"* BYE The token has expired, log in again\r\n"
        assert client.readline() == b""
    finally:
        client.shutdown()
    mail_server.wait_for_event("is ended: expired")
