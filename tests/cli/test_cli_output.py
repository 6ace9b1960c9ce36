"""What commands print in one way: instants, and text that others wrote."""

from __future__ import annotations

import json
import math

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.cli.output import json_option, moment, moment_or_null, printable, to_json


def test_an_instant_is_told_in_utc():
    assert moment(1_700_000_000.9) == moment_or_null(1_700_000_000.9) == "2023-11-14T22:13:20+00:00"


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, 1e300, -1e300])
def test_what_is_no_instant_is_unknown(seconds):
    assert moment(seconds) == "unknown"
    assert moment_or_null(seconds) is None
    assert moment_or_null(None) is None


@given(st.floats())
def test_any_number_is_told(seconds):
    assert moment_or_null(seconds) in (moment(seconds), None)


@given(st.text())
def test_text_of_others_steers_no_terminal_and_json_loses_nothing(text):
    assert printable(text).isprintable()
    written = to_json({"x": [text]}, indent=2)
    assert all(character.isprintable() or character == "\n" for character in written)
    assert json.loads(written) == {"x": [text]}


def test_json_is_asked_for_in_one_way():
    @click.command()
    @json_option()
    def command(as_json: bool) -> None:
        click.echo(as_json)

    assert CliRunner().invoke(command, ["--json"]).output == "True\n"
    assert CliRunner().invoke(command, []).output == "False\n"
