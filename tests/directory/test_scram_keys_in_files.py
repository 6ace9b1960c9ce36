"""Keys for SCRAM in a passwd-file: read, counted, made with a password and gone with it."""

from __future__ import annotations

import pytest

from mailsrv.address import Address
from mailsrv.directory.chain import DirectoryChain
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.directory.passwd_edit import EditError, PasswdEditor, scram_fields
from mailsrv.directory.passwd_file import parse_passwd
from mailsrv.directory.passwd_line import parse_line
from mailsrv.directory.passwords.verifiers import verify_password
from mailsrv.sasl.scram_keys import ScramKeys, find_keys

ALICE = Address("alice", "example.test")
SHA_256 = ScramKeys.derive("SCRAM-SHA-256", "sesame", 4096)
SHA_1 = ScramKeys.derive("SCRAM-SHA-1", "sesame", 4096)
VERIFIER = f"{{SCRAM-SHA-256}}{SHA_256.format()}"
FIELD = f"scram_sha_256={SHA_256.format()}"


def test_keys_stand_in_the_password_or_in_extra_fields():
    line = f"alice@example.test:{{PLAIN}}sesame::::::nologin=no {FIELD} scram_sha_1={SHA_1.format()}"
    user = parse_line(line.replace("nologin=no ", "")).user
    assert find_keys("SCRAM-SHA-256", user.verifiers) == SHA_256
    assert find_keys("SCRAM-SHA-1", user.verifiers) == SHA_1
    assert SHA_256.format() not in repr(user)
    alone = parse_line(f"alice@example.test:{VERIFIER}").user
    assert find_keys("SCRAM-SHA-256", (alone.secret,)) == SHA_256


def test_broken_keys_are_warned_of_and_left_out():
    entry = parse_line("alice@example.test:{PLAIN}sesame::::::scram_sha_256=nonsense")
    assert entry.user.verifiers == ()
    assert entry.user.may_log_in
    assert "scram_sha_256" in entry.warnings[0]


def test_the_password_of_keys_may_be_in_any_form():
    keys = ScramKeys.derive("SCRAM-SHA-256", "\u2168", 4096)
    assert verify_password(f"{{SCRAM-SHA-256}}{keys.format()}", "IX")
    assert verify_password(f"{{SCRAM-SHA-256}}{keys.format()}", "\u2168")
    assert not verify_password(f"{{SCRAM-SHA-256}}{keys.format()}", "X")


def test_a_file_tells_whether_everyone_has_keys():
    with_keys = f"alice@example.test:{{PLAIN}}x::::::{FIELD}\n"
    (standing,) = parse_passwd((with_keys + "bob@example.test:*\n").encode()).value.scram
    assert (standing.mechanism, standing.has_everyone, standing.iterations, standing.salt_octets) == (
        "SCRAM-SHA-256",
        True,
        4096,
        16,
    )
    (standing,) = parse_passwd((with_keys + "bob@example.test:{PLAIN}x\n").encode()).value.scram
    assert not standing.has_everyone
    assert parse_passwd(b"bob@example.test:{PLAIN}x\n").value.scram == ()


def test_who_needs_a_second_factor_cannot_use_keys():
    with_keys = f"alice@example.test:{{PLAIN}}x::::::{FIELD}\n"
    demanded = f"bob@example.test:{{PLAIN}}x::::::{FIELD} second_factor=yes\n"
    (standing,) = parse_passwd((with_keys + demanded).encode()).value.scram
    assert not standing.has_everyone
    assert parse_passwd(demanded.encode()).value.scram == ()


def test_a_chain_with_a_directory_that_knows_no_keys_has_not_everyone():
    aliases, users = MemoryDirectory("aliases"), MemoryDirectory("users")
    assert DirectoryChain([aliases, users], with_users=[users]).scram_standings() == ()


def test_a_new_password_takes_the_keys_of_the_old_one_away(tmp_path):
    path = tmp_path / "passwd"
    path.write_text(f"alice@example.test:{{PLAIN}}old::::::{FIELD} userdb_quota_rule=*:storage=1G\n")
    editor = PasswdEditor(str(path))
    editor.set_secret(ALICE, "{PLAIN}new")
    assert path.read_text() == "alice@example.test:{PLAIN}new::::::userdb_quota_rule=*:storage=1G\n"
    editor.set_secret(ALICE, "{PLAIN}newer", [VERIFIER])
    assert find_keys("SCRAM-SHA-256", editor.users()[0].verifiers) == SHA_256
    assert editor.users()[0].quota_octets == 1 << 30


@pytest.mark.parametrize("ending", ["", "\r"])
def test_keys_are_added_to_a_short_line(tmp_path, ending):
    path = tmp_path / "passwd"
    path.write_bytes(f"alice@example.test:{{PLAIN}}old{ending}\n".encode())
    editor = PasswdEditor(str(path))
    editor.set_secret(ALICE, "{PLAIN}new", [VERIFIER])
    assert path.read_bytes() == f"alice@example.test:{{PLAIN}}new::::::{FIELD}{ending}\n".encode()


@pytest.mark.parametrize("verifier", ["{PLAIN}x", "{SCRAM-SHA-256}x", ""])
def test_only_keys_become_fields(verifier):
    with pytest.raises(EditError):
        scram_fields([verifier])
