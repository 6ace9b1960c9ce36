"""The whole server for scenario tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.server import WholeServer

MakeServer = Callable[..., WholeServer]


@pytest.fixture
def make_server() -> Iterator[MakeServer]:
    """Make servers that are not started yet; whatever still runs at the end is killed.

    Short folder names: the path of a Unix socket has 107 octets, and those of pytest have a test's name in them.
    """
    made: list[WholeServer] = []
    base = Path(tempfile.mkdtemp(prefix="mailsrv-"))

    def make(**settings: Any) -> WholeServer:
        server = WholeServer(base / f"s{len(made)}", **settings)
        made.append(server)
        return server

    yield make
    for server in made:
        server.kill()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def server(request: pytest.FixtureRequest, make_server: MakeServer) -> Iterator[WholeServer]:
    """A running server; in the end it must stop in good order and have logged no traceback."""
    running = make_server(workers=request.param, sections={"smtp": "greeting_delay_seconds = 0.0"})
    running.start()
    yield running
    if running.process is not None:
        running.stop()
    running.check_log()
