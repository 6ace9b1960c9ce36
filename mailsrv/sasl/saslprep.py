"""SASLprep (RFC 4013, a profile of RFC 3454): the one form of a password that several keyboards write differently."""

from __future__ import annotations

import stringprep
import unicodedata

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str) -> str:
    """The prepared string, unassigned code points being tolerated (RFC 3454 7: a query).

    Raises ValueError for what has a prohibited character or mixes directions of writing.
    """
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    # RFC 3454 speaks of Unicode 3.2; its tables are those of the module, and so is the normalization.
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if any(is_prohibited(character) for character in prepared for is_prohibited in _PROHIBITED):
        raise ValueError("prohibited character")
    _check_direction(prepared)
    return prepared


def prepare_password(password: str) -> bytes:
    """A password as SCRAM takes it: prepared where that is possible, else as it is (what most clients do)."""
    try:
        prepared = saslprep(password)
    except ValueError:
        prepared = ""
    return (prepared or password).encode("utf-8")


def _check_direction(text: str) -> None:
    """RFC 3454 6."""
    if not any(stringprep.in_table_d1(character) for character in text):
        return
    if any(stringprep.in_table_d2(character) for character in text):
        raise ValueError("directions are mixed")
    if not (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])):
        raise ValueError("right-to-left text has to begin and end so")
