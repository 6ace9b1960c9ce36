"""What may stand in regular expressions, for all versions of Python that mailsrv runs on.

Python 3.11.0 to 3.11.4, which Debian 12 has, match wrongly where a possessive or atomic group fails after it has
matched in part: ``(?:ab?c)*+`` takes four octets of ``abca``. Signatures made there were not valid. Single characters
(``[^;]*+``) are right everywhere.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

import pytest

import mailsrv

_ONE_CHARACTER = {_constants.LITERAL, _constants.NOT_LITERAL, _constants.IN, _constants.ANY}


def possessive_bodies(parsed: Any) -> Iterator[Any]:
    """What is repeated possessively, or held together, anywhere in it."""
    for operation, arguments in parsed:
        if operation is _constants.POSSESSIVE_REPEAT:
            yield arguments[2]
        elif operation is _constants.ATOMIC_GROUP:
            yield arguments
        for part in arguments if isinstance(arguments, tuple | list) else [arguments]:
            for each in part if isinstance(part, list) else [part]:
                if isinstance(each, _parser.SubPattern):
                    yield from possessive_bodies(each)


def is_one_character(body: Any) -> bool:
    return len(body) == 1 and body[0][0] in _ONE_CHARACTER


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Those that are made when modules are imported: by rule all there are."""
    for module in pkgutil.walk_packages(mailsrv.__path__, "mailsrv."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, re.Pattern):
                yield f"{module.name}.{name}", value


def test_only_single_characters_are_possessive() -> None:
    found = dict(patterns())
    assert len(found) > 50
    for name, pattern in found.items():
        for body in possessive_bodies(_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)):
            assert is_one_character(body), name


@pytest.mark.parametrize(
    "pattern", [r"(?:ab?c)*+", r"x((?:a|bc)++)", r"(?>ab|c)", r"(?:y|(?=(?:ab)?+))", r"(?(1)a|(?:bc)*+)"]
)
def test_groups_would_be_found(pattern: str) -> None:
    bodies = [*possessive_bodies(_parser.parse("()" + pattern))]
    assert bodies
    assert not all(map(is_one_character, bodies))


def test_single_characters_are_let_be() -> None:
    bodies = [*possessive_bodies(_parser.parse(r"(?:[^;]*+|a++|.?+|[^x]{1,5}+)*"))]
    assert len(bodies) == 4
    assert all(map(is_one_character, bodies))
