"""The manual page of all settings, in reStructuredText, made from the records like the sample."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs

from mailsrv.config.sample import explanation, section_record, sections
from mailsrv.config.schema import Settings
from mailsrv.config.show import default_of, plain
from mailsrv.config.structure import describe, record_fields


def write_reference() -> str:
    """The whole page."""
    return "\n".join(_page())


def _page() -> Iterator[str]:
    yield from _title("Settings", "=")
    yield "Every key of the configuration file. ``mailsrvctl config sample`` writes a file with all of them.\n"
    yield from _title("Top level", "-")
    for key, attribute in record_fields(Settings).items():
        if section_record(attribute) is None:
            yield from _setting(key, attribute)
    for section in sections():
        yield from _title(f"``{section.heading}``", "-")
        yield section.introduction + "\n"
        for name, attribute in section.fields.items():
            yield from _setting(name, attribute)


def _title(text: str, underline: str) -> Iterator[str]:
    yield text
    yield underline * len(text) + "\n"


def _setting(key: str, attribute: attrs.Attribute[Any]) -> Iterator[str]:
    default = default_of(attribute)
    if default is attrs.NOTHING:
        state = "required"
    elif default is None or default in ("", ()):
        state = "not set"
    else:
        state = f"default ``{json.dumps(plain(default), ensure_ascii=False)}``"
    yield f"``{key}`` — {describe(attribute.type)}; {state}"
    # Braces and asterisks are plain text to the reader, markup to the writer.
    text = explanation(attribute).replace("\\", "\\\\").replace("*", "\\*").replace("`", "\\`").replace("|", "\\|")
    yield f"    {text}\n"
