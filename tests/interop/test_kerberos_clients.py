"""Log-in by Kerberos ticket: a real KDC; curl, msmtp, mbsync and a client in Python against a whole server.

The library for Kerberos is installed by tools/test.sh, and imported late: who leaves these tests out need not have it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import imaplib
import os
import poplib
import smtplib
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mailsrv.auth.gssapi_settings import ChannelBinding, GssapiSettings
from mailsrv.auth.tickets import Acceptor, KeytabUnusable, TicketRefused
from mailsrv.cli.named_files import file_problems
from mailsrv.config.load import load
from mailsrv.sasl import SaslError
from tests.interop.kdc import REALM, Kdc
from tests.interop.running import ALICE, BOB, MailServer
from tests.scenarios.server import WholeServer

MAILSRVCTL = Path(sys.executable).with_name("mailsrvctl")
SERVICES = ("imap", "pop", "smtp")
IMAP = "imaps"


@pytest.fixture(scope="module")
def kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kdc]:
    with Kdc(tmp_path_factory.mktemp("kdc") / "realm") as kdc:
        kdc.add_users("alice", "bob", "nobody", "alice/admin", "blocked")
        for service in SERVICES:
            kdc.add_service(f"{service}/localhost", keytab(kdc))
        kdc.add_service("imap/elsewhere.example.test", keytab(kdc))
        kdc.add_service("imap/other.example.test", kdc.folder / "other.keytab")
        with pytest.MonkeyPatch.context() as patch:
            for name in ("KRB5_CONFIG", "KRB5RCACHENAME"):
                patch.setenv(name, kdc.environment[name])
            yield kdc


def keytab(kdc: Kdc) -> Path:
    return kdc.folder / "mail.keytab"


def table(kdc: Kdc, **more: str) -> str:
    lines = {"keytab_file": f'"{keytab(kdc)}"', "realms": f'["{REALM}"]', **more}
    return "\n".join(f"{key} = {value}" for key, value in lines.items())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, kdc: Kdc) -> Iterator[MailServer]:
    server = MailServer(
        tmp_path_factory.mktemp("kerberos"),
        sections={
            "smtp": "greeting_delay_seconds = 0.0",
            "auth": "failure_delay_seconds = 0.0",
            "gssapi": table(kdc, hostname='"localhost"'),
        },
        plaintext_networks="[]",
    )
    with server:
        with server.passwd_path.open("a") as file:
            file.write("blocked@example.test:{PLAIN}x::::::nologin=\n")
        yield server
    server.check_log()


@pytest.fixture(scope="module")
def tickets(kdc: Kdc) -> Callable[[str], Mapping[str, str]]:
    """The environment of somebody who has done kinit."""
    known: dict[str, Mapping[str, str]] = {}

    def environment(user: str) -> Mapping[str, str]:
        if user not in known:
            known[user] = kdc.log_in(user)
        return known[user]

    return environment


def run(environment: Mapping[str, str], *words: object, expect: int = 0, text: str = "") -> str:
    done = subprocess.run(
        [str(word) for word in words],
        input=text.encode(),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    assert done.returncode == expect, done.stdout.decode()
    return done.stdout.decode()


def curl(server: MailServer, *words: object) -> tuple[object, ...]:
    return (
        *("curl", "-sS", "--cacert", server.certificate, "--user", f"{ALICE}:"),
        *("--login-options", "AUTH=GSSAPI", *words),
    )


def test_curl_reads_and_submits_by_ticket(server, tickets, tmp_path):
    letter = tmp_path / "letter"
    letter.write_text(f"From: {ALICE}\nTo: {BOB}\nSubject: curl with a ticket\n\nHello\n")
    words = ("--mail-from", ALICE, "--mail-rcpt", BOB, "--upload-file", letter)
    run(tickets("alice"), *curl(server, *words, "--ssl-reqd", f"smtp://localhost:{server.ports['submission']}"))
    server.wait_for_subject(BOB, "curl with a ticket")
    run(tickets("alice"), *curl(server, *words, f"smtps://localhost:{server.ports['submissions']}"))
    assert "* SEARCH" in run(tickets("alice"), *curl(server, f"imaps://localhost:{server.ports[IMAP]}/INBOX?ALL"))
    run(tickets("alice"), *curl(server, f"pop3s://localhost:{server.ports['pop3s']}/"))
    run(tickets("nobody"), *curl(server, f"imaps://localhost:{server.ports[IMAP]}/INBOX?ALL"), expect=67)


def test_msmtp_submits_by_ticket(server, tickets):
    def send(user: str, expect: int = 0) -> None:
        run(
            tickets(user),
            *("msmtp", "--host=localhost", f"--port={server.ports['submission']}", "--tls=on", "--tls-starttls=on"),
            *("--tls-certcheck=off", "--auth=gssapi", f"--user={user}", f"--from={ALICE}", BOB),
            text=f"From: {ALICE}\nTo: {BOB}\nSubject: msmtp with a ticket\n\nHello\n",
            expect=expect,
        )

    send("alice")
    server.wait_for_subject(BOB, "msmtp with a ticket")
    send("nobody", expect=77)


def test_mbsync_reads_by_ticket(server, tickets, tmp_path):
    server.deliver(ALICE, b"From: x@example.org\r\nSubject: fetched by ticket\r\n\r\nHello\r\n")
    server.wait_for_subject(ALICE, "fetched by ticket")
    (tmp_path / "box").mkdir()
    sections = (
        f"IMAPAccount a\nHost localhost\nPort {server.ports[IMAP]}\nSSLType IMAPS\n"
        f'CertificateFile {server.certificate}\nUser alice\nAuthMechs GSSAPI\nPass "unused"\n',
        "IMAPStore far\nAccount a\n",
        f"MaildirStore near\nPath {tmp_path}/box/\nInbox {tmp_path}/box/INBOX\n",
        f"Channel c\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSyncState {tmp_path}/state-\n",
    )
    (tmp_path / "mbsyncrc").write_text("\n".join(sections))
    run(tickets("alice"), "mbsync", "-c", tmp_path / "mbsyncrc", "c")
    assert any(b"fetched by ticket" in path.read_bytes() for path in (tmp_path / "box").rglob("*") if path.is_file())


class Client:
    """The initiator's side of RFC 4752, in the words imaplib and smtplib have for it."""

    def __init__(
        self,
        environment: Mapping[str, str],
        target: str,
        *,
        authzid: str = "",
        layer: int = 1,
        bindings: Any = None,
        mutual: bool = True,
    ) -> None:
        import gssapi

        credentials = gssapi.Credentials(usage="initiate", store={"ccache": environment["KRB5CCNAME"]})
        flags = [gssapi.RequirementFlag.mutual_authentication] if mutual else []
        self.context = gssapi.SecurityContext(
            name=gssapi.Name(target, gssapi.NameType.hostbased_service),
            creds=credentials,
            usage="initiate",
            mech=gssapi.MechType.kerberos,
            flags=[*flags, gssapi.RequirementFlag.integrity],
            channel_bindings=bindings,
        )
        self.choice = bytes((layer, 0, 0, 0)) + authzid.encode()
        self.offer = b""

    def __call__(self, challenge: bytes) -> bytes:
        if not self.context.complete:
            return self.context.step(challenge or None) or b""
        self.offer = self.context.unwrap(challenge).message
        wrapped: bytes = self.context.wrap(self.choice, False).message
        return wrapped


