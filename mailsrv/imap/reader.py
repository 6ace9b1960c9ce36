"""Octets in, whole commands out: lines, literals of both kinds, and the budget over all of it.

The reader holds one command at most. What it gives back:

* ``CommandRead``: a whole command, its literals in place behind their counts;
* ``LiteralAnnounced``: a line ended in a literal's count. The session answers with
  ``take_literal`` (it becomes part of the command), ``stream_literal`` (its octets are taken out
  slice by slice: the message of an APPEND) or ``refuse``;
* ``CommandTooBig``: a budget ended, or a refused literal cannot be read over. Whether the connection can go on is told;
* None: more octets are needed.

However the octets are cut, and whatever they are, the memory used is bounded by the budgets
(R-IMAP-1), and the work by the octets that came: a search for a line's end starts where the
last one stopped.
"""

from __future__ import annotations

import enum
import re

from attrs import frozen

# literal = "{" number ["+"] "}" CRLF; literal8 = "~{" number ["+"] "}" CRLF (RFC 3501, 7888, 3516)
_LITERAL_AT_END = re.compile(rb"(~?)\{(\d{1,20})(\+?)\}\Z")
_COUNT_TAIL = 32
"""No count of a literal is longer: what is kept of a line that is being dropped."""


@frozen
class CommandRead:
    """A whole command without its last CRLF."""

    octets: bytes


@frozen
class LiteralAnnounced:
    """The command so far ends in the count of a literal (with its CRLF)."""

    so_far: bytes
    size: int
    is_synchronizing: bool
    is_binary: bool


@frozen
class CommandTooBig:
    """A budget ended. ``start`` is how the command began; it may hold the tag."""

    start: bytes
    can_go_on: bool


ReaderEvent = CommandRead | LiteralAnnounced | CommandTooBig


@frozen
class Budget:
    """What one command may cost, in octets."""

    line: int
    literal: int
    command: int
    discard: int


class _Mode(enum.Enum):
    LINE = enum.auto()
    ANNOUNCED = enum.auto()
    LITERAL = enum.auto()
    STREAM = enum.auto()
    DROP_LINE = enum.auto()
    DROP_LITERAL = enum.auto()
    CLOSED = enum.auto()


