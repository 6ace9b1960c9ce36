"""What commands print: names, replies and header fields that others wrote never steer a terminal.

Controls, C1 ones too (U+009B begins an escape sequence), and characters that reorder or hide text are shown
as such: a replacement character in text, ``\\u009b`` in JSON.
"""

from __future__ import annotations

import json
import re
from typing import Any

import click

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_NOT_ASCII_TEXT = re.compile(r"[^\n -~]")


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


def _escaped(match: re.Match[str]) -> str:
    # Outside of its strings JSON is ASCII.
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]
