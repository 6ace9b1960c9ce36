"""The page of limits tells the truth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest

from mailsrv.config.schema import Settings
from mailsrv.config.show import default_of
from mailsrv.config.structure import record_fields
from mailsrv.message.settings import DEFAULT_LIMITS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "limits.rst").read_text()
ROWS = re.findall(r"^   \* - ``([\w.]+)\.(\w+)``\n     - (.+)$", PAGE, re.MULTILINE)


def test_there_are_rows() -> None:
    assert len(ROWS) == PAGE.count("   * - ``")


@pytest.mark.parametrize(("section", "key", "told"), ROWS)
def test_a_row_tells_the_default(section: str, key: str, told: str) -> None:
    record: Any = Settings
    for name in section.split("."):
        record = record_fields(record)[name].type
        # An array of tables.
        record = get_args(record)[0] if get_origin(record) is tuple else record
    default = default_of(record_fields(record)[key])
    assert ("not set" if default is None else str(default)) == told


def test_what_is_looked_at() -> None:
    for number in (
        DEFAULT_LIMITS.nesting,
        f"{DEFAULT_LIMITS.parts:,}",
        f"{DEFAULT_LIMITS.header_octets // 1024} KiB",
        f"{DEFAULT_LIMITS.addresses:,}",
    ):
        assert re.search(rf"\b{number}\b", PAGE)