class CommandReader:
    """Collects one command at a time from what :meth:`receive_octets` was given."""

    __slots__ = ("_announced", "_buffer", "_command", "_dropped", "_mode", "_owed", "_scanned", "budget")

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._buffer = bytearray()
        self._command = b""
        self._scanned = 0
        self._owed = 0
        self._dropped = 0
        self._mode = _Mode.LINE
        self._announced: LiteralAnnounced | None = None

    @property
    def buffered(self) -> int:
        """Octets received and not yet looked at."""
        return len(self._buffer)

    @property
    def is_inside_command(self) -> bool:
        """Whether a command has begun and not ended."""
        return bool(self._buffer or self._command) or self._mode is not _Mode.LINE

    def queued_lines(self, most: int) -> int:
        """How many line ends wait, counted up to ``most``."""
        position = count = 0
        while count < most and (position := self._buffer.find(b"\n", position) + 1):
            count += 1
        return count

    def receive_octets(self, data: bytes) -> None:
        """Add what came from the peer."""
        if self._mode is not _Mode.CLOSED:
            self._buffer += data

    def _take(self, count: int) -> bytes:
        """The first ``count`` octets (or all there are) leave the buffer; a buffer that grew is not kept."""
        if count >= len(self._buffer):
            taken = bytes(self._buffer)
            self._buffer = bytearray()
            return taken
        taken = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        return taken

    def drop_all(self) -> int:
        """Forget what is buffered (STARTTLS); how many octets that was."""
        count = len(self._buffer)
        self._buffer = bytearray()
        self._command = b""
        self._scanned = 0
        return count

    def next_event(self) -> ReaderEvent | None:
        """What the octets amount to; None if more are needed."""
        while True:
            match self._mode:
                case _Mode.LINE:
                    return self._read_line()
                case _Mode.LITERAL:
                    if not self._read_literal():
                        return None
                case _Mode.DROP_LINE:
                    event = self._drop_line()
                    if event is not None or self._mode is _Mode.DROP_LINE:
                        return event
                case _Mode.DROP_LITERAL:
                    if not self._drop_literal():
                        return None
                case _:
                    return None

    def _read_line(self) -> ReaderEvent | None:
        buffer = self._buffer
        end = buffer.find(b"\n", self._scanned)
        length = end if end >= 0 else len(buffer)
        if length > self.budget.line or len(self._command) + length > self.budget.command:
            return self._give_up()
        if end < 0:
            self._scanned = length
            return None
        line = self._take(end + 1)
        line = line[:-2] if line.endswith(b"\r\n") else line[:-1]
        self._scanned = 0
        whole = self._command + line if self._command else line
        found = _LITERAL_AT_END.search(line, max(0, len(line) - _COUNT_TAIL)) if line.endswith(b"}") else None
        if found is None:
            self._command = b""
            return CommandRead(whole)
        self._command = whole + b"\r\n"
        self._mode = _Mode.ANNOUNCED
        self._announced = LiteralAnnounced(self._command, int(found.group(2)), not found.group(3), bool(found.group(1)))
        return self._announced

    def _announcement(self) -> LiteralAnnounced:
        announced, self._announced = self._announced, None
        if announced is None:
            raise RuntimeError("no literal was announced")
        return announced

    @property
    def has_announced(self) -> bool:
        """Whether a literal waits to be taken, streamed or refused."""
        return self._announced is not None

    def fits(self, size: int) -> bool:
        """Whether a literal of ``size`` octets is within the budgets."""
        return size <= self.budget.literal and len(self._command) + size <= self.budget.command

    def take_literal(self) -> None:
        """The announced literal becomes part of the command."""
        self._owed = self._announcement().size
        self._mode = _Mode.LITERAL

    def _read_literal(self) -> bool:
        if len(self._buffer) < self._owed:
            return False
        self._command += self._take(self._owed)
        self._mode = _Mode.LINE
        return True

    def stream_literal(self) -> None:
        """The announced literal will be taken out by :meth:`take_slice`; what came before it is done with."""
        self._owed = self._announcement().size
        self._command = b""
        self._mode = _Mode.STREAM if self._owed else _Mode.LINE

    @property
    def streamed_owed(self) -> int:
        """Octets of the streamed literal still to be taken."""
        return self._owed if self._mode is _Mode.STREAM else 0

    def take_slice(self) -> bytes:
        """What is there of the streamed literal."""
        taken = self._take(self._owed)
        self._owed -= len(taken)
        if not self._owed:
            self._mode = _Mode.LINE
        return taken

    def refuse(self) -> bool:
        """The announced literal is not wanted.

        The client does not send a synchronizing literal then, and the command is over. A
        non-synchronizing one is read over with the rest of the command where it is small
        (RFC 7888 section 4); False if the connection has to be closed instead.
        """
        announced = self._announcement()
        self._command = b""
        self._mode = _Mode.LINE
        if announced.is_synchronizing:
            return True
        return self._begin_dropping(announced.size)

    def discard_rest(self) -> None:
        """Read over what is left of a command whose literals were streamed, up to its last CRLF."""
        if self._mode is _Mode.STREAM:
            self._mode = _Mode.DROP_LITERAL
        else:
            self._mode = _Mode.DROP_LINE
        self._dropped = 0

    def _begin_dropping(self, size: int) -> bool:
        self._dropped = size
        if size > self.budget.discard:
            self._close()
            return False
        self._owed = size
        self._mode = _Mode.DROP_LITERAL
        return True

    def _close(self) -> None:
        self._buffer = bytearray()
        self._command = b""
        self._scanned = 0
        self._mode = _Mode.CLOSED

    def _give_up(self) -> ReaderEvent:
        start = self._command[:256] or bytes(self._buffer[:256])
        self._command = b""
        self._dropped = 0
        self._mode = _Mode.DROP_LINE
        return CommandTooBig(start, can_go_on=True)

    def _drop_literal(self) -> bool:
        self._owed -= len(self._take(self._owed))
        if self._owed:
            return False
        self._mode = _Mode.DROP_LINE
        return True

    def _drop_line(self) -> ReaderEvent | None:
        """Read over a line; past the bound, the connection cannot go on."""
        end = self._buffer.find(b"\n", self._scanned)
        if end < 0:
            keep = min(len(self._buffer), _COUNT_TAIL)
            self._dropped += len(self._buffer) - keep
            self._take(len(self._buffer) - keep)
            self._scanned = keep
            if self._dropped > self.budget.discard:
                self._close()
                return CommandTooBig(b"", can_go_on=False)
            return None
        line = self._take(end + 1)[:-1].removesuffix(b"\r")
        self._scanned = 0
        found = _LITERAL_AT_END.search(line, max(0, len(line) - _COUNT_TAIL))
        if found is not None and found.group(3):
            size = int(found.group(2))
            if not self._begin_dropping(self._dropped + size):
                return CommandTooBig(b"", can_go_on=False)
            self._owed = size
            return None
        self._mode = _Mode.LINE
        return None
