"""Which servers are asked, and names and octets that parsers take or leave."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.names import dns

from mailsrv.dns.records import decode_tlsa, read_text
from mailsrv.dns.servers import LOOK_AGAIN_SECONDS, Server, ServerList, parse_resolv_conf, parse_server
from mailsrv.dns.settings import DnsSettings
from mailsrv.dns.wire import Reply, WireError, decode_reply, encode_query, normalize_name


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", Server("192.0.2.1")),
        ("192.0.2.1:5353", Server("192.0.2.1", 5353)),
        ("2001:db8::1", Server("2001:db8::1")),
        ("[2001:db8::1]", Server("2001:db8::1")),
        ("[::1]:5353", Server("::1", 5353)),
    ],
)
def test_servers_as_they_are_written(text: str, server: Server) -> None:
    assert parse_server(text) == server
    assert parse_server(str(server)) == server


@pytest.mark.parametrize("text", ["", "localhost", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "[::1", "[::1]53"])
def test_what_is_no_server_is_refused_by_the_settings(text: str) -> None:
    with pytest.raises(ValueError, match=r"resolver|port"):
        DnsSettings(servers=(text,))


def test_loopback() -> None:
    assert Server("127.0.0.53").is_loopback
    assert Server("::1").is_loopback
    assert not Server("10.0.0.1").is_loopback


def test_resolv_conf() -> None:
    text = "# nameserver 192.0.2.9\nsearch test\nnameserver 192.0.2.1\nnameserver nonsense\nnameserver 2001:db8::1\n"
    assert parse_resolv_conf(text) == (Server("192.0.2.1"), Server("2001:db8::1"))
    assert parse_resolv_conf(text + "options edns0 trust-ad\n")[0].has_trust_option
    assert len(parse_resolv_conf("nameserver 192.0.2.1\n" * 50)) == 8


@given(st.text())
def test_any_resolv_conf(text: str) -> None:
    parse_resolv_conf(text)


def test_the_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    servers = ServerList((), str(path))
    assert servers.current(0) == (Server("127.0.0.1"),)
    path.write_text("nameserver 192.0.2.1\n")
    assert servers.current(LOOK_AGAIN_SECONDS - 1) == (Server("127.0.0.1"),)
    assert servers.current(LOOK_AGAIN_SECONDS) == (Server("192.0.2.1"),)
    path.write_text("nameserver 192.0.2.2\n")
    os.utime(path, ns=(1, 1))
    assert servers.current(3 * LOOK_AGAIN_SECONDS) == (Server("192.0.2.2"),)
    assert ServerList(("192.0.2.7:53",), str(path)).current(0) == (Server("192.0.2.7"),)


@given(st.text())
def test_names_that_are_normalized_can_be_asked_for(text: str) -> None:
    name = normalize_name(text)
    if name is not None:
        assert normalize_name(name) == name
        message = dns.Message()
        message.fromStr(encode_query(1, name, dns.MX, wants_dnssec=True))
        assert message.queries[0].name.name.decode() == ("" if name == "." else name)


@given(st.binary(max_size=200))
def test_any_octets_are_an_answer_or_an_error(octets: bytes) -> None:
    with contextlib.suppress(WireError):
        assert isinstance(decode_reply(octets, "a.test", dns.MX, 100), Reply)


@given(st.data())
def test_an_answer_with_any_octets_changed(data: st.DataObject) -> None:
    message = dns.Message(id=1, answer=1)
    message.addQuery(b"a.test", dns.MX)
    message.answers = [dns.RRHeader(b"a.test", dns.MX, payload=dns.Record_MX(1, b"mx.a.test")) for _ in range(3)]
    octets = bytearray(message.toStr())
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WireError):
        decode_reply(bytes(octets[: data.draw(st.integers(0, len(octets)))]), "a.test", dns.MX, 100)


@given(st.binary(min_size=4, max_size=300))
def test_tlsa_octets(octets: bytes) -> None:
    found = decode_tlsa(octets)
    assert bytes((found.usage, found.selector, found.matching_type)) + found.data == octets


@given(st.lists(st.binary(max_size=255), max_size=40))
def test_text_strings_are_joined(strings: list[bytes]) -> None:
    joined = b"".join(strings)
    assert read_text(dns.Record_TXT(*strings)) == (joined if len(joined) <= 8192 else None)
