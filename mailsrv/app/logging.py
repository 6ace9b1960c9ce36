"""The log: one observer for twisted.logger's events, as lines for humans or as JSON, to a stream or a file.

A log file is opened for appending, line by line, so that several workers may share it, and opened
anew on request (SIGHUP, SIGUSR1), so that logrotate can move it away. JSON lines carry every plain
field of an event. What a field's name marks as a secret is replaced, whatever put it there.
"""

from __future__ import annotations

import functools
import io
import json
import os
import re
import string
import sys
import traceback
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from attrs import define, field
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    formatEvent,
)
from zope.interface import implementer

from mailsrv.app.settings import LogFormat, LogLevelName, LogSettings

_SECRET_NAME = re.compile(r"passw|secret|credential|token", re.IGNORECASE)
_HIDDEN = "(hidden)"
_MAX_FIELD_CHARACTERS = 4096
# What a line already says in its own words, or what is of no use outside the process.
_INTERNAL_FIELDS = frozenset(
    {"log_format", "log_logger", "log_level", "log_time", "log_namespace", "log_source", "log_failure", "log_system"}
    | {"format", "time", "message", "isError", "system", "why", "failure", "logLevel", "log_flattened", "log_text"}
)
_encode = json.JSONEncoder(ensure_ascii=False, default=str, separators=(",", ":")).encode
_quote: Callable[[str], str] = json.encoder.encode_basestring
_HIDDEN_TEXT = _quote(_HIDDEN)
_ESCAPES = {code: f"\\x{code:02x}" for code in [*range(32), *range(127, 160)] if code not in (9,)}
# Lone surrogates stand for octets of file names that are no UTF-8: no stream takes them.
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in [*range(127, 160), 0x2028, 0x2029, *range(0xD800, 0xE000)]}


class ReopeningFile:
    """A file that is appended to and can be opened anew under the same name.

    If opening anew fails, the old file stays in use and the reason goes into it.
    """

    def __init__(self, path: str, owner: tuple[int, int] | None = None) -> None:
        self.path = path
        self._owner = owner
        self._descriptor = self._open()

    def _open(self) -> int:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if self._owner is not None and os.geteuid() == 0:
            # Made by root, before the user id changes: the server's user has to write on and reopen it.
            os.fchown(descriptor, *self._owner)
        return descriptor

    def write(self, text: str) -> None:
        """One ``write`` for a whole line keeps lines of several processes apart."""
        os.write(self._descriptor, text.encode("utf-8", "backslashreplace"))

    def reopen(self) -> None:
        """Write to a file of our name from now on, the old one having been moved away."""
        try:
            descriptor = self._open()
        except OSError as error:
            self.write(f"the log file cannot be opened again, staying with the old one: {error}\n")
            return
        previous, self._descriptor = self._descriptor, descriptor
        os.close(previous)


