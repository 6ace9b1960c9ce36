"""The five-minute filter of docs/filters.rst works as it is printed there."""

import sys
import textwrap
import types
from pathlib import Path

from mailsrv.filters.pipeline import PERMITTED
from mailsrv.interfaces.filter import Phase

MANUAL = (Path(__file__).parents[2] / "docs" / "filters.rst").read_text(encoding="utf-8")


def blocks():
    for part in MANUAL.split(".. code-block:: python\n\n")[1:]:
        lines = part.splitlines()
        end = next((n for n, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
        yield textwrap.dedent("\n".join(lines[:end]))


def test_the_printed_filter_and_its_printed_test(monkeypatch):
    printed_filter, printed_test, *_ = blocks()
    module = types.ModuleType("our_filters")
    exec(printed_filter, module.__dict__)
    monkeypatch.setitem(sys.modules, "our_filters", module)
    names: dict = {}
    exec(printed_test, names)
    names["test_strangers_cannot_write_to_staff"]()


def test_the_table_of_verdicts_is_that_of_the_pipeline():
    for phase in Phase:
        (row,) = [line for line in MANUAL.splitlines() if line.startswith(f"``{phase.value}``  ")]
        assert row.split("  ")[-1].strip() == ", ".join(verdict.__name__ for verdict in PERMITTED[phase]), phase
