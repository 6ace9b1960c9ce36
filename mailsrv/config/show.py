"""Settings back as plain tables, for ``mailsrvctl config show``; never a secret."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from typing import Any

import attrs

from mailsrv.config.problems import is_secret
from mailsrv.config.structure import is_path, record_fields, resolve_path


def as_table(record: Any, *, unlike_defaults_in: str | None = None) -> dict[str, Any]:
    """A settings record as the TOML table that would make it.

    With ``unlike_defaults_in``, the folder of the file, only what a file there has to say.
    """
    table: dict[str, Any] = {}
    for key, attribute in record_fields(type(record)).items():
        value = getattr(record, attribute.name)
        if unlike_defaults_in is not None and value == default_in(unlike_defaults_in, attribute):
            continue
        hidden = isinstance(value, str) and value and is_secret(key)
        shown = "(hidden)" if hidden else plain(value, unlike_defaults_in=unlike_defaults_in)
        # A section that was unlike its default in its paths alone.
        if shown != {} or unlike_defaults_in is None:
            table[key] = shown
    return table


def plain(value: Any, *, unlike_defaults_in: str | None = None) -> Any:
    """A settings value as TOML or JSON have it."""
    if attrs.has(type(value)):
        return as_table(value, unlike_defaults_in=unlike_defaults_in)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [plain(item, unlike_defaults_in=unlike_defaults_in) for item in value]
    return value


def default_in(folder: str, attribute: attrs.Attribute[Any]) -> Any:
    """:func:`default_of` as it reads in a file of this folder, where relative paths start."""
    default = default_of(attribute)
    return resolve_path(default, folder) if is_path(attribute) else default


def default_of(attribute: attrs.Attribute[Any]) -> Any:
    """The value a field has when the file says nothing; ``attrs.NOTHING`` if it must."""
    default: Any = attribute.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        return default.factory()
    return default


def flatten(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """``("listen[0].service", '"mx"')`` and so on."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from flatten(value, f"{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for index, item in enumerate(value):
                yield from flatten(item, f"{name}[{index}].")
        else:
            yield name, json.dumps(value)
