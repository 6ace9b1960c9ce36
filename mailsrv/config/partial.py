"""Records of which only a part can be believed: the rest of the file was wrong there, and said so already.

A partial record is one of its class with some attributes missing; who looks at a missing one gets
:class:`Unsound`. So a rule about several settings need not know which of them are sound: it is asked,
and what it says before it looks at something unsound counts (:func:`where_sound`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

import attrs

T = TypeVar("T")


class Unsound(Exception):
    """What the file says there is not known."""


class _Partial:
    """Marks the classes made here."""

    __slots__ = ()


def partial_record(record_type: type[Any], values: Mapping[str, Any]) -> Any:
    """A record that has these attributes (by their names in Python) and no others. Nothing is checked."""
    record = object.__new__(_partial_type(record_type))
    for name, value in values.items():
        object.__setattr__(record, name, value)
    return record


def _partial_type(record_type: type[Any]) -> type[Any]:
    names = frozenset(attribute.name for attribute in attrs.fields(record_type))

    def refuse(_record: object, name: str) -> NoReturn:
        # Python asks only for what is missing.
        raise Unsound(name) if name in names else AttributeError(name)

    return type(record_type.__name__, (_Partial, record_type), {"__slots__": (), "__getattr__": refuse})


def is_whole(record: object) -> bool:
    """Whether nothing in the record's own table was wrong, nor in tables below it."""
    return not isinstance(record, _Partial)


def where_sound(found: Iterable[T]) -> Iterator[T]:
    """What a generator finds before it looks at something unsound."""
    try:
        yield from found
    except Unsound:
        return


def those(records: Iterable[T], test: Callable[[T], object]) -> Iterator[tuple[int, T]]:
    """The records, with their numbers, of which the test is known to be true."""
    for index, record in enumerate(records):
        try:
            is_one = test(record)
        except Unsound:
            continue
        if is_one:
            yield index, record


def any_sound(records: Iterable[T], test: Callable[[T], object]) -> bool:
    """Whether the test is true of any. Raises :class:`Unsound` where that depends on what is unsound."""
    unsound: Unsound | None = None
    for record in records:
        try:
            if test(record):
                return True
        except Unsound as raised:
            unsound = raised
    if unsound is not None:
        raise unsound
    return False