@define
class StreamTarget:
    """Standard output or error; nothing to open anew."""

    stream: TextIO = field(repr=False)

    def write(self, text: str) -> None:
        try:
            self.stream.write(text if text.isascii() else self._encodable(text))
            self.stream.flush()
        except (OSError, ValueError):
            # Nobody reads it any more (a closed terminal): that is no reason to stop serving mail.
            return

    def _encodable(self, text: str) -> str:
        """What the stream's encoding does not have is written as an escape: the line must not be lost for it."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def reopen(self) -> None:
        """Streams stay."""


Target = ReopeningFile | StreamTarget


@implementer(ILogObserver)
class LogWriter:
    """Writes events that are serious enough to one target."""

    def __init__(self, target: Target, *, as_json: bool, level: LogLevelName, worker: str = "") -> None:
        self.target = target
        self.worker = worker
        self._format: Callable[[LogEvent, str], str] = json_line if as_json else text_line
        self._predicate = LogLevelFilterPredicate()
        # "TCP Port 25 Closed" and the like: what we listen at is logged in our own words.
        self._predicate.setLogLevelForNamespace("log_legacy", LogLevel.warn)
        # Namespaces are few; asking the predicate anew costs as much as a short line.
        self._is_wanted = functools.lru_cache(maxsize=1024)(self._ask_predicate)
        self.set_level(level)

    def set_level(self, level: LogLevelName) -> None:
        """Change the least serious level; takes effect with the next event."""
        self._predicate.setLogLevelForNamespace("", LogLevel.levelWithName(level.value))
        self._is_wanted.cache_clear()

    def _ask_predicate(self, level: Hashable, namespace: Hashable) -> bool:
        return self._predicate({"log_level": level, "log_namespace": namespace}) is not PredicateResult.no

    def __call__(self, event: LogEvent) -> None:
        if self._is_wanted(event.get("log_level"), event.get("log_namespace", "")):
            self.target.write(self._format(event, self.worker))


def make_log_writer(
    settings: LogSettings,
    *,
    path: str = "",
    owner: tuple[int, int] | None = None,
    worker: str = "",
    stream: TextIO | None = None,
) -> LogWriter:
    """The observer that ``[log]`` asks for. ``path`` is the file to use; empty means ``stream``."""
    target: Target
    if path:
        target = ReopeningFile(path, owner)
        is_terminal = False
    else:
        target = StreamTarget(stream or sys.stdout)
        is_terminal = target.stream.isatty()
    as_json = settings.format is LogFormat.JSON or (settings.format is LogFormat.AUTO and not is_terminal)
    return LogWriter(target, as_json=as_json, level=settings.level, worker=worker)


def text_line(event: LogEvent, worker: str) -> str:
    """``2026-01-31T12:00:00.123Z info smtp.session: text``, tracebacks indented below."""
    moment = _moment(event)
    place = _namespace(event) + (f"[{worker}]" if worker else "")
    level = _level(event)
    mark = "" if level == "info" else f"{level.upper()} "
    return f"{moment} {place}: {mark}{_escaped(_text(event))}\n" + _indented(_traceback(event))


def json_line(event: LogEvent, worker: str) -> str:
    """One JSON object: ``time``, ``level``, ``source``, ``text`` and the event's own plain fields.

    Put together here: an encoder made for each line, and the table it wants, cost more than the values.
    """
    own, secret = _own_fields(tuple(event))
    pieces = [
        f'{{"time":"{_moment(event)}","level":"{_level(event)}","source":{_quoted_namespace(event)}'
        f'{_labelled_worker(worker)},"text":{_quote(_text(event))}'
    ]
    for name, label in own:
        pieces += (label, _encoded(event[name]))
    for _, label in secret:
        pieces += (label, _HIDDEN_TEXT)
    trace = _traceback(event)
    if trace:
        pieces += (',"traceback":', _quote(trace))
    pieces.append("}\n")
    line = "".join(pieces)
    # JSON itself escapes only the controls of ASCII; a terminal takes others for commands too.
    return line if line.isascii() else line.translate(_JSON_ESCAPES)


_Labels = tuple[tuple[str, str], ...]
"""Names of fields, each with what stands in front of its value."""
_TAKEN_NAMES = frozenset({"time", "level", "source", "worker", "text", "traceback"})


@functools.lru_cache(maxsize=1024)
def _own_fields(names: tuple[str, ...]) -> tuple[_Labels, _Labels]:
    """Of the fields of an event: those that are its own and can be shown, and those that are secrets."""
    own = [(name, f",{_quote(name)}:") for name in names if name not in _INTERNAL_FIELDS and name not in _TAKEN_NAMES]
    secret = tuple(each for each in own if _is_secret(each[0]))
    return tuple(each for each in own if each not in secret), secret


@functools.lru_cache(maxsize=8)
def _labelled_worker(worker: str) -> str:
    return f',"worker":{_quote(worker)}' if worker else ""


def _encoded(value: Any) -> str:
    kind = value.__class__
    if kind is str and len(value) <= _MAX_FIELD_CHARACTERS:
        return _quote(value)
    if kind is int:
        return repr(value)
    if kind is list or kind is tuple:
        return f"[{','.join([_encoded(item) for item in value])}]" if value else "[]"
    if kind is bool:
        return "true" if value else "false"
    return _encode(_plain(value))


def redacted(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event with the values of secret-sounding fields replaced."""
    return {name: _HIDDEN if _is_secret(name) else value for name, value in event.items()}


@functools.lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


@functools.lru_cache(maxsize=1024)
def _pieces(text: str) -> tuple[tuple[str, str | None], ...] | None:
    """A format as (literal, field name) pairs; None where it holds more than plain ``{name}`` fields."""
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError:
        return None
    if any(name is not None and (not name.isidentifier() or spec or how) for _, name, spec, how in parsed):
        return None
    return tuple((literal, name) for literal, name, _, _ in parsed)


def _text(event: LogEvent) -> str:
    if _own_fields(tuple(event))[1]:
        event = redacted(event)
    # The way through Twisted's formatter costs as much as the rest of a mail transaction.
    text = event.get("log_format")
    pieces = _pieces(text) if isinstance(text, str) and "log_flattened" not in event else None
    if pieces is None:
        return formatEvent(event) or ""
    try:
        return "".join([literal if name is None else f"{literal}{event[name]}" for literal, name in pieces])
    except Exception:
        # A field that is missing or cannot be shown: Twisted's formatter says so in the text.
        return formatEvent(event) or ""


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        text = value
    elif value is None or isinstance(value, (bool, int, float)):
        return value
    elif isinstance(value, bytes):
        text = value.decode("utf-8", "backslashreplace")
    elif isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    else:
        text = str(value)
    return text if len(text) <= _MAX_FIELD_CHARACTERS else text[:_MAX_FIELD_CHARACTERS] + "…"


def _moment(event: LogEvent) -> str:
    seconds: float = event.get("log_time", 0.0)
    milliseconds = int(seconds * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@functools.lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _level(event: LogEvent) -> str:
    level = event.get("log_level")
    return level.name if level is not None else "info"


def _namespace(event: LogEvent) -> str:
    namespace = str(event.get("log_namespace", "-"))
    return namespace.removeprefix("mailsrv.")


def _quoted_namespace(event: LogEvent) -> str:
    return _quoted_source(str(event.get("log_namespace", "-")))


@functools.lru_cache(maxsize=1024)
def _quoted_source(namespace: str) -> str:
    return _quote(namespace.removeprefix("mailsrv."))


def _escaped(text: str) -> str:
    """Control characters made visible: a peer cannot forge a line or drive the terminal."""
    return text.translate(_ESCAPES)


def _traceback(event: LogEvent) -> str:
    failure = event.get("log_failure")
    if failure is None:
        return ""
    try:
        written: str = failure.getTraceback()
    except Exception:
        # A failure that cannot print itself must not silence the log.
        out = io.StringIO()
        traceback.print_exception(failure.type, failure.value, None, file=out)
        written = out.getvalue()
    return written.rstrip("\n")


def _indented(text: str) -> str:
    return "".join(f"    {_escaped(line)}\n" for line in text.splitlines())
