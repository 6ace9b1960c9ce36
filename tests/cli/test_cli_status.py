"""``mailsrvctl status``: one page, whatever state the server is in."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from twisted.internet.task import Clock

from mailsrv.app.status_file import StatusFile, status_folder
from mailsrv.auth.failure_table import FailureFile, failures_path
from mailsrv.auth.settings import AuthSettings
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.cli import main
from mailsrv.cli.status_report import Condition, make_report
from mailsrv.config.load import load
from mailsrv.disk import RealDisk, SpaceLeft
from mailsrv.queue.schema import make_database
from mailsrv.tls.self_signed import write_self_signed

DAY = 86_400
CONFIG = """
hostname = "mail.example.test"
state_dir = "state"
workers = 2
[tls]
certificate = "cert.pem"
key = "key.pem"
[store]
path = "mail/{domain}/{local}"
[[listen]]
service = "imap"
endpoint = "tcp:143"
tls = "starttls"
[[domain]]
name = "example.test"
[[directory]]
type = "passwd-file"
path = "users"
"""


class Server:
    """Processes that say what a test wants; they live until they are let go."""

    def __init__(self, folder: Any) -> None:
        self.now = time.time()
        self._folder = status_folder(str(folder / "state"))
        self.files: dict[str, StatusFile] = {}

    def say(self, name: str, **content: Any) -> None:
        file = self.files.setdefault(name, StatusFile(self._folder, name))
        file.write(content)

    def start(self, workers: int = 2) -> None:
        self.say("server", pid=10, version="9.9", started_at=self.now - 7260, workers=2, hostname="mail.example.test")
        for number in range(1, workers + 1):
            self.worker(number)

    def worker(self, number: int, **changes: Any) -> None:
        content: dict[str, Any] = {
            "pid": 10 + number,
            "worker": number,
            "started_at": self.now - 60 * number,
            "written_at": self.now,
            "every_seconds": 5.0,
            "connections": {"imap": number, "mx": 0},
            "accounts": number,
            "refused_logins": 0,
            "certificate_ends": self.now + 100.5 * DAY,
            "journal": {"is_running": True, "blocked_deliveries": 0},
            "directories": [{"name": "passwd-file users", "is_out": False, "servers": []}],
        }
        self.say(f"worker-{number}", **{**content, **changes})

    def stop(self) -> None:
        for file in self.files.values():
            file.close()


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "mailsrv.toml"
    path.write_text(CONFIG)
    write_self_signed("mail.example.test", str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    return path


@pytest.fixture(autouse=True)
def roomy_disk(monkeypatch):
    monkeypatch.setattr(RealDisk, "space_left", lambda _self, _path: SpaceLeft(50 << 30, 100 << 30))


@pytest.fixture
def server(tmp_path, config):
    server = Server(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def run(config, capsys):
    def run_command(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["--config", str(config), "status", *arguments])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run_command


def test_healthy(run, server):
    server.start()
    status, out, _ = run()
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "mailsrv 9.9 mail.example.test: healthy"
    assert lines[1].startswith("up           2 h, since 20")
    assert lines[2] == "workers      2 of 2"
    assert lines[3].startswith("  1  process 11  up 60 s  1 connections  1 accounts  as of 0 s ago")
    assert "connections  imap 3, mx 0" in lines
    assert "directory    passwd-file users: ok" in lines
    assert "log-ins      0 blocked, 0 delayed (mailsrvctl auth blocks)" in lines
    assert any(line.startswith("certificate  ends 20") and line.endswith("in 100 days") for line in lines)
    assert lines[-1].startswith("disk         50.0 GiB free at ")
    assert lines[-1].endswith("; floor 5.0 GiB")


def test_damaged_mail_is_told_of_until_it_is_moved_away(run, server, tmp_path):
    server.start()
    folder = tmp_path / "state" / "queue" / "corrupt"
    folder.mkdir(parents=True)
    make_database(str(folder.with_name("queue.db")))
    (folder / "1099511631872").write_bytes(b"what is left")
    status, out, _ = run()
    assert status == 1
    assert f"  ! 1 damaged files of the queue are in {folder}: look at them, then move them away" in out
    assert "\ndamaged      1 files of the queue" in out
    assert json.loads(run("--json")[1])["damaged_files"] == 1
    (folder / "1099511631872").unlink()
    status, out, _ = run()
    assert (status, "\ndamaged" in out) == (0, False)


def test_as_json(run, server):
    server.start()
    status, out, _ = run("--json")
    told = json.loads(out)
    assert (status, told["condition"], told["concerns"]) == (0, "healthy", [])
    assert told["connections"] == {"imap": 3, "mx": 0}
    assert [worker["pid"] for worker in told["workers"]] == [11, 12]
    assert told["workers"][0]["is_alive"] is True
    assert 7260 <= told["uptime_seconds"] < 7300
    assert told["auth"] == {"blocked": 0, "delayed": 0}
    assert told["space"][0]["is_low"] is False


def test_it_never_ran(run, tmp_path):
    status, out, _ = run()
    assert status == 2
    lines = out.splitlines()
    assert lines[0] == "mailsrv: not running"
    assert "queue        none" in lines
    assert any(line.startswith("certificate  ends 20") for line in lines)
    assert not (tmp_path / "state").exists()
    told = json.loads(run("--json")[1])
    assert (told["condition"], told["server"], told["workers"], told["uptime_seconds"]) == (
        "not running",
        None,
        [],
        None,
    )


def test_it_has_stopped(run, server):
    server.start()
    server.stop()
    status, out, _ = run()
    assert status == 2
    assert out.splitlines()[0] == "mailsrv 9.9 mail.example.test: not running"
    assert ", last seen 20" in out
    assert "workers" not in out
    assert "connections" not in out


def test_it_was_killed_but_for_a_worker_that_is_going(run, server):
    server.start()
    server.files["server"].close()
    assert run()[0] == 2


def test_a_worker_is_missing(run, server):
    server.start(workers=1)
    status, out, _ = run()
    assert status == 1
    assert "mailsrv 9.9 mail.example.test: degraded\n  ! 1 of 2 workers run\n" in out
    assert "workers      1 of 2" in out


def test_a_worker_hangs(config, server):
    server.start()
    report = make_report(load(str(config)), server.now + 14)
    assert report.condition is Condition.HEALTHY
    report = make_report(load(str(config)), server.now + 16)
    assert report.condition is Condition.DEGRADED
    assert report.concerns[0].startswith("worker 1 has said nothing for 1")


def test_directories_that_cannot_be_asked(run, server):
    def ldap(**changes: Any) -> list[dict[str, Any]]:
        state = {"name": "ldap staff", "is_out": False, "out_seconds": 0.0, "trouble": "", "answers": 7}
        return [{**state, "oldest_answer_seconds": None, **changes}]

    up = {"uri": "ldap://one", "is_up": True, "down_seconds": 0.0, "cause": ""}
    down = {"uri": "ldap://one", "is_up": False, "down_seconds": 200.0, "cause": "timed out"}
    server.start()
    server.worker(1, directories=ldap(servers=[up]))
    server.worker(2, directories=ldap(servers=[down], is_out=True, out_seconds=200, trouble="no server is up"))
    status, out, _ = run()
    assert status == 1
    assert "  ! ldap staff cannot be asked: no server is up\n" in out
    assert "  ! ldap://one is down: timed out\n" in out
    assert "directory    ldap staff: OUT for 3 min: no server is up, 7 answers remembered\n" in out
    assert "  ldap://one  down for 3 min: timed out\n" in out
    server.worker(2, directories=ldap(servers=[up]))
    assert run()[0] == 0


def test_directories_that_do_not_tell_their_domains(run, server):
    server.start()
    well = {"name": "ldap one", "knowledge": "all", "domains": 12, "age_seconds": 3.0, "trouble": ""}
    never = {"name": "ldap two", "knowledge": "none", "domains": 0, "age_seconds": None, "trouble": "no server is up"}
    server.worker(1, domains=[well, never])
    server.worker(2, domains=[{**well, "knowledge": "last heard", "age_seconds": 200.0, "trouble": "timed out"}, "?"])
    status, out, _ = run()
    assert status == 1
    assert "  ! ldap one does not tell its domains, the last list is used: timed out" in out
    assert "  ! ldap two has never told its domains, mail for unknown ones waits: no server is up" in out
    assert "domains      ldap one: 12 listed, as of 3 min ago" in out
    assert "domains      ldap two: never told" in out
    server.worker(1, domains=[well])
    server.worker(2, domains=[{**well, "age_seconds": 9.0}])
    status, out, _ = run("--json")
    assert (status, json.loads(out)["domains"]) == (0, [{**well, "age_seconds": 9.0}])


def test_what_is_said_of_domains_may_be_anything(run, server):
    server.start()
    server.worker(1, domains={"a": 1})
    server.worker(2, domains=[None, [], {"name": None, "knowledge": 7, "domains": "x", "age_seconds": "y"}])
    status, out, _ = run()
    assert (status, "domains      None: x listed" in out) == (0, True)


def test_journals_certificates_and_full_disks(run, server, monkeypatch):
    server.start()
    server.worker(1, journal={"is_running": False}, certificate_ends=server.now - 5)
    server.worker(2, journal={"is_running": True, "blocked_deliveries": 3}, certificate_ends=server.now + 6 * DAY)
    monkeypatch.setattr(RealDisk, "space_left", lambda _self, _path: SpaceLeft(1 << 20, 100 << 30))
    status, out, _ = run()
    assert status == 1
    assert "  ! the journal of worker 1 takes no mail\n" in out
    assert "  ! worker 2: mail of 3 deliveries does not get into its mailboxes\n" in out
    assert "  ! the certificate has ended: clients refuse it\n" in out
    assert "  ! too little free space at " in out
    server.worker(1, certificate_ends=server.now + 6 * DAY)
    assert "  ! the certificate ends in 6.0 days\n" in run()[1]


def test_blocked_log_ins_are_counted_and_no_concern(run, server, tmp_path):
    server.start()
    clock = Clock()
    clock.advance(server.now)
    file = FailureFile(failures_path(str(tmp_path / "state")), 100)
    throttle = LoginThrottle(AuthSettings(), clock=clock, failures=file)
    for number in range(10):
        throttle.begin("alice@example.test", "192.0.2.1", str(number)).failed()
    status, out, _ = run()
    assert status == 0
    assert "log-ins      1 blocked, 2 delayed" in out


def test_what_others_wrote_steers_no_terminal_and_breaks_nothing(run, server, tmp_path):
    server.start()
    server.worker(1, directories=[{"name": "\x1b[2J evil", "is_out": True, "trouble": "\x9b", "servers": []}])
    _, out, _ = run()
    assert "\x1b" not in out
    assert "\x9b" not in out
    (tmp_path / "state" / "status" / "worker-7.json").write_text("no JSON")
    server.say("worker-1", connections="many", journal=3)
    assert run()[0] == 0
    assert run("--json")[0] == 0


def test_a_certificate_that_cannot_be_read_where_nobody_runs(run, tmp_path):
    (tmp_path / "cert.pem").write_text("none")
    status, out, _ = run()
    assert status == 2
    assert "  ! " in out