def insecure() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def imap(server: WholeServer, client: Callable[[bytes], bytes | None]) -> str:
    """What is said to it; "" if it is in."""
    with imaplib.IMAP4_SSL("localhost", server.ports[IMAP], ssl_context=insecure(), timeout=30) as connection:
        assert "AUTH=GSSAPI" in connection.capabilities
        try:
            connection.authenticate("GSSAPI", client)
        except imaplib.IMAP4.error as error:
            # It goes on as if nothing had been.
            assert connection.noop()[0] == "OK"
            return str(error)
        assert connection.select()[0] == "OK"
        return ""


def test_a_client_in_python_by_all_three_protocols(server, tickets):
    for authzid in ("", "alice", ALICE):
        client = Client(tickets("alice"), "imap@localhost", authzid=authzid)
        assert imap(server, client) == ""
        assert client.offer == b"\x01\0\0\0"
    assert imap(server, Client(tickets("alice"), "imap@localhost", mutual=False)) == ""
    client = Client(tickets("alice"), "smtp@localhost")
    with smtplib.SMTP_SSL("localhost", server.ports["submissions"], context=insecure(), timeout=30) as smtp:
        smtp.ehlo()
        code, answer = smtp.docmd("AUTH", "GSSAPI " + base64.b64encode(client(b"")).decode())
        while code == 334:
            code, answer = smtp.docmd(base64.b64encode(client(base64.b64decode(answer))).decode())
        assert code == 235
    client = Client(tickets("alice"), "pop@localhost")
    pop3: Any = poplib.POP3_SSL("localhost", server.ports["pop3s"], context=insecure(), timeout=30)
    said = pop3._shortcmd("AUTH GSSAPI")
    while said.startswith(b"+ "):
        said = pop3._shortcmd(base64.b64encode(client(base64.b64decode(said[2:]))).decode())
    assert said.startswith(b"+OK")
    pop3.quit()


