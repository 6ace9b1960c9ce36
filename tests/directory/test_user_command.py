"""``mailsrvctl user`` on a real file."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import field, frozen
from click.testing import CliRunner

from mailsrv.auth.settings import AuthSettings
from mailsrv.cli.user import user_group
from mailsrv.directory.passwd_file import parse_passwd
from mailsrv.directory.passwords.verifiers import verify_password
from mailsrv.directory.settings import DirectorySettings, DirectoryType, DomainSettings, PasswordSettings
from tests.contracts.directory import ALICE

CHEAP = PasswordSettings(argon2_time_cost=1, argon2_memory_kib=64, argon2_parallelism=1)


@frozen
class Settings:
    directory: tuple[DirectorySettings, ...]
    domain: tuple[DomainSettings, ...] = (DomainSettings("example.test"),)
    auth: AuthSettings = field(factory=lambda: AuthSettings(default_domain="example.test"))
    passwords: PasswordSettings = CHEAP
    state_dir: str = "/none"


@frozen
class Context:
    settings: Settings


@pytest.fixture
def path(tmp_path):
    return tmp_path / "passwd"


@pytest.fixture
def run(path):
    settings = Settings(
        (
            DirectorySettings(DirectoryType.ALIAS_FILE, "/none"),
            DirectorySettings(DirectoryType.PASSWD_FILE, str(path)),
        )
    )

    def invoke(*arguments: str, stdin: str | bytes = "") -> Any:
        return CliRunner().invoke(user_group, arguments, input=stdin, obj=Context(settings))

    return invoke


def secret_of(path) -> str:
    return parse_passwd(path.read_bytes()).value.users[ALICE].secret


def test_add_list_passwd_delete(run, path):
    result = run("add", "Alice", "--password-stdin", "--name", "Alice A.", "--quota", "1G", stdin="sesame\nmore\n")
    assert (result.exit_code, result.output) == (0, "alice@example.test added\n")
    assert verify_password(secret_of(path), "sesame")
    assert run("list").output == "alice@example.test\n"
    assert json.loads(run("list", "--json").output) == [
        {"address": "alice@example.test", "name": "Alice A.", "quota_octets": 1 << 30, "may_log_in": True}
    ]
    result = run("passwd", "alice@example.test", "--password-stdin", stdin="mellon\r\n")
    assert result.exit_code == 0
    assert verify_password(secret_of(path), "mellon")
    result = run("delete", "alice")
    assert result.exit_code == 0
    assert run("list").output == ""


@pytest.mark.parametrize(
    ("arguments", "stdin", "sentence"),
    [
        (("passwd", "bob", "--password-stdin"), "x\n", "does not exist"),
        (("delete", "bob"), "", "does not exist"),
        (("add", "alice", "--password-stdin"), "x\n", "exists already"),
        (("add", "bob@elsewhere.test", "--password-stdin"), "x\n", "none of the domains"),
        (("add", "bob", "--password-stdin"), "\n", "empty"),
        (("add", "bob", "--password-stdin"), "", "empty"),
        (("add", "bob", "--password-stdin"), b"\xff\n", "not UTF-8"),
        (("add", "bob", "--password-stdin", "--name", "a:b"), "x\n", "colon"),
    ],
)
def test_failures_are_one_sentence_and_status_1(run, path, arguments, stdin, sentence):
    run("add", "alice", "--password-stdin", stdin="sesame\n")
    before = path.read_bytes()
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 1
    assert sentence in result.output
    assert result.output.count("\n") == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("add",),
        ("add", "a b", "--password-stdin"),
        ("add", "*()\\", "--password-stdin"),
        ("add", "@example.test", "--password-stdin"),
        ("add", "", "--password-stdin"),
        ("add", "bob", "--password-stdin", "--quota", "much"),
        ("add", "bob"),
        ("nonsense",),
    ],
)
def test_wrong_use_is_status_2(run, path, arguments):
    result = run(*arguments, stdin="x\n")
    assert result.exit_code == 2
    assert not path.exists()


def test_without_a_passwd_file_it_says_so(tmp_path):
    result = CliRunner().invoke(user_group, ["list"], obj=Context(Settings(())))
    assert result.exit_code == 1
    assert "passwd-file" in result.output
