"""``mailsrvctl auth``, on the file a running server counts in."""

from __future__ import annotations

import json
import time

import pytest
from twisted.internet.task import Clock

from mailsrv.auth.failure_table import FailureFile, failures_path
from mailsrv.auth.settings import AuthSettings
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.cli import main
from tests.smallest_config import SMALLEST

PASSWORD = "correct horse"
HOME = "192.0.2.1"
ALICE = "alice@example.test"
CONFIG = f"""
{SMALLEST}
[auth]
default_domain = "example.test"
plaintext_networks = ["127.0.0.0/8"]
throttle_entries = 100
[auth.impersonation]
enabled = true
[limits]
exempt_networks = ["203.0.113.0/24"]
[[access]]
action = "deny"
groups = ["kiosk"]
services = ["imap"]
"""
USERS = f"""\
{ALICE}:{{PLAIN}}{PASSWORD}::::::
admin@example.test:{{PLAIN}}{PASSWORD}::::::administrator=yes groups=it,staff
kiosk@example.test:{{PLAIN}}{PASSWORD}::::::groups=Kiosk
blocked@example.test:{{PLAIN}}{PASSWORD}::::::nologin=
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "users").write_text(USERS)
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "wrong").write_text("wrong horse\n")
    path = tmp_path / "mailsrv.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def throttle(tmp_path):
    """The running server's."""
    clock = Clock()
    clock.advance(time.time())
    file = FailureFile(failures_path(str(tmp_path / "state")), 100)
    file.start()
    return LoginThrottle(AuthSettings(), clock=clock, failures=file)


@pytest.fixture
def run(config, capsys):
    def run_command(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["--config", str(config), "auth", *arguments])
        captured = capsys.readouterr()
        assert PASSWORD not in captured.out + captured.err
        return ended.value.code, captured.out, captured.err

    return run_command


@pytest.fixture
def told(run, tmp_path):
    """The steps of ``auth test`` by name, and the exit status."""

    def run_test(name, *options, password="password"):
        options = (*options, "--password-file", str(tmp_path / password)) if password else options
        status, out, _ = run("test", name, "--json", *options)
        return status, {step["what"]: (step["is_good"], step["result"]) for step in json.loads(out)}

    return run_test


def is_refused(throttle, account=ALICE, network=HOME):
    attempt = throttle.begin(account, network, PASSWORD)
    attempt.abandoned()
    return attempt.is_refused


def fail(throttle, count=10, account=ALICE, network=HOME, guess="guess"):
    for number in range(count):
        throttle.begin(account, network, f"{guess}{number}").failed()


def test_before_the_server_ever_ran(run, tmp_path):
    assert run("blocks") == (0, "nobody is blocked or delayed\n", "")
    assert run("blocks", "--json") == (0, "[]\n", "")
    assert run("unblock", "--all") == (0, "nothing is remembered\n", "")
    assert run("test", "alice")[0] == 0
    assert not (tmp_path / "state").exists()


def test_blocks(run, throttle):
    fail(throttle)
    _, out, _ = run("blocks")
    blocked, *delayed = out.splitlines()
    assert blocked.startswith(f"{ALICE} from {HOME}  blocked  since 20")
    assert blocked.endswith("10 failures")
    assert sorted(line.split("  ")[0] for line in delayed) == [ALICE, f"everybody from {HOME}"]
    _, out, _ = run("blocks", "--json")
    first = json.loads(out)[0]
    assert first["since"] < first["until"]
    assert {key: first[key] for key in ("effect", "account", "network", "failures")} == {
        "effect": "blocked",
        "account": ALICE,
        "network": HOME,
        "failures": 10,
    }


@pytest.mark.parametrize("name", ["alice", ALICE, HOME, "192.0.2.0/24", "--all"])
def test_unblock_holds_at_once(run, throttle, name):
    fail(throttle)
    fail(throttle, account="bob@example.test", network="198.51.100.9")
    status, out, _ = run("unblock", name)
    assert (status, "are forgotten" in out) == (0, True)
    assert not is_refused(throttle)
    assert is_refused(throttle, "bob@example.test", "198.51.100.9") is (name != "--all")


def test_wrong_use_of_unblock(run):
    assert run("unblock")[0] == 2
    assert run("unblock", "alice", "--all")[0] == 2


def test_unblock_of_who_did_nothing(run, throttle):
    assert run("unblock", "bob") == (0, "bob@example.test: there were no failed log-ins\n", "")