def test_security_layers_are_refused(server, tickets):
    for layer in (2, 4, 6, 0, 3):
        said = imap(server, Client(tickets("alice"), "imap@localhost", layer=layer))
        assert said, layer
        assert "AUTHENTICATIONFAILED" not in said


def test_r_auth_6_who_has_no_account_fails_like_a_wrong_password(server, tickets):
    for user, target, authzid in (
        ("nobody", "imap@localhost", ""),
        ("blocked", "imap@localhost", ""),
        ("alice/admin", "imap@localhost", ""),
        ("alice", "imap@localhost", "bob"),
        ("alice", "imap@elsewhere.example.test", ""),
        ("alice", "smtp@localhost", ""),
    ):
        said = imap(server, Client(tickets(user), target, authzid=authzid))
        assert "AUTHENTICATIONFAILED" in said, (user, target, said)
    server.wait_for_event("a principal of several parts")


def _say(answer: bytes, _challenge: bytes) -> bytes:
    return answer


def test_what_is_no_token_is_malformed(server):
    for nonsense in (b"nonsense", b"\x60\x00", b""):
        said = imap(server, functools.partial(_say, nonsense))
        assert said


def test_an_exchange_given_up_half_way_leaves_the_connection_as_it_was(server, tickets):
    client = Client(tickets("alice"), "imap@localhost")

    def give_up_at(number: int) -> Callable[[bytes], bytes | None]:
        asked = [0]

        def answer(challenge: bytes) -> bytes | None:
            asked[0] += 1
            return None if asked[0] == number else client(challenge)

        return answer

    for number in (1, 2, 3):
        client = Client(tickets("alice"), "imap@localhost")
        assert "cancelled" in imap(server, give_up_at(number))
    # And who goes without a word, in the middle of a look at the ticket.
    for _ in range(5):
        connection = imaplib.IMAP4_SSL("localhost", server.ports[IMAP], ssl_context=insecure(), timeout=30)
        token = base64.b64encode(Client(tickets("alice"), "imap@localhost")(b""))
        connection.send(b"a AUTHENTICATE GSSAPI " + token + b"\r\n")
        connection.shutdown()
    assert imap(server, Client(tickets("bob"), "imap@localhost")) == ""


def test_it_is_offered_under_tls_alone(server):
    with smtplib.SMTP("localhost", server.ports["submission"], timeout=30) as smtp:
        smtp.ehlo()
        assert "auth" not in smtp.esmtp_features
        smtp.starttls(context=insecure())
        smtp.ehlo()
        assert "GSSAPI" in smtp.esmtp_features["auth"]
    pop3 = poplib.POP3_SSL("localhost", server.ports["pop3s"], context=insecure(), timeout=30)
    assert "GSSAPI" in pop3.capa()["SASL"]
    pop3.quit()


def binding(data: bytes) -> Any:
    from gssapi.raw import ChannelBindings

    return ChannelBindings(application_data=b"tls-server-end-point:" + data)


def bindings_of(server: MailServer) -> Any:
    """As a client has them: by the certificate it sees."""
    der = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("localhost", server.ports[IMAP])))
    return binding(hashlib.sha256(der).digest())


def test_who_binds_to_another_channel_is_refused(server, tickets):
    other = binding(b"x" * 32)
    assert imap(server, Client(tickets("alice"), "imap@localhost", bindings=bindings_of(server))) == ""
    said = imap(server, Client(tickets("alice"), "imap@localhost", bindings=other))
    assert "AUTHENTICATIONFAILED" in said
    server.wait_for_event("Incorrect channel bindings")


def test_r_auth_7_a_keytab_that_is_gone_is_our_trouble_until_it_is_back(server, kdc, tickets):
    away = keytab(kdc).with_suffix(".away")
    os.rename(keytab(kdc), away)
    try:
        assert "UNAVAILABLE" in imap(server, Client(tickets("alice"), "imap@localhost"))
        server.wait_for_event(str(keytab(kdc)))
        server.reload()
        assert server.events_with("reload refused")
    finally:
        os.rename(away, keytab(kdc))
    assert imap(server, Client(tickets("alice"), "imap@localhost")) == ""


