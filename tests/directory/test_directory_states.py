"""What directories tell of themselves for ``mailsrvctl status``, and what passwd-files say of groups."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from mailsrv.directory.chain import DirectoryChain
from mailsrv.directory.ldap.servers import Servers, parse_server
from mailsrv.directory.ldap.state import describe
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.directory.passwd_file import PasswdFile
from mailsrv.directory.passwd_line import parse_line
from mailsrv.directory.passwords.hashing import HashingPool
from mailsrv.directory.settings import PasswordSettings
from mailsrv.directory.watched_file import FileWatching
from mailsrv.interfaces.directory_state import DirectoryState


def at_once(function: Any, *arguments: Any) -> Any:
    return maybeDeferred(function, *arguments)


def passwd_file(path: Any, clock: Clock) -> PasswdFile:
    hashing = HashingPool(PasswordSettings(), reactor=None, run_in_thread=at_once)  # type: ignore[arg-type]
    return PasswdFile(str(path), FileWatching(clock, at_once), hashing=hashing)


def test_a_chain_tells_of_those_that_tell(tmp_path):
    clock = Clock()
    path = tmp_path / "users"
    path.write_text("alice@example.test:{PLAIN}x\n")
    file = passwd_file(path, clock)
    chain = DirectoryChain([MemoryDirectory(), file])
    chain.list_users()
    assert chain.states() == [DirectoryState(file.name)]
    path.unlink()
    clock.advance(5)
    file.list_users().addErrback(lambda _: None)
    [state] = chain.states()
    assert state.is_out
    assert "users" in state.trouble
    path.write_text("alice@example.test:{PLAIN}x\n")
    clock.advance(5)
    chain.list_users()
    assert not chain.states()[0].is_out


def test_r_auth_7_servers_that_are_down_and_the_outage_when_none_is_left():
    clock = Clock()
    servers = Servers(
        "ldap", [parse_server(f"ldap://{name}", starttls=False) for name in ("one", "two")], seconds=clock.seconds
    )
    clock.advance(10)
    servers.mark_down(servers.all[0], "timed out")
    clock.advance(20)
    state = describe("ldap", servers.all, answers=3, oldest_answer_seconds=60.0, now=clock.seconds())
    assert (state.is_out, state.answers, state.oldest_answer_seconds) == (False, 3, None)
    assert [(each.uri, each.is_up, each.down_seconds, each.cause) for each in state.servers] == [
        ("ldap://one", False, 20.0, "timed out"),
        ("ldap://two", True, 0.0, ""),
    ]
    servers.mark_down(servers.all[1], "refused")
    clock.advance(5)
    state = describe("ldap", servers.all, answers=3, oldest_answer_seconds=60.0, now=clock.seconds())
    # Since the last of them went down.
    assert (state.is_out, state.out_seconds, state.oldest_answer_seconds) == (True, 5.0, 60.0)
    servers.mark_up(servers.all[1])
    state = describe("ldap", servers.all, answers=0, oldest_answer_seconds=None, now=clock.seconds())
    assert (state.is_out, state.out_seconds, state.trouble) == (False, 0.0, "")


def user_of(extra: str) -> Any:
    return parse_line(f"alice@example.test:{{PLAIN}}x::::::{extra}")


def test_a_passwd_file_tells_groups_and_administrators():
    user = user_of("groups=staff,sales,staff administrator=yes").user
    assert (user.groups, user.is_administrator) == (("staff", "sales"), True)
    assert user_of("").user.groups == ()
    assert not user_of("").user.is_administrator
    assert user_of("administrator").user.is_administrator
    assert not user_of("administrator=no").user.is_administrator


@pytest.mark.parametrize("extra", ["groups=", "groups", "groups=,"])
def test_groups_that_cannot_be_understood_let_nobody_in(extra):
    entry = user_of(extra)
    assert not entry.user.may_log_in
    assert entry.warnings


def test_an_administrator_that_cannot_be_understood_is_none():
    entry = user_of("administrator=perhaps")
    assert entry.user.may_log_in
    assert not entry.user.is_administrator
    assert entry.warnings
