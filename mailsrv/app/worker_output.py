"""What a worker's interpreter itself prints: it belongs in the log.

A worker logs by its own log writer. Its standard error carries what comes before there is one, or past it: a module
that cannot be imported, a fatal error of the interpreter. A daemon has nowhere to print that, and without it nobody
could tell why a worker does not start.
"""

from __future__ import annotations

from twisted.logger import Logger

_MAX_LINE_OCTETS = 4096


class WorkerOutput:
    """Logs lines as they come; a longer one is cut into pieces."""

    _log = Logger()

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._begun = b""

    def received(self, octets: bytes) -> None:
        """Octets in any pieces."""
        *lines, self._begun = (self._begun + octets).split(b"\n")
        for line in lines:
            self._write(line)
        while len(self._begun) > _MAX_LINE_OCTETS:
            self._write(self._begun[:_MAX_LINE_OCTETS])
            self._begun = self._begun[_MAX_LINE_OCTETS:]

    def ended(self) -> None:
        """Nothing more comes."""
        self._write(self._begun)
        self._begun = b""

    def _write(self, line: bytes) -> None:
        if text := line.decode("utf-8", "backslashreplace").rstrip():
            self._log.error("worker {worker} printed: {output}", worker=self._worker, output=text)