def test_a_foreign_file(run, tmp_path):
    (tmp_path / "state" / "rates").mkdir(parents=True)
    (tmp_path / "state" / "rates" / "logins").write_bytes(b"x" * 9000)
    status, out, error = run("blocks")
    assert (status, out) == (1, "")
    assert "is no table of failed log-ins" in error


def test_a_log_in_that_would_be_let_in(run, tmp_path):
    status, out, _ = run("test", "Alice", "--password-file", str(tmp_path / "password"))
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == f"ok    name: {ALICE}"
    assert lines[-2:] == ["ok    password: right", f"ok    outcome: logged in as {ALICE}"]
    assert any("PLAIN LOGIN; without TLS, too" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "options", "password", "step", "reason"),
    [
        ("alice", (), "wrong", "password", "wrong password"),
        ("nobody", (), "password", "directory", "unknown user"),
        ("a b", (), "password", "name", "no user name"),
        ("blocked", (), "password", "permission", "may not log in"),
        ("kiosk", (), "password", "permission", "access rule 1 denies it"),
        ("alice*admin", ("--service", "submission"), "password", "permission", "act for somebody else by submission"),
        ("admin", ("--authzid", "alice", "--service", "pop3"), "wrong", "password", "wrong password"),
        ("alice*kiosk", ("--service", "pop3"), "password", "permission", "act for somebody else"),
    ],
)
def test_log_ins_that_would_be_refused(told, name, options, password, step, reason):
    status, steps = told(name, *options, password=password)
    assert status == 1
    assert steps[step][0] is False
    good, result = steps["outcome"]
    assert good is False
    assert result.endswith(reason)


def test_an_administrator_as_a_user(told):
    status, steps = told("alice*admin")
    assert status == 0
    assert steps["outcome"] == (True, f"logged in as {ALICE} (by admin@example.test)")
    assert "an administrator" in steps["directory"][1]
    assert "in it, staff" in steps["directory"][1]


def test_it_counts_nothing_and_says_who_is_blocked(told, throttle):
    for _ in range(20):
        told("alice", "--from", HOME, password="wrong")
    assert not is_refused(throttle)
    fail(throttle)
    status, steps = told("alice", "--from", HOME)
    assert status == 1
    assert "10 of 10 wrong passwords from 192.0.2.1" in steps["failures"][1]
    assert steps["outcome"][1].endswith("too many failures")
    assert told("alice", "--from", "203.0.113.9")[0] == 0
    # A password that was right there is looked at (R-NAT-1).
    throttle.failures.succeeded(throttle.digest(ALICE, PASSWORD), HOME, f"{HOME} {ALICE}", time.time())
    fail(throttle, guess="later")
    assert told("alice", "--from", HOME)[0] == 0
    assert told("alice", "--from", HOME, password=None)[0] == 1


def test_without_a_password(told):
    status, steps = told("alice", password=None)
    assert (status, "password" in steps) == (0, False)
    assert "nothing speaks against it" in steps["outcome"][1]


def test_a_directory_that_cannot_be_asked(told, tmp_path):
    (tmp_path / "users").unlink()
    status, steps = told("alice")
    assert status == 1
    assert steps["directory"][0] is False
    assert "454 4.7.0" in steps["outcome"][1]


def test_mechanisms_that_work_for_the_user(told, tmp_path):
    keys = "scram_sha_256=4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
    keys += "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    (tmp_path / "users").write_text(f"{ALICE}:{{PLAIN}}{PASSWORD}::::::{keys}\n")
    _, steps = told("alice")
    assert steps["mechanism SCRAM-SHA-256"][1] == "works"
    assert steps["mechanism SCRAM-SHA-256-PLUS"][1] == "works"
    assert steps["mechanism PLAIN"][1] == "works"


def test_wrong_use_of_test(run, tmp_path):
    assert run("test", "alice", "--from", "home")[0] == 2
    assert run("test", "alice", "--password", "--password-file", "x")[0] == 2
    assert run("test", "alice", "--password-file", str(tmp_path / "none"))[0] == 1
    (tmp_path / "empty").write_text("\n")
    assert run("test", "alice", "--password-file", str(tmp_path / "empty"))[0] == 1


def test_who_needs_a_second_factor_is_told_what_works(told, tmp_path):
    (tmp_path / "users").write_text(f"{ALICE}:{{PLAIN}}{PASSWORD}::::::second_factor=yes\n")
    status, steps = told("alice")
    assert status == 1
    assert steps["second factor"][1].startswith("demanded")
    assert steps["mechanism PLAIN"][1] == "works: with an app password"
    assert steps["password"] == (False, "not looked at: a second factor is demanded")
    assert steps["outcome"][0] is False
