"""End-of-data, meant one way by a sender and another way by a server: R-SMTP-1 and R-SMTP-3 put to the proof.

A client talks to one hop, with a complete second transaction inside its message, behind something
that looks like an end of data. However the first hop takes it, the last one must count as many messages.
"""

from __future__ import annotations

import base64
import contextlib
import socket
from collections.abc import Iterator
from typing import IO

from attrs import frozen

ENDS = (
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r.\r",
    b"\r.\r\n",
    b"\n.\r",
    b"\r.\n",
    b"\r\r\n.\r\r\n",
    b"\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n. \r\n",
    b"\r\n..\r\n",
    b"\n\n.\n\n",
    b"\r\n.\x85\r\n",
)
"""What is no end of data, but has been taken for one somewhere."""


@frozen
class Login:
    """For submission."""

    user: str
    password: str


def names(token: str) -> tuple[bytes, bytes]:
    """Texts that only the outer and only the inner message have as their subject."""
    return f"Subject: outer {token}".encode(), f"Subject: inner {token}".encode()


def accepted_messages(
    port: int,
    sender: str,
    recipient: str,
    end: bytes,
    token: str,
    *,
    login: Login | None = None,
    chunking: bool = False,
) -> int:
    """How many messages the hop says it took."""
    outer, inner = names(token)
    head = b"From: <%b>\r\nTo: <%b>\r\n" % (sender.encode(), recipient.encode())
    second = b"MAIL FROM:<%b>\r\nRCPT TO:<%b>\r\nDATA\r\n" % (sender.encode(), recipient.encode())
    content = head + outer + b"\r\n\r\nfirst" + end + second + head + inner + b"\r\n\r\nsecond\r\n"
    with _session(port) as (connection, replies):
        _ask(connection, replies, b"EHLO client.example.org")
        if login is not None:
            secret = base64.b64encode(f"\0{login.user}\0{login.password}".encode())
            assert _ask(connection, replies, b"AUTH PLAIN " + secret) == 235
        assert _ask(connection, replies, b"MAIL FROM:<%b>" % sender.encode()) == 250
        assert _ask(connection, replies, b"RCPT TO:<%b>" % recipient.encode()) == 250
        if chunking:
            connection.sendall(b"BDAT %d LAST\r\n" % len(content) + content)
        else:
            assert _ask(connection, replies, b"DATA") == 354
            connection.sendall(content + b".\r\n")
        return _count_accepted(connection, replies)


def _count_accepted(connection: socket.socket, replies: IO[bytes]) -> int:
    """Of all replies until the connection ends: the answers to an end of data that are good."""
    count = int(_reply(replies) == 250)
    # Not before the first answer: some servers want to be waited for.
    with contextlib.suppress(OSError):
        connection.sendall(b"QUIT\r\n")
    is_end_of_data = False
    for code in iter(lambda: _reply(replies), 0):
        count += is_end_of_data and code == 250
        is_end_of_data = code == 354
    return count


@contextlib.contextmanager
def _session(port: int) -> Iterator[tuple[socket.socket, IO[bytes]]]:
    with socket.create_connection(("127.0.0.1", port), 20) as connection, connection.makefile("rb") as replies:
        assert _reply(replies) == 220
        yield connection, replies


def _ask(connection: socket.socket, replies: IO[bytes], command: bytes) -> int:
    connection.sendall(command + b"\r\n")
    return _reply(replies)


def _reply(replies: IO[bytes]) -> int:
    """The next reply's code; 0 at the end of the connection."""
    while True:
        try:
            line = replies.readline()
        except OSError:
            return 0
        if not line:
            return 0
        if line[3:4] != b"-":
            return int(line[:3])
