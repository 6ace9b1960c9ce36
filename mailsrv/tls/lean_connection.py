"""A TLS connection whose memory shrinks again after bulk, and goes with the connection.

OpenSSL's memory BIOs, between which and the transport Twisted carries octets, only ever grow: a
client that once sent or fetched 200 KiB would hold 20 to 64 KiB until it disconnects, and idle
IMAP clients do not. So when a small piece follows a large one and a BIO is empty, a fresh one
takes its place. Small pieces end every exchange (a command, a tagged reply), so bulk itself is
not slowed down.

pyOpenSSL offers no way to do that, so this reaches for what is below it. Where that is not found
as expected, ``make_connection`` makes ordinary connections, which work the same and hold more memory.

Most clients close without the alert that TLS has for it (RFC 8446 6.1). pyOpenSSL raises an error then, whose
traceback holds Twisted's half of the connection, the buffers and itself: all that would stay until the collector of
cycles comes. Here it is an end like any other, also where the handshake was never finished (who only looks whether the
port is open); the mail protocols know by themselves whether something was cut off.
"""

from __future__ import annotations

import contextlib
from typing import Any

from OpenSSL import SSL

try:
    from OpenSSL._util import ffi as _ffi
    from OpenSSL._util import lib as _lib
except ImportError:
    _ffi = _lib = None

LARGE_OCTETS = 2048
"""BIOs that have held more are replaced when they next carry less."""


class LeanConnection(SSL.Connection):
    """A server's or client's connection over memory BIOs, for contexts without a socket."""

    def __init__(self, context: SSL.Context) -> None:
        super().__init__(context, None)
        # The handshake is large both ways.
        self._incoming_is_large = self._outgoing_is_large = True
        # While it goes on, OpenSSL may have a buffering BIO of its own before the outgoing one.
        self._is_established = False
        self._is_input_over = False

    def bio_shutdown(self) -> None:
        self._is_input_over = True
        super().bio_shutdown()

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        if not self._is_input_over:
            return super().recv(bufsiz, flags)
        with contextlib.suppress(SSL.SysCallError):
            return super().recv(bufsiz, flags)
        raise SSL.ZeroReturnError

    def do_handshake(self) -> None:
        super().do_handshake()
        self._is_established = True

    def bio_write(self, buf: Any) -> int:
        if len(buf) > LARGE_OCTETS:
            self._incoming_is_large = True
        elif self._incoming_is_large and self._is_established:
            self._replace_incoming()
        return super().bio_write(buf)

    def bio_read(self, bufsiz: int) -> bytes:
        octets = super().bio_read(bufsiz)
        if len(octets) > LARGE_OCTETS:
            self._outgoing_is_large = True
        elif self._outgoing_is_large and len(octets) < bufsiz and self._is_established:
            self._replace_outgoing()
        return octets

    def _replace_incoming(self) -> None:
        if _holds_octets(self._into_ssl):
            return
        fresh = _lib.BIO_new(_lib.BIO_s_mem())
        if fresh == _ffi.NULL:
            return
        # Frees the old one and takes over the fresh one; the other stays as it is (SSL_set_bio(3)).
        _lib.SSL_set_bio(self._ssl, fresh, self._from_ssl)
        self._into_ssl = fresh
        self._incoming_is_large = False

    def _replace_outgoing(self) -> None:
        if _holds_octets(self._from_ssl):
            return
        fresh = _lib.BIO_new(_lib.BIO_s_mem())
        if fresh == _ffi.NULL:
            return
        _lib.SSL_set_bio(self._ssl, self._into_ssl, fresh)
        self._from_ssl = fresh
        self._outgoing_is_large = False


def _holds_octets(bio: Any) -> bool:
    return bool(_lib.BIO_get_mem_data(bio, _ffi.new("char **")))


def _can_be_lean() -> bool:
    needed = ("BIO_new", "BIO_s_mem", "BIO_get_mem_data", "SSL_set_bio")
    if _lib is None or not all(hasattr(_lib, name) for name in needed):
        return False
    connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    return all(hasattr(connection, name) for name in ("_ssl", "_into_ssl", "_from_ssl"))


_IS_LEAN = _can_be_lean()


def make_connection(context: SSL.Context) -> SSL.Connection:
    """A connection over memory BIOs, lean where that can be."""
    return LeanConnection(context) if _IS_LEAN else SSL.Connection(context, None)
