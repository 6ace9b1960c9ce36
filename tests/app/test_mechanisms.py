"""What keeps a server from starting whose settings name a keytab; without the library, which not everybody has."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import attrs
import pytest

from mailsrv.app.mechanisms import check_keytab, offered_under_tls
from mailsrv.app.settings import ListenSettings, Service
from mailsrv.auth.gssapi_settings import GssapiSettings
from mailsrv.auth.tickets import KeytabUnusable
from mailsrv.config.schema import Settings
from mailsrv.wire.tls_mode import TlsMode

ACCEPTOR = "mailsrv.auth.gssapi_acceptor"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: True)
    listen = tuple(
        ListenSettings(service, "tcp:0", tls)
        for service, tls in (
            (Service.MX, TlsMode.STARTTLS),
            (Service.IMAP, TlsMode.IMPLICIT),
            (Service.IMAP, TlsMode.STARTTLS),
            (Service.SUBMISSION, TlsMode.STARTTLS),
            (Service.POP3, TlsMode.NONE),
        )
    )
    return Settings(
        "mail.example.test",
        "/nowhere",
        listen=listen,
        gssapi=GssapiSettings(keytab_file="/etc/mail.keytab", realms=("EXAMPLE.TEST",)),
    )


def test_there_has_to_be_a_key_for_each_service_with_tls(settings, monkeypatch):
    asked: list[str] = []
    fake: Any = ModuleType(ACCEPTOR)
    fake.acquire = lambda _settings, service: asked.append(service)
    monkeypatch.setitem(sys.modules, ACCEPTOR, fake)
    check_keytab(settings)
    assert asked == ["imap", "submission"]


def test_a_library_that_cannot_be_loaded_is_told_with_its_key(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, ACCEPTOR, None)
    with pytest.raises(KeytabUnusable, match=r"gssapi\.keytab_file: the library gssapi cannot be loaded"):
        check_keytab(settings)


def test_without_a_keytab_nothing_is_looked_at_or_offered(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, ACCEPTOR, None)
    without = attrs.evolve(settings, gssapi=GssapiSettings())
    check_keytab(without)
    assert offered_under_tls(without) == ()
    assert offered_under_tls(settings) == ("GSSAPI",)
