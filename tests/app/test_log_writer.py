"""What the log says, what it hides, and that nobody can forge a line."""

from __future__ import annotations

import io
import json

import pytest
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure

from mailsrv.app.logging import StreamTarget, make_log_writer
from mailsrv.app.settings import LogFormat, LogLevelName, LogSettings


def writer(tmp_path, format_=LogFormat.JSON, level=LogLevelName.INFO):
    path = tmp_path / "log"
    log_writer = make_log_writer(LogSettings(format=format_, level=level), path=str(path), worker="2")
    publisher = LogPublisher(log_writer)
    return Logger(namespace="mailsrv.smtp.session", observer=publisher), path, log_writer


def test_json_lines_carry_the_event(tmp_path):
    log, path, _ = writer(tmp_path)
    log.warn("{client} was refused", client="192.0.2.1", octets=b"\xff\x00", count=3, flags=("a", "b"), nothing=None)
    line = json.loads(path.read_text())
    assert line["text"] == "192.0.2.1 was refused"
    assert line["source"] == "smtp.session"
    assert line["worker"] == "2"
    assert line["level"] == "warn"
    assert line["count"] == 3
    assert line["flags"] == ["a", "b"]
    assert line["octets"] == "\\xff\x00"
    assert line["time"].endswith("Z")


def test_text_lines_are_for_humans_and_cannot_be_forged(tmp_path):
    log, path, _ = writer(tmp_path, LogFormat.TEXT)
    log.info("HELO {name}", name="evil\r\n2026-01-01 forged\x1b[31m")
    log.error("broken")
    lines = path.read_text().split("\n")
    assert len(lines) == 3
    assert "smtp.session[2]: HELO evil\\x0d\\x0a2026-01-01 forged\\x1b[31m" in lines[0]
    assert "ERROR broken" in lines[1]


NASTY = "a\x9b31m\x7f\u2028\udcff\u00e4\n"


@pytest.mark.parametrize("format_", [LogFormat.JSON, LogFormat.TEXT])
def test_no_line_steers_a_terminal_or_is_lost_for_what_it_holds(tmp_path, format_):
    log, path, _ = writer(tmp_path, format_)
    log.info("file {name}", name=NASTY)
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    to_stream = make_log_writer(LogSettings(format=format_), stream=stream)
    Logger(namespace="x", observer=LogPublisher(to_stream)).info("file {name}", name=NASTY)
    for octets in (path.read_bytes(), stream.buffer.getvalue()):
        line = octets.decode("utf-8")
        assert "file a" in line
        assert not any(character in line for character in "\x9b\x7f\x1b")
        assert "\u00e4" in line
        if format_ is LogFormat.JSON:
            assert json.loads(line)["name"] == NASTY


@pytest.mark.parametrize("format_", [LogFormat.JSON, LogFormat.TEXT])
def test_secrets_are_hidden_whoever_logged_them(tmp_path, format_):
    log, path, _ = writer(tmp_path, format_)
    log.info("login {password} {api_token}", password="hunter2", api_token="abc123", user="alice")
    text = path.read_text()
    assert "hunter2" not in text
    assert "abc123" not in text
    assert "(hidden)" in text


@pytest.mark.parametrize("format_", [LogFormat.JSON, LogFormat.TEXT])
def test_a_failure_is_logged_with_its_traceback(tmp_path, format_):
    log, path, _ = writer(tmp_path, format_)
    log.failure("it broke", Failure(ValueError("why")))
    assert "ValueError" in path.read_text()


def test_the_level_can_be_changed(tmp_path):
    log, path, log_writer = writer(tmp_path, level=LogLevelName.WARN)
    log.info("unseen")
    assert path.read_text() == ""
    log_writer.set_level(LogLevelName.DEBUG)
    log.debug("seen")
    assert "seen" in path.read_text()
    assert LogLevel.debug is not None


def test_an_event_that_cannot_be_formatted_does_not_raise(tmp_path):
    log, path, _ = writer(tmp_path)
    log.info("{missing}")
    assert "missing" in path.read_text()


def test_the_file_is_opened_anew_and_a_failure_to_do_so_keeps_the_old_one(tmp_path):
    log, path, log_writer = writer(tmp_path)
    log.info("one")
    moved = path.rename(tmp_path / "log.1")
    log_writer.target.reopen()
    log.info("two")
    assert "one" in moved.read_text()
    assert "two" in path.read_text()
    path.unlink()
    path.mkdir()
    log_writer.target.reopen()
    log.info("three")
    assert not list(path.iterdir())


def test_the_file_is_not_for_everybody(tmp_path):
    _, path, _ = writer(tmp_path)
    assert path.stat().st_mode & 0o007 == 0


def test_a_closed_terminal_does_not_stop_the_server():
    stream = io.StringIO()
    target = StreamTarget(stream)
    stream.close()
    target.write("gone\n")


def test_a_line_is_json_whatever_its_fields_are(tmp_path):
    log, path, _ = writer(tmp_path)
    odd = {
        "quoted": 'a "b" \\ \n\x00 ü \ud800',
        "octets": b"\xff",
        "number": 3,
        "share": 0.5,
        "yes": True,
        "nothing": None,
        "many": ["a", 1, ("b", False), {"c"}],
        "empty": [],
        "long": "x" * 5000,
        "object": LogLevel.info,
        "source": "mine",
        "text": "mine",
    }
    log.info("{quoted}", **odd)
    line = json.loads(path.read_text())
    assert line["quoted"].startswith('a "b" \\ \n\x00 ü')
    assert line["octets"] == "\\xff"
    assert (line["number"], line["share"], line["yes"], line["nothing"]) == (3, 0.5, True, None)
    assert line["many"] == ["a", 1, ["b", False], ["c"]]
    assert line["empty"] == []
    assert len(line["long"]) == 4097
    assert line["object"] == str(LogLevel.info)
    assert line["level"] == "info"
    assert line["source"] == "smtp.session"
    assert line["text"] == line["quoted"]
