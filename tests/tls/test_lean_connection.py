"""Connections that give memory back: octets stay the same, BIOs do not."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from mailsrv.tls import lean_connection
from mailsrv.tls.contexts import TlsContexts
from mailsrv.tls.lean_connection import LARGE_OCTETS, LeanConnection, make_connection
from mailsrv.tls.self_signed import write_self_signed
from mailsrv.tls.settings import TlsSettings


@pytest.fixture(scope="module")
def listener(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    tls = TlsSettings(str(folder / "cert.pem"), str(folder / "key.pem"))
    write_self_signed("mail.example.test", tls.certificate, tls.key)
    return TlsContexts(tls).for_listener("imap")


def carry(source: Any, target: Any) -> None:
    with contextlib.suppress(SSL.WantReadError):
        while True:
            target.bio_write(source.bio_read(2**15))


def connect(listener: Any, version: int = SSL.TLS1_3_VERSION) -> tuple[Any, Any]:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    client = SSL.Connection(context, None)
    client.set_connect_state()
    server = listener.serverConnectionForTLS(None)
    server.set_accept_state()
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            carry(one, other)
    return client, server


def send(source: Any, target: Any, octets: bytes) -> bytes:
    """As Twisted does it: slices of 16 KiB, each flushed."""
    received = []
    for start in range(0, len(octets), 2**14):
        source.send(octets[start : start + 2**14])
        carry(source, target)
        with contextlib.suppress(SSL.WantReadError):
            while True:
                received.append(target.recv(2**15))
    return b"".join(received)


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_a_small_piece_after_a_large_one_replaces_the_bio(listener, version):
    client, server = connect(listener, version)
    assert isinstance(server, LeanConnection)
    send(client, server, b"x")
    send(server, client, b"x")
    into, out = server._into_ssl, server._from_ssl
    bulk = bytes(range(256)) * 800
    assert send(client, server, bulk) == bulk
    assert send(server, client, bulk) == bulk
    assert (server._into_ssl, server._from_ssl) == (into, out)
    assert send(client, server, b"NOOP\r\n") == b"NOOP\r\n"
    assert send(server, client, b"OK\r\n") == b"OK\r\n"
    assert server._into_ssl != into
    assert server._from_ssl != out
    # And stay in place while everything is small.
    into, out = server._into_ssl, server._from_ssl
    send(client, server, b"x" * 100)
    send(server, client, b"x" * 100)
    assert (server._into_ssl, server._from_ssl) == (into, out)
    server.shutdown()


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([1, 50, LARGE_OCTETS - 30, LARGE_OCTETS, 16384, 40_000])), max_size=20
    ),
    st.sampled_from([SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION]),
)
@settings(max_examples=40, deadline=None)
def test_any_sequence_of_sizes_arrives_whole(listener, exchanges, version):
    client, server = connect(listener, version)
    for number, (to_server, size) in enumerate(exchanges):
        octets = bytes((number + position) % 256 for position in range(size))
        source, target = (client, server) if to_server else (server, client)
        assert send(source, target, octets) == octets


def test_records_cut_anywhere_arrive_whole(listener):
    client, server = connect(listener)
    octets = bytes(range(256)) * 20
    client.send(octets)
    wire = client.bio_read(2**15)
    received = b""
    for position in range(len(wire)):
        server.bio_write(wire[position : position + 1])
        with contextlib.suppress(SSL.WantReadError):
            received += server.recv(2**15)
    assert received == octets


def test_without_what_it_needs_connections_are_ordinary(listener, monkeypatch):
    monkeypatch.setattr(lean_connection, "_IS_LEAN", False)
    assert type(make_connection(listener.context)) is SSL.Connection
    monkeypatch.setattr(lean_connection, "_lib", None)
    assert not lean_connection._can_be_lean()


def test_a_client_that_goes_without_an_alert_has_ended_like_any_other(listener):
    client, server = connect(listener)
    client.send(b"LOGOUT\r\n")
    carry(client, server)
    server.bio_shutdown()
    assert server.recv(2**15) == b"LOGOUT\r\n"
    with pytest.raises(SSL.ZeroReturnError):
        server.recv(2**15)


def test_one_that_goes_before_tls_is_up_has_ended_too(listener):
    server = listener.serverConnectionForTLS(None)
    server.set_accept_state()
    server.bio_shutdown()
    with pytest.raises(SSL.ZeroReturnError):
        server.recv(2**15)
