"""Settings back as plain tables, for ``mailsrvctl config show``; never a secret."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from typing import Any

import attrs

from mailsrv.config.problems import is_secret
from mailsrv.config.structure import record_fields


def as_table(record: Any, *, only_changed: bool = False) -> dict[str, Any]:
    """A settings record as the TOML table that would make it."""
    table: dict[str, Any] = {}
    for key, attribute in record_fields(type(record)).items():
        value = getattr(record, attribute.name)
        if only_changed and value == default_of(attribute):
            continue
        table[key] = (
            "(hidden)"
            if isinstance(value, str) and value and is_secret(key)
            else plain(value, only_changed=only_changed)
        )
    return table


def plain(value: Any, *, only_changed: bool = False) -> Any:
    """A settings value as TOML or JSON have it."""
    if attrs.has(type(value)):
        return as_table(value, only_changed=only_changed)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [plain(item, only_changed=only_changed) for item in value]
    return value


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
