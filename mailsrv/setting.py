"""One adjustable value of a settings record: its default, what it means, and what it may be.

The records of all folders are made of these; the sample configuration, the reference page and the checks of a
configuration file are made from the records::

    @frozen
    class PauseSettings:
        pause_seconds: float = setting(2.0, "How long the answer to a mistake is delayed.", unit="s", at_least=0)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from attrs import Attribute, field, validators

T = TypeVar("T")
Check = Callable[[Any, "Attribute[Any]", Any], Any]


def setting(
    default: T,
    explanation: str,
    *,
    unit: str = "",
    example: object = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    check: Check | list[Check] | None = None,
) -> T:
    """A field of an attrs class.

    ``explanation`` is one or two sentences for the administrator; ``unit`` is shown with the default, ``example`` where
    the default says little. ``check`` raises ValueError with what would be right, as attrs' validators do.
    """
    limits = (
        (validators.ge, at_least),
        (validators.gt, above),
        (validators.le, at_most),
        (validators.lt, below),
    )
    checks: list[Any] = [make(limit) for make, limit in limits if limit is not None]
    checks += _listed(check)
    made: Any = field(default=default, validator=checks or None, metadata=_metadata(explanation, unit, example))
    value: T = made
    return value


def required(
    explanation: str,
    *,
    example: object = None,
    check: Check | list[Check] | None = None,
    converter: Callable[[Any], Any] | None = None,
) -> Any:
    """A field that has to be set: there is no default."""
    return field(validator=_listed(check) or None, converter=converter, metadata=_metadata(explanation, "", example))


def _listed(check: Check | list[Check] | None) -> list[Any]:
    if check is None:
        return []
    return check if isinstance(check, list) else [check]


def _metadata(explanation: str, unit: str, example: object) -> dict[str, object]:
    """What :mod:`mailsrv.config.sample` shows."""
    metadata: dict[str, object] = {"help": explanation}
    if unit:
        metadata["unit"] = unit
    if example is not None:
        metadata["example"] = example
    return metadata
