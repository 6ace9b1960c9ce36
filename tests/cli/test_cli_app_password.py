"""``mailsrvctl app-password``, on the file a running server asks."""

from __future__ import annotations

import json
import time

import pytest

from mailsrv.auth.app_passwords.database import AppPasswordDatabase, database_path
from mailsrv.auth.app_passwords.form import read_secret
from mailsrv.auth.app_passwords.record import Scope
from mailsrv.cli import main
from tests.smallest_config import SMALLEST

CONFIG = f"""
{SMALLEST}
[auth]
default_domain = "example.test"
app_passwords_per_user = 3
"""
ALICE = "alice@example.test"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "mailsrv.toml"
    path.write_text(CONFIG)
    (tmp_path / "state").mkdir()
    (tmp_path / "users").write_text("alice@example.test:{PLAIN}x\nbob@example.test:{PLAIN}x\n")
    return path


@pytest.fixture
def server(tmp_path, config):
    """What a worker has open."""
    database = AppPasswordDatabase(database_path(str(tmp_path / "state")))
    yield database
    database.close()


@pytest.fixture
def run(config, capsys):
    def run_command(*arguments, group="app-password"):
        with pytest.raises(SystemExit) as ended:
            main(["--config", str(config), group, *arguments])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run_command


def test_before_there_are_any(run):
    assert run("list") == (0, "", "")
    assert run("list", "alice", "--json") == (0, "[]\n", "")
    status, out, err = run("revoke", "alice", "--all")
    assert (status, out) == (1, "")
    assert "has no app passwords" in err


def test_one_is_shown_once_and_works_in_a_running_server(run, server):
    assert server.is_empty()
    status, out, err = run("add", "Alice", "--name", "phone", "--scope", "imap", "--scope", "smtp")
    assert status == 0
    assert "phone" in err
    found = server.find(ALICE, read_secret(out) or "")
    assert found is not None
    assert found.scopes == {Scope.IMAP, Scope.SMTP}
    for command in (("list",), ("list", "--json"), ("list", ALICE)):
        _, listed, _ = run(*command)
        assert "phone" in listed
        assert out.strip() not in listed
        assert (read_secret(out) or "-") not in listed
    server.note_use(found.id, time.time(), "imap", "192.0.2.1")
    assert "(imap from 192.0.2.1)" in run("list")[1]
    assert run("revoke", "alice", "phone") == (0, f"{ALICE}  phone  revoked\n", "")
    assert server.find(ALICE, read_secret(out) or "") is None


def test_as_json(run, server):
    status, out, err = run("add", ALICE, "--name", "phone", "--expires", "90d", "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert server.find(ALICE, read_secret(told.pop("secret")) or "") is not None
    assert told["scopes"] == ["imap", "pop3", "smtp"]
    assert told["last_used"] is None
    assert json.loads(run("list", "--json")[1]) == [told]
    assert json.loads(run("revoke", ALICE, str(told["id"]), "--json")[1]) == [told]


def test_an_expiry_is_a_time_or_the_last_day(run, server):
    before = time.time()
    run("add", ALICE, "--name", "a", "--expires", "12h")
    run("add", ALICE, "--name", "b", "--expires", "2999-12-31")
    first, second = (one.expires_at or 0.0 for one in server.list(ALICE))
    assert before + 43_200 <= first <= time.time() + 43_200
    assert second == 32_503_680_000  # the first second of 3000, UTC
    for wrong in ("soon", "2001-01-01", "2001-13-01", "9999-12-31", "-1d", "1d2h"):
        status, out, _ = run("add", ALICE, "--name", "c", "--expires", wrong)
        assert (status, out) == (2, "")


def test_only_for_who_exists(run, config, server):
    status, out, err = run("add", "nobody", "--name", "phone")
    assert (status, out) == (1, "")
    assert "nobody logs in as nobody" in err
    (config.parent / "users").unlink()
    status, out, err = run("add", "alice", "--name", "phone")
    assert (status, out) == (1, "")
    assert "--unchecked" in err
    assert server.is_empty()
    assert run("add", "alice", "--name", "phone", "--unchecked")[0] == 0
    assert run("revoke", "alice", "--all")[0] == 0


def test_r_lim_2_so_many_a_user(run):
    for name in "abc":
        assert run("add", "alice", "--name", name)[0] == 0
    status, out, err = run("add", "alice", "--name", "d")
    assert (status, out) == (1, "")
    assert "no more than 3" in err
    assert run("revoke", "alice", "a", "b")[0] == 0
    assert run("add", "alice", "--name", "d")[0] == 0


def test_names(run):
    assert run("add", "alice", "--name", "phone")[0] == 0
    status, _, err = run("add", "alice", "--name", "PHONE")
    assert (status, "already" in err) == (1, True)
    assert run("add", "alice", "--name", "\x1b[2J")[0] == 2
    assert run("add", "alice")[0] == 2
    assert run("add", "al ice", "--name", "x")[0] == 2
    assert run("revoke", "alice")[0] == 2
    assert run("revoke", "alice", "--all", "phone")[0] == 2
    status, out, err = run("revoke", "alice", "tablet", "phone")
    assert (status, out) == (1, f"{ALICE}  phone  revoked\n")
    assert "no app password 'tablet'" in err


def test_a_damaged_file_is_told(run, config):
    run("add", "alice", "--name", "phone")
    (config.parent / "state" / "app-passwords.db").write_bytes(b"nonsense" * 1000)
    for command in (("list",), ("add", "alice", "--name", "b"), ("revoke", "alice", "--all")):
        status, out, err = run(*command)
        assert (status, out) == (1, "")
        assert "app-passwords.db" in err


def test_the_servers_folder_is_not_made_by_others(run, config):
    (config.parent / "state").rmdir()
    status, out, err = run("add", "alice", "--name", "phone")
    assert (status, out) == (1, "")
    assert "state is not there" in err
    assert run("list") == (0, "", "")
    assert not (config.parent / "state").exists()


def test_who_is_deleted_leaves_no_app_passwords(run, server):
    run("add", "alice", "--name", "phone")
    run("add", "bob", "--name", "phone")
    assert run("delete", "alice", group="user")[0] == 0
    assert [one.account for one in server.list()] == ["bob@example.test"]
