"""What commands print: names, replies and header fields that others wrote never steer a terminal.

Controls, C1 ones too (U+009B begins an escape sequence), and characters that reorder or hide text are shown
as such: a replacement character in text, ``\\u009b`` in JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_NOT_ASCII_TEXT = re.compile(r"[^\n -~]")
_UNKNOWN = "unknown"

Command = TypeVar("Command", bound=Callable[..., Any])


def printable(text: str) -> str:
    """One line, without what is none."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _REPLACEMENT for character in text)


def say(text: str, *, err: bool = False) -> None:
    """Print one line."""
    click.echo(printable(text), err=err)


def to_json(value: Any, indent: int | None = None) -> str:
    """``value`` for programs and people: other scripts stay legible."""
    return _NOT_ASCII_TEXT.sub(_escaped, json.dumps(value, indent=indent, ensure_ascii=False))


def json_option(text: str = "As JSON.") -> Callable[[Command], Command]:
    """``--json``, of the commands that programs read; they take it as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def moment(seconds: float) -> str:
    """An instant as people and programs read it (RFC 3339), in UTC; ``unknown`` for what is none."""
    return moment_or_null(seconds) or _UNKNOWN


def moment_or_null(seconds: float | None) -> str | None:
    """The same for JSON."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None


def _escaped(match: re.Match[str]) -> str:
    # Outside of its strings JSON is ASCII.
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]
