"""What is wrong with a configuration file: all of it at once, and what would be right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, time

from attrs import frozen

# Of unknown keys, too: bind_pw, passphrase.
_SECRET = re.compile(r"pass|pw|secret|token|credential", re.IGNORECASE)
_SHOWN_LENGTH = 60


@frozen
class Problem:
    """One mistake: where it is (``listen[1].endpoint``; "" for the file), what stands there, and what is expected."""

    key: str
    expected: str
    found: str = ""
    """How the value reads in the file; "" where there is none."""

    def __str__(self) -> str:
        place = f"{self.key} = {self.found}" if self.found else self.key
        return f"{place}: {self.expected}" if place else self.expected


class ConfigurationError(Exception):
    """The file cannot be used. Nothing of it was."""

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__(file)

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [f"{self.file}: {problem}" for problem in self.problems]
        if count > 1:
            lines.append(f"{count} mistakes in {self.file}")
        return "\n".join(lines)


def is_secret(key: str) -> bool:
    """Whether the name of a setting says that its value is nobody's business."""
    name = key.rpartition(".")[2]
    # Where a password is (a file, an attribute in a directory) is none.
    return bool(_SECRET.search(name)) and not name.endswith(("_path", "_file", "_attribute"))


def show_value(key: str, value: object) -> str:
    """A value as TOML would write it, cut to a readable length; never a secret."""
    if is_secret(key) and not isinstance(value, dict):
        return "(hidden)"
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str):
        text = '"' + value.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
    elif isinstance(value, dict):
        text = "{…}"
    elif isinstance(value, tuple | list):
        text = "[" + ", ".join(show_value(key, each) for each in value) + "]"
    elif isinstance(value, date | time):
        text = value.isoformat()
    else:
        text = repr(value)
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 1] + "…"


def shown(value: object) -> str:
    """:func:`show_value` of what is no secret, whatever its key."""
    return show_value("", value)
