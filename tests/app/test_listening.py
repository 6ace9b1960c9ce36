"""Endpoint strings, and sockets that queue connections before anybody accepts."""

from __future__ import annotations

import os
import socket
import stat

import pytest
from twisted.python.systemd import ListenFDs

from mailsrv.app.endpoints import EndpointError, parse_endpoint
from mailsrv.app.listening import PluginListener, bind, open_listener


@pytest.mark.parametrize("text", ["tcp:0:interface=127.0.0.1", "tcp6:0:interface=\\:\\:1", "tcp:0:interface=\\:\\:1"])
def test_a_bound_socket_queues_connections_until_accepted(text):
    bound = bind(parse_endpoint(text), 10)
    try:
        name = bound.socket.getsockname()
        with socket.create_connection(name[:2], 5) as client:
            accepted, _ = bound.socket.accept()
            accepted.close()
            assert client.recv(1) == b""
        assert bound.address.endswith(str(name[1]))
        assert not bound.socket.getblocking()
    finally:
        bound.close()


def test_a_unix_socket_has_its_mode_from_the_start_and_replaces_only_a_dead_one(tmp_path):
    path = tmp_path / "s.sock"
    description = parse_endpoint(f"unix:{path}:mode=640")
    first = bind(description, 10)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with pytest.raises(OSError, match="in use"):
        bind(description, 10)
    # A crash leaves the file behind: nobody listens any more.
    first.socket.close()
    second = bind(description, 10)
    first.close()
    assert path.exists(), "a file that became another server's stays"
    second.close()
    assert not path.exists()


def test_a_unix_socket_belongs_to_the_user_the_server_is_going_to_run_as(tmp_path):
    """Only root can give it to somebody else: another user's run shows that it is asked for, and the mode stays."""
    owner = (65534, 65533) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    path = tmp_path / "s.sock"
    bound = open_listener(f"unix:{path}:mode=660", 10, owner)
    found = path.stat()
    assert (found.st_uid, found.st_gid) == owner
    assert stat.S_IMODE(found.st_mode) == 0o660
    bound.close()
    assert not path.exists()


def test_a_file_in_the_way_is_not_removed(tmp_path):
    path = tmp_path / "precious"
    path.write_text("mail")
    with pytest.raises(OSError, match="in use"):
        bind(parse_endpoint(f"unix:{path}"), 10)
    assert path.read_text() == "mail"


def test_systemd_sockets_are_found_by_name_and_checked(monkeypatch):
    with socket.socket() as passed:
        passed.bind(("127.0.0.1", 0))
        passed.listen()
        found = ListenFDs.fromEnvironment(
            {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "mx"}, passed.fileno()
        )
        monkeypatch.setattr("twisted.internet.endpoints._SystemdParser._sddaemon", found)
        bound = bind(parse_endpoint("systemd:domain=INET:name=mx"), 10)
        assert bound.socket.getsockname() == passed.getsockname()
        bound.close()
        by_number = bind(parse_endpoint("systemd:domain=INET:index=0"), 10)
        by_number.close()
        for wrong in ("systemd:domain=INET:name=imap", "systemd:domain=INET:index=3", "systemd:domain=UNIX:name=mx"):
            with pytest.raises(EndpointError):
                bind(parse_endpoint(wrong), 10)


def test_other_endpoint_types_are_left_to_their_plugins():
    assert isinstance(open_listener("haproxy:tcp:25", 10), PluginListener)
