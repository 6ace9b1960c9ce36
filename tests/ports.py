"""Ports for the servers of the tests: free for TCP and UDP now, and still free when a server starts again.

They lie below those that the system gives to connections. Each test process has its own share.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket

_FIRST, _END = 12_000, 32_000
_given: set[int] = set()


def process_number() -> int:
    """Of the processes that run tests side by side, from 0."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def lasting_port() -> int:
    """Another one each time."""
    step = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        port = random.randrange(_FIRST + process_number(), _END, step)
        if port in _given:
            continue
        with (
            contextlib.suppress(OSError),
            socket.socket() as stream,
            socket.socket(type=socket.SOCK_DGRAM) as datagram,
        ):
            stream.bind(("127.0.0.1", port))
            datagram.bind(("127.0.0.1", port))
            _given.add(port)
            return port
