"""``mailsrvctl config``: exit status 0 done, 1 failed, 2 wrong use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mailsrv.cli import main
from mailsrv.tls.self_signed import write_self_signed

DEMO = str(Path(__file__).resolve().parents[2] / "etc" / "demo.toml")


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def test_check_says_good_or_every_mistake(capsys, tmp_path):
    assert run(capsys, "--config", DEMO, "config", "check") == (0, f"{DEMO} is good\n", "")
    broken = tmp_path / "broken.toml"
    broken.write_text('hostname = 3\nstate_dirr = "x"\n')
    status, out, err = run(capsys, "config", "check", str(broken))
    assert (status, out) == (1, "")
    assert "hostname = 3: expected text in quotes" in err
    assert 'did you mean "state_dir"?' in err


def test_check_tells_of_named_files_that_cannot_be_used(capsys, tmp_path):
    file = tmp_path / "mailsrv.toml"
    file.write_text(
        """
        hostname = "mail.example.test"
        state_dir = "state"
        listen = [{service = "imap", endpoint = "tcp:0", tls = "implicit"}]
        domain = [{name = "example.test"}]
        directory = [{type = "passwd-file", path = "users"}]
        route = [{via = "smtp:relay.test:587", username = "x", password_file = "secret"}]
        tls = {certificate = "cert.pem", key = "key.pem"}
        store = {path = "mail/{domain}/{local}"}
        """
    )
    assert run(capsys, "config", "check", str(file))[0] == 0
    status, out, err = run(capsys, "config", "check", "--files", str(file))
    assert (status, out) == (1, "")
    lines = err.splitlines()
    assert [line.partition(str(tmp_path / "mailsrv.toml: "))[2] for line in lines] == [
        f"{tmp_path}/cert.pem cannot be read: No such file or directory",
        f"directory[0].path: {tmp_path}/users cannot be read: No such file or directory",
        f"route[0].password_file: {tmp_path}/secret cannot be read: No such file or directory",
    ]
    write_self_signed("mail.example.test", str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    (tmp_path / "users").touch()
    (tmp_path / "secret").touch()
    assert run(capsys, "config", "check", "--files", str(file)) == (
        0,
        f"{file} is good, and so are the files it names\n",
        "",
    )


def test_the_configuration_is_looked_for_in_the_environment(capsys, monkeypatch):
    monkeypatch.setenv("MAILSRV_CONFIG", DEMO)
    assert run(capsys, "config", "check")[0] == 0
    monkeypatch.delenv("MAILSRV_CONFIG")
    status, _, err = run(capsys, "config", "show")
    assert status == 1
    assert "/etc/mailsrv/mailsrv.toml" in err


def test_show_tells_values_in_force(capsys):
    status, out, _ = run(capsys, "--config", DEMO, "config", "show")
    assert status == 0
    assert 'listen[0].service = "mx"' in out
    assert "workers = 1" in out
    status, out, _ = run(capsys, "--config", DEMO, "config", "show", "--changed")
    assert "workers" not in out
    status, out, _ = run(capsys, "--config", DEMO, "config", "show", "--json")
    assert json.loads(out)["auth"]["default_domain"] == "example.test"


def test_wrong_use_is_status_2(capsys):
    assert run(capsys, "config", "frobnicate")[0] == 2
    assert run(capsys, "nonsense")[0] == 2
    assert run(capsys, "config", "show", "--nonsense")[0] == 2


def test_help_and_version(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert "config" in out
    assert "user" in out
    assert "mailsrvctl, version" in run(capsys, "--version")[1]