@pytest.mark.slow
def test_r_auth_7_a_keytab_that_hangs_takes_nobodys_time_but_its_own(kdc, tickets, tmp_path):
    with MailServer(
        tmp_path,
        sections={
            "gssapi": table(kdc, timeout_seconds="0.5", threads="1", waiting="1"),
            "imap": "idle_poll_seconds = 60",
        },
        plaintext_networks="[]",
    ) as server:
        away = keytab(kdc).with_suffix(".away")
        os.rename(keytab(kdc), away)
        try:
            os.mkfifo(keytab(kdc))
            for _ in range(3):
                assert "UNAVAILABLE" in imap(server, Client(tickets("alice"), "imap@localhost"))
            with imaplib.IMAP4_SSL("localhost", server.ports[IMAP], ssl_context=insecure(), timeout=30) as connection:
                connection.login(ALICE, server.password)
            server.stop()
        finally:
            os.replace(away, keytab(kdc))
        server.check_log()


def test_the_configuration_check_names_file_and_key(server, kdc, tmp_path):
    known = server.config_path.read_text()

    def written(old: str, new: str) -> Path:
        path: Path = server.config_path.with_name("changed.toml")
        path.write_text(known.replace(old, new))
        return path

    for path in (kdc.folder / "other.keytab", tmp_path / "none", server.certificate):
        [problem] = file_problems(load(str(written(str(keytab(kdc)), str(path)))))
        assert str(path) in problem
    assert not file_problems(load(str(server.config_path)))
    words = (MAILSRVCTL, "--config", written(f'realms = ["{REALM}"]', "realms = []"), "config", "check", "--files")
    assert "gssapi.realms" in run(dict(os.environ, COLUMNS="500"), *words, expect=1)


# --- the acceptor by itself


def acceptor(kdc: Kdc, end_point: bytes | None = None, **changes: Any) -> Acceptor:
    from mailsrv.auth.gssapi_acceptor import TicketAcceptor

    return TicketAcceptor(GssapiSettings(keytab_file=str(keytab(kdc)), realms=(REALM,), **changes), "imap", end_point)


def accept(kdc: Kdc, client: Client, end_point: bytes | None = None, **changes: Any) -> str:
    return acceptor(kdc, end_point, **changes).accept(client(b"")).principal


def test_channel_binding_can_be_demanded(kdc, tickets):
    bound = binding(b"same")
    demanded = {"channel_binding": ChannelBinding.REQUIRE}
    principal = f"alice@{REALM}"
    assert accept(kdc, Client(tickets("alice"), "imap@localhost", bindings=bound), b"same", **demanded) == principal
    for bindings, end_point in ((None, b"same"), (bound, None)):
        with pytest.raises(TicketRefused, match="not bound"):
            accept(kdc, Client(tickets("alice"), "imap@localhost", bindings=bindings), end_point, **demanded)
    off = {"channel_binding": ChannelBinding.OFF}
    assert accept(kdc, Client(tickets("alice"), "imap@localhost", bindings=bound), b"another", **off) == principal


def test_a_ticket_is_taken_once(kdc, tickets):
    token = Client(tickets("alice"), "imap@localhost")(b"")
    assert acceptor(kdc).accept(token).principal
    with pytest.raises(TicketRefused, match="replay"):
        acceptor(kdc).accept(token)


def test_keys_by_service_and_file(kdc, tmp_path):
    from mailsrv.auth.gssapi_acceptor import acquire

    settings = GssapiSettings(keytab_file=str(kdc.folder / "other.keytab"), realms=(REALM,))
    acquire(settings, "imap")
    with pytest.raises(KeytabUnusable, match=r"other\.keytab.*smtp"):
        acquire(settings, "submission")
    with pytest.raises(KeytabUnusable, match="none"):
        acquire(GssapiSettings(keytab_file=str(tmp_path / "none"), realms=(REALM,)), "imap")


def test_nothing_is_wrapped_before_the_context_is_there(kdc):
    early = acceptor(kdc)
    with pytest.raises(SaslError):
        early.wrap(b"\x01\0\0\0")
    with pytest.raises(SaslError):
        early.unwrap(b"nonsense")
