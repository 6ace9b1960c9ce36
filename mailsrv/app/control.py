"""What supervisor and worker say to each other: one JSON object a line, over the worker's pipes.

The supervisor's *orders* go to the worker's standard input, whose end of file means that the
supervisor is gone and the worker has to go too. The worker's *reports* go to descriptor 3.
Listening sockets are inherited from descriptor 4 on.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen
from cattrs.preconf.json import make_converter

REPORT_DESCRIPTOR = 3
FIRST_LISTENER_DESCRIPTOR = 4
MAX_LINE_OCTETS = 16 * 1024 * 1024
"""A start order carries the whole configuration file."""

_converter = make_converter()


@frozen
class Start:
    """The first order: who the worker is and what it runs.

    The configuration comes as text, so that every worker of a run has the one the supervisor
    checked, even if the file is being edited. ``run_id`` is the run's 16 random octets.
    """

    worker: int
    seat: int
    """Which of the ``2 * workers`` places it takes among those who share the queue: no other living process has
    it, also while workers are replaced one after the other. A replacement for a dead one takes its place."""
    workers: int
    config_path: str
    config_text: str
    run_id: bytes
    listeners: tuple[int, ...]
    log_path: str
    accept_at_once: bool
    """A replacement need not wait for its siblings."""


def format_start(start: Start) -> bytes:
    """One line."""
    return _converter.dumps(start).encode("ascii") + b"\n"


def parse_start(line: bytes) -> Start:
    """The inverse of :func:`format_start`."""
    return _converter.loads(line, Start)


def format_message(message: dict[str, Any]) -> bytes:
    """One line of JSON with its line end."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def parse_message(line: bytes) -> dict[str, Any]:
    """The object a line says."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise TypeError("a message between supervisor and worker is an object")
    return message
