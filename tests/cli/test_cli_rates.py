"""``mailsrvctl rates``, on the file a running server counts in."""

from __future__ import annotations

import json
import time

import pytest

from mailsrv.address import Address
from mailsrv.cli import main
from mailsrv.delivery.submission_rates import SubmissionRates, rates_path
from mailsrv.delivery.submission_settings import SubmissionSettings
from tests.smallest_config import SMALLEST

ALICE, BOB, CAROL = (Address(name, "example.test") for name in ("alice", "bob", "carol"))
CONFIG = f"""
{SMALLEST}
[auth]
default_domain = "example.test"
[submission]
messages_per_hour = 5
messages_per_day = 20
recipients_per_hour = 0
recipients_per_day = 100
"""
SETTINGS = SubmissionSettings(messages_per_hour=5, messages_per_day=20, recipients_per_hour=0, recipients_per_day=100)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "mailsrv.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def rates(tmp_path):
    """The running server's."""
    rates = SubmissionRates(SETTINGS, rates_path(str(tmp_path / "state")), time.time)
    rates.start()
    return rates


@pytest.fixture
def run(config, capsys):
    def run_command(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["--config", str(config), "rates", *arguments])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run_command


def test_before_the_server_ever_ran(run):
    assert run("list") == (0, "", "")
    assert run("blocked", "--json") == (0, "[]\n", "")
    assert run("lift", "alice") == (0, "alice@example.test has used nothing\n", "")
    _, out, _ = run("show", "alice")
    assert out == ("alice@example.test  messages_per_hour 0/5  messages_per_day 0/20  recipients_per_day 0/100\n")


def test_list_show_blocked_and_lift(run, rates):
    for _ in range(7):
        rates.check(ALICE, 0)
    rates.check(BOB, 0)
    rates.check(BOB, 3)

    _, out, _ = run("list")
    assert [line.split()[0] for line in out.splitlines()] == ["alice@example.test", "bob@example.test"]
    _, out, _ = run("blocked")
    [line] = out.splitlines()
    assert line.startswith("alice@example.test  messages_per_hour 5/5  messages_per_day 5/20")
    assert "blocked by messages_per_hour" in line
    assert "refused 2 times" in line

    _, out, _ = run("show", "bob@example.test", "--json")
    assert json.loads(out) == [
        {
            "user": "bob@example.test",
            "limits": {
                "messages_per_hour": {"used": 1, "limit": 5},
                "messages_per_day": {"used": 1, "limit": 20},
                "recipients_per_day": {"used": 3, "limit": 100},
            },
            "blocked_by": None,
            "wait_seconds": 0,
            "refusals": 0,
            "last_refused": None,
        }
    ]
    _, out, _ = run("blocked", "--json")
    [row] = json.loads(out)
    assert row["blocked_by"] == "messages_per_hour"
    assert 700 <= row["wait_seconds"] <= 720
    assert row["refusals"] == 2
    assert row["last_refused"]

    assert run("lift", "alice") == (0, "alice@example.test may send again\n", "")
    # The server counts in the same memory: it holds at once.
    assert rates.check(ALICE, 0) is None
    assert run("blocked") == (0, "", "")
    assert run("lift", "carol@example.test")[1] == "carol@example.test has used nothing\n"


def test_wrong_use_and_a_broken_file(run, rates, tmp_path):
    status, _, err = run("show", "not an address@")
    assert status == 2
    assert "USER" in err
    path = tmp_path / "state" / "rates" / "submission"
    path.write_bytes(b"x" * 10_000)
    for command in (["list"], ["blocked", "--json"], ["show", "alice"], ["lift", "alice"]):
        status, out, err = run(*command)
        assert (status, out) == (1, "")
        assert err.startswith("mailsrvctl: ")
