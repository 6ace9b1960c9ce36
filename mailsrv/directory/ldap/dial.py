"""Sockets to a server, by a deadline. Blocks: for threads only."""

from __future__ import annotations

import socket
import ssl
from time import monotonic

from mailsrv.directory.ldap.servers import LdapServer


def connect(server: LdapServer, deadline: float) -> socket.socket:
    """A TCP connection to the first of the host's addresses that takes one, or a Unix socket's (``ldapi``)."""
    if server.socket_path:
        local = socket.socket(socket.AF_UNIX)
        try:
            local.settimeout(max(0.001, deadline - monotonic()))
            local.connect(server.socket_path)
        except BaseException:
            local.close()
            raise
        return local
    hosts = server.addresses or (server.host,)
    addresses = [each for host in hosts for each in socket.getaddrinfo(host, server.port, type=socket.SOCK_STREAM)]
    failure: OSError = OSError("the name has no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        remaining = deadline - monotonic()
        if remaining <= 0:
            raise TimeoutError("no connection in time")
        one = socket.socket(family, kind, protocol)
        try:
            # An address that is silent must leave time for the others.
            one.settimeout(remaining / (len(addresses) - number))
            one.connect(address)
            # A request is one small write after another: 44 ms each otherwise.
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            one.close()
            failure = error
        else:
            return one
    raise failure


def say(error: BaseException) -> str:
    """What went wrong, for the log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is refused: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    return ascii(str(error))[:200].strip("'\"") or type(error).__name__
