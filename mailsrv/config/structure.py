"""Turn a TOML table into a frozen attrs record, noting every mistake on the way.

A table with mistakes becomes a partial record (:mod:`mailsrv.config.partial`) of what is sound in it.

Understands exactly the field types settings records may have: ``str``, ``int``, ``float``,
``bool``, string enums, tuples of these, ``X | None``, mappings (free tables), nested records and
tuples of records. Nothing is converted silently: a number in quotes is a mistake.

Field metadata that is used here: ``key`` (the name in the file, where it differs from the
attribute's), ``path`` (the text is a file-system path and starts at the file's folder).
"""

from __future__ import annotations

import difflib
import enum
import os.path
import re
import types
from collections.abc import Collection, Mapping
from typing import Any, Union, get_args, get_origin

import attrs

from mailsrv.config.partial import partial_record
from mailsrv.config.problems import Problem, show_value

_ATTRS_REFUSAL = re.compile(r"'\w+' must be ([<>]=? [^:]+): .*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_UNSOUND: Any = object()
_LIMIT = 2**63
"""Up to which TOML promises whole numbers."""
_LIKENESS = 0.6
"""From which on one name may be a misspelling of another."""
_PATH_NAMES = frozenset({"path", "certificate", "key", "state_dir"})
_PATH_ENDINGS = ("_path", "_file", "_folder", "_dir", "_directory")


class Structurer:
    """Builds records from tables; ``problems`` grows with each mistake."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.problems: list[Problem] = []

    def record(self, record_type: type[Any], table: object, key: str) -> Any:
        """The record; a partial one if anything in ``table`` was wrong."""
        if not isinstance(table, Mapping):
            self._wrong(key, table, f"expected a table, {_header(key)}")
            return partial_record(record_type, {})
        attributes = record_fields(record_type)
        before = len(self.problems)
        values = self._values(attributes, table, key)
        if len(self.problems) > before:
            return partial_record(record_type, {attributes[name].name: value for name, value in values.items()})
        try:
            return record_type(**{_argument(attributes[name]): value for name, value in values.items()})
        except (ValueError, TypeError) as refusal:
            self.problems.append(Problem(key, str(refusal.args[0]) if refusal.args else "not accepted"))
            return partial_record(record_type, {})

    def _values(
        self, attributes: Mapping[str, attrs.Attribute[Any]], table: Mapping[str, object], key: str
    ) -> dict[str, Any]:
        """What is sound, of what stands there and of what is left to its default."""
        values: dict[str, Any] = {}
        for name, value in table.items():
            attribute = attributes.get(name)
            place = _join(key, name)
            if attribute is None:
                self._wrong(place, value, _unknown(name, attributes))
                continue
            before = len(self.problems)
            taken = self._value(attribute, value, place)
            if len(self.problems) > before:
                # Of records in it some part is sound.
                if taken is not _UNSOUND:
                    values[name] = taken
            elif self._is_valid(attribute, taken, place):
                values[name] = taken
        doubtful = _perhaps_meant(table, attributes, is_top=not key)
        for name, attribute in attributes.items():
            if name not in table:
                taken = self._default(attribute, _join(key, name))
                if taken is not _UNSOUND and name not in doubtful:
                    values[name] = taken
        return values

    def _default(self, attribute: attrs.Attribute[Any], key: str) -> Any:
        if attribute.type is not None and attrs.has(attribute.type):
            # Paths in its defaults have to be resolved like written ones.
            return self.record(attribute.type, {}, key)
        default: Any = attribute.default
        if default is attrs.NOTHING:
            self.problems.append(Problem(key, f"missing; expected {describe(attribute.type)}"))
            return _UNSOUND
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            return default.factory()
        return resolve_path(default, self.folder) if is_path(attribute) else default

    def _is_valid(self, attribute: attrs.Attribute[Any], value: object, key: str) -> bool:
        """Ask each field's own validator, so that all their refusals are told, not the first."""
        if attribute.validator is None:
            return True
        try:
            attribute.validator(None, attribute, value)
        except (ValueError, TypeError) as refusal:
            text = str(refusal.args[0]) if refusal.args else "not accepted"
            # attrs says "'workers' must be >= 1: 0"; key and value stand before it here.
            said = _ATTRS_REFUSAL.fullmatch(text)
            self._wrong(key, value, f"expected a number {said[1]}" if said else text)
            return False
        return True

    def _value(self, attribute: attrs.Attribute[Any], value: object, key: str) -> Any:
        result = self.convert(attribute.type, value, key)
        if is_path(attribute):
            return resolve_path(result, self.folder)
        return result

    def convert(self, expected: Any, value: object, key: str) -> Any:
        """``value`` as ``expected``; a mistake is noted, and answered with a partial record or ``_UNSOUND``."""
        if get_origin(expected) in (Union, types.UnionType):
            inner = [choice for choice in get_args(expected) if choice is not type(None)]
            return self.convert(inner[0], value, key)
        if get_origin(expected) is tuple:
            return self._sequence(get_args(expected)[0], value, key)
        if get_origin(expected) in (dict, Mapping):
            return self._free_table(value, key)
        if attrs.has(expected):
            return self.record(expected, value, key)
        if issubclass(expected, enum.Enum):
            return self._choice(expected, value, key)
        # bool is a subclass of int: true must not pass for 1.
        if expected in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
            # Neither nan nor infinity is below.
            if not abs(value) < _LIMIT:
                return self._wrong(key, value, "expected a finite number below 2^63")
            if expected is float:
                return float(value)
        if isinstance(value, expected) and isinstance(value, bool) == (expected is bool):
            return value
        return self._wrong(key, value, f"expected {describe(expected)}")

    def _sequence(self, item_type: Any, value: object, key: str) -> Any:
        if not isinstance(value, list):
            header = f", each under {_header(f'{key}[]')}" if attrs.has(item_type) else ""
            return self._wrong(key, value, f"expected {describe(tuple[item_type, ...])}{header}")
        items = tuple(self.convert(item_type, item, f"{key}[{index}]") for index, item in enumerate(value))
        return _UNSOUND if any(item is _UNSOUND for item in items) else items

    def _choice(self, choices: type[enum.Enum], value: object, key: str) -> Any:
        for choice in choices:
            if choice.value == value and isinstance(value, str):
                return choice
        # All of them are listed: only a misspelling is worth more words.
        hint = _did_you_mean(value, [choice.value for choice in choices], likeness=0.8)
        return self._wrong(key, value, f"expected {describe(choices)}{hint}")

    def _free_table(self, value: object, key: str) -> Any:
        if not isinstance(value, Mapping):
            return self._wrong(key, value, "expected a table")
        return dict(value)

    def _wrong(self, key: str, value: object, expected: str) -> Any:
        self.problems.append(Problem(key, expected, show_value(key, value)))
        return _UNSOUND


def record_fields(record_type: type[Any]) -> dict[str, attrs.Attribute[Any]]:
    """The fields of a settings record under the names they have in the file, with real types."""
    attrs.resolve_types(record_type)
    return {
        file_key(attribute): attribute
        for attribute in attrs.fields(record_type)
        if attribute.init and not attribute.metadata.get("internal")
    }


def _argument(attribute: attrs.Attribute[Any]) -> str:
    return attribute.alias or attribute.name


def file_key(attribute: attrs.Attribute[Any]) -> str:
    """What the field is called in the file."""
    return str(attribute.metadata.get("key", attribute.name))


def is_path(attribute: attrs.Attribute[Any]) -> bool:
    """Whether the field holds a file-system path: its metadata says so, or its name does."""
    stated = attribute.metadata.get("path")
    if stated is not None:
        return bool(stated)
    return attribute.name in _PATH_NAMES or attribute.name.endswith(_PATH_ENDINGS)


def resolve_path(value: Any, folder: str) -> Any:
    """A relative path starts at the folder of the file it is written in; an empty one says "none"."""
    if isinstance(value, str) and value:
        return os.path.normpath(os.path.join(folder, value))
    if isinstance(value, tuple):
        return tuple(resolve_path(item, folder) for item in value)
    return value


def describe(expected: Any) -> str:
    """A type in an administrator's words."""
    if get_origin(expected) in (Union, types.UnionType):
        return describe(next(choice for choice in get_args(expected) if choice is not type(None)))
    if get_origin(expected) is tuple:
        item = get_args(expected)[0]
        return "an array of tables" if attrs.has(item) else f"a list, each item {describe(item)}"
    if get_origin(expected) in (dict, Mapping) or attrs.has(expected):
        return "a table"
    if isinstance(expected, type) and issubclass(expected, enum.Enum):
        return "one of " + ", ".join(f'"{choice.value}"' for choice in expected)
    return {str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false"}[expected]


def _header(key: str) -> str:
    """``[server]`` or ``[[listen]]``: how the table of this key begins in a file."""
    name, bracket, _ = key.partition("[")
    return f"[[{name}]]" if bracket else f"[{key}]"


def _join(key: str, name: str) -> str:
    if not _BARE_KEY.fullmatch(name):
        name = show_value("", name)
    return f"{key}.{name}" if key else name


def _unknown(name: str, known: Collection[str]) -> str:
    hint = _did_you_mean(name, known)
    return f"unknown key{hint or '; known here: ' + ', '.join(sorted(known))}"


def _perhaps_meant(table: Collection[str], known: Collection[str], *, is_top: bool) -> Collection[str]:
    """Keys that are not in the table, and whose values unknown keys of it may have been meant for.

    In a section that may be any where none has a similar name; among sections there are too many others.
    """
    left = [name for name in known if name not in table]
    meant: set[str] = set()
    for name in table:
        if name not in known:
            close = difflib.get_close_matches(name, left, n=max(1, len(left)), cutoff=_LIKENESS)
            meant.update(close or ([] if is_top else left))
    return meant


def _did_you_mean(value: object, known: Collection[str], likeness: float = _LIKENESS) -> str:
    close = difflib.get_close_matches(value, known, n=1, cutoff=likeness) if isinstance(value, str) else []
    return f'; did you mean "{close[0]}"?' if close else ""
