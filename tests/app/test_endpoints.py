"""Endpoint strings: taken apart by Twisted's rules, and every argument checked."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.app.endpoints import EndpointError, parse_endpoint, resolve_unix_path


def test_an_endpoint_string_is_taken_apart_with_its_quoting():
    description = parse_endpoint("tcp6:25:interface=\\:\\::backlog=7")
    assert description.kind == "tcp6"
    assert description.argument("port") == "25"
    assert description.options == {"interface": "::", "backlog": "7"}
    assert parse_endpoint("unix:/run/a\\:b\\=c:mode=600").argument("address") == "/run/a:b=c"
    assert parse_endpoint("tcp:port=25").argument("port") == "25"


@pytest.mark.parametrize(
    "text", ["", "tcp", "25", "tcp:", "tcp:x", "tcp:70000", "unix:a:mode=9", "systemd:domain=X:name=a", ":25"]
)
def test_what_is_no_endpoint_is_refused(text):
    with pytest.raises(EndpointError):
        parse_endpoint(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tcp:25:127.0.0.1", "name=value"),
        ("tcp:25:interface=::1", r'"\\\\:" for a colon'),
        ("tcp:25:interfce=127.0.0.1", "tcp: has port, interface, backlog"),
        ("tcp:25:port=26", "port= is not expected"),
        ("tcp:25:interface=localhost", "an IP address"),
        ("tcp6:25:interface=127.0.0.1", "an IPv6 address"),
        ("tcp:25:backlog=many", "backlog number"),
        ("tcp:25:backlog=99999999999999999999", "backlog number"),
        ("unix:lmtp.sock:660", "name=value"),
        ("tpc:25", "expected an endpoint of type tcp:"),
    ],
)
def test_a_slip_does_not_open_a_port_to_everybody(text, says):
    with pytest.raises(EndpointError, match=says):
        parse_endpoint(text)


@pytest.mark.parametrize("text", ["ssl:993:privateKey=key.pem", "haproxy:tcp:25", "tls:cert.pem:tcp:993"])
def test_types_of_twisted_and_its_plugins_are_known(text):
    assert not parse_endpoint(text).is_inheritable


@given(st.text(max_size=30))
def test_any_text_is_taken_apart_or_refused(text):
    with contextlib.suppress(EndpointError):
        assert parse_endpoint(text).kind


@given(st.text(alphabet="ab:=\\/.", min_size=1, max_size=20))
def test_resolving_keeps_any_path(name):
    quoted = name.replace("\\", "\\\\").replace(":", "\\:").replace("=", "\\=")
    resolved = parse_endpoint(resolve_unix_path(f"unix:{quoted}:mode=600", "/base"))
    assert resolved.argument("address") == os.path.normpath(os.path.join("/base", name))
    assert resolved.options["mode"] == "600"
