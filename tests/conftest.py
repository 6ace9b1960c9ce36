"""For all tests."""

from __future__ import annotations

import pytest

_LONGEST_ID = 30


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Long values (and fresh hashes among them) are numbered, not spelt out: names stay readable and the same
    in every process of ``pytest -n``.
    """
    return argname if isinstance(val, str | bytes) and len(val) > _LONGEST_ID else None
