"""docs/rfc-index.txt and the code agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INDEX = (ROOT / "docs" / "rfc-index.txt").read_text()
LINE = re.compile(r"  (?P<number>\d{4})  (?P<title>\S.*?\S) {2,}(?P<state>whole|part|no)(?: {2,}(?P<rest>\S.*))?")
# Named for one number or one sentence of theirs; nothing of them is implemented.
MENTIONED = {
    "1035",
    "1123",
    "2307",
    "3454",
    "4512",
    "4517",
    "4518",
    "5020",
    "5248",
    "5280",
    "5598",
    "5802",
    "7518",
    "7525",
    "7797",
    "8037",
    "8098",
    "8264",
    "8693",
    "8705",
    "9260",
    "9449",
}

ENTRIES = [line for line in INDEX.splitlines() if line.startswith("  ")]


def _parse(line: str) -> re.Match[str]:
    match = LINE.fullmatch(line)
    assert match is not None, line
    return match


@pytest.mark.parametrize("line", ENTRIES, ids=[entry[2:6] for entry in ENTRIES])
def test_an_entry_names_places_that_exist(line: str) -> None:
    entry = _parse(line)
    if entry["state"] == "no":
        return
    places = re.findall(r"[\w/]+(?:/|\.py)(?=[\s,]|$)", entry["rest"] or "")
    assert places, line
    for place in places:
        assert (ROOT / "mailsrv" / place).exists(), place


def test_no_rfc_stands_there_twice() -> None:
    numbers = [_parse(line)["number"] for line in ENTRIES]
    assert sorted(set(numbers)) == sorted(numbers)


def test_every_rfc_the_code_names_is_there() -> None:
    named: set[str] = set()
    for path in (ROOT / "mailsrv").rglob("*.py"):
        named.update(re.findall(r"RFC (\d{4})", path.read_text()))
    assert named - {_parse(line)["number"] for line in ENTRIES} - MENTIONED == set()


def test_every_capability_is_of_an_rfc_that_is_there() -> None:
    text = (ROOT / "mailsrv" / "imap" / "capability.py").read_text()
    states = {_parse(line)["number"]: _parse(line)["state"] for line in ENTRIES}
    for name, number in re.findall(r'b"([\w=+-]+)",  # RFC (\d+)', text):
        assert states[number] in {"whole", "part"}, name
