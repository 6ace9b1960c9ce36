"""What the manual tells to type, line by line."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def section(page: str, title: str) -> list[str]:
    """The literal blocks of a section of a page of the manual, in their order."""
    text = (ROOT / "docs" / page).read_text()
    _, found, rest = text.partition(f"\n{title}\n{'-' * len(title)}\n")
    assert found, f"{page} has no section {title!r}"
    inside = re.split(r"\n[^\n]+\n-{4,}\n", rest)[0]
    return [textwrap.dedent(match[1]).strip("\n") for match in re.finditer(r"::\n\n((?:   .*\n|\n)+)", inside)]
