"""EXTERNAL over SMTP: offered as soon as the handshake has shown a certificate, and not for those a proxy passes on."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailsrv.smtp import identity
from mailsrv.smtp.settings import Service
from mailsrv.wire.tls_mode import TlsMode
from tests.smtp.smtp_harness import Client, Server, make_server
from tests.tls.authority import email, issue

ALICE = issue(None, email("alice@example.test")).certificate


class Shown:
    """What the TLS connection of the test has shown."""

    certificate: Any = None


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    shown = Shown()
    monkeypatch.setattr(identity, "client_certificate", lambda _transport: shown.certificate)
    return shown


def connect(**settings: Any) -> tuple[Server, Client]:
    server = make_server(service=Service.SUBMISSION, tls_mode=TlsMode.IMPLICIT, **settings)
    server.factory.mechanisms = lambda is_tls, certificate=None: (
        ("EXTERNAL", "PLAIN") if is_tls and certificate is not None else ("PLAIN",)
    )
    return server, server.connect(is_tls=True)


def test_the_handshake_may_end_after_the_session_began(shown):
    server, client = connect()
    shown.certificate = ALICE
    client.hear()
    assert b"AUTH EXTERNAL PLAIN" in client.say(b"EHLO client.example\r\n")
    asked: list[Any] = []

    def log_in(credentials: Any, mind: object, *interfaces: object) -> Deferred[Any]:
        asked.append(credentials)
        return Deferred()

    server.portal.login = log_in  # type: ignore[method-assign]
    client.say(b"AUTH EXTERNAL =\r\n")
    [credentials] = asked
    assert (credentials.mechanism, credentials.response, credentials.certificate) == ("EXTERNAL", b"", ALICE)


def test_who_has_shown_none_is_not_offered_it(shown):
    _server, client = connect()
    client.hear()
    assert b"AUTH PLAIN\r\n" in client.say(b"EHLO client.example\r\n")
    assert client.say(b"AUTH EXTERNAL =\r\n").startswith(b"504 ")


def test_r_proxy_1_a_proxys_certificate_is_not_its_clients(shown):
    shown.certificate = ALICE
    _server, client = connect(xclient_networks=("127.0.0.0/8",))
    client.begin("EHLO proxy.example")
    assert client.say(b"XCLIENT ADDR=192.0.2.1\r\n").startswith(b"220 ")
    assert b"EXTERNAL" not in client.say(b"EHLO client.example\r\n")
    assert client.say(b"AUTH EXTERNAL =\r\n").startswith(b"504 ")
