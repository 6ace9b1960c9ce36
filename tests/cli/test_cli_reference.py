"""The manual's page of commands has all of them, and is made from what they say themselves."""

from __future__ import annotations

import re

from mailsrv.cli.reference import write_commands


def test_every_command_is_there_with_its_options() -> None:
    page = write_commands()
    assert "\nmailsrvctl queue\n----------------\n" in page
    assert "\n``mailsrvctl queue reroute [OPTIONS] [MESSAGE]...``\n    Send mail another way from now on.\n" in page
    assert "\n``mailsrvctl route [OPTIONS] ADDRESS``\n    Explain where mail for ADDRESS goes.\n" in page
    assert "    ``--destination PATTERN``\n        As mx:example.org" in page
    assert all(re.search(r"\n    \S", part) for part in re.split(r"\n``mailsrvctl ", page)[1:])
