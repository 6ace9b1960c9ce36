"""The passwd-file: its lines, and how it follows the file."""

from __future__ import annotations

import os
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, globalLogPublisher

from mailsrv.directory.passwd_file import PasswdFile, parse_passwd
from mailsrv.directory.passwd_line import parse_line, parse_size
from mailsrv.directory.passwords.hashing import HashingPool
from mailsrv.directory.settings import PasswordSettings
from mailsrv.directory.watched_file import FileWatching
from mailsrv.errors import Unavailable
from tests.contracts.directory import ALICE, BOB, RunAtOnce

CHEAP = PasswordSettings(argon2_time_cost=1, argon2_memory_kib=64, argon2_parallelism=1)
GIB = 1 << 30


@pytest.fixture
def logged():
    events: list[Any] = []
    observer = cast(ILogObserver, events.append)
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


# --- lines


def test_a_line_as_dovecot_documents_it():
    entry = parse_line(
        "alice@Example.test:{PLAIN}pass:1000:1000:Alice A.,Room 1:/home/a:/bin/sh:userdb_mail=maildir:~/m x=y"
    )
    assert entry.user.address == ALICE
    assert entry.user.display_name == "Alice A."
    assert entry.user.secret == "{PLAIN}pass"
    assert entry.user.may_log_in
    assert entry.warnings == ()


@pytest.mark.parametrize(
    ("extra", "octets"),
    [
        ("userdb_quota_rule=*:storage=1G", GIB),
        ("quota_rule=*:storage=1G:messages=100", GIB),
        ("userdb_quota_rule=*:storage=1024", 1 << 20),
        ("userdb_quota_rule=*:bytes=1024", 1024),
        ("userdb_quota_rule=?:storage=10M", 10 << 20),
        ("userdb_quota_rule=*:storage=0", None),
        ("userdb_quota_rule=Trash:storage=1G", None),
        ("userdb_quota_rule=*:storage=1G userdb_quota_rule2=Trash:storage=2G", GIB),
        ("userdb_quota_storage_size=1GB", GIB),
        ("quota_storage_size=5", 5),
        ("userdb_mail=mbox:~/mail", None),
        ("", None),
    ],
)
def test_quota_fields(extra: str, octets: int | None):
    assert parse_line(f"alice@example.test:{{PLAIN}}x::::::{extra}").user.quota_octets == octets


def test_a_quota_nobody_understands_is_told_and_the_user_kept():
    entry = parse_line("alice@example.test:{PLAIN}x::::::userdb_quota_rule=*:storage=lots")
    assert entry.user.may_log_in
    assert entry.user.quota_octets is None
    assert "lots" in entry.warnings[0]


@pytest.mark.parametrize("secret", ["", "*", "!", "!$6$a$b", "x", "{NTLM}00", "{PLAIN}"])
def test_without_a_usable_password_there_is_mail_but_no_log_in(secret: str):
    entry = parse_line(f"alice@example.test:{secret}:::")
    assert not entry.user.may_log_in
    assert all(secret not in warning for warning in entry.warnings if secret not in {"", "x"})


def test_networks_restrict_and_what_cannot_be_understood_shuts_out():
    user = parse_line("alice@example.test:{PLAIN}x::::::allow_nets=192.0.2.7/24,2001:db8::/32,local").user
    assert user.networks == ("192.0.2.0/24", "2001:db8::/32", "local")
    assert user.may_log_in
    for broken in ("", "office", "192.0.2.0/99"):
        entry = parse_line(f"alice@example.test:{{PLAIN}}x::::::allow_nets={broken}")
        assert not entry.user.may_log_in
        assert entry.warnings


@pytest.mark.parametrize("flag", ["second_factor=yes", "second_factor", "userdb_second_factor=Y"])
def test_a_second_factor_is_demanded_of_users_marked_so(flag):
    assert parse_line(f"alice@example.test:{{PLAIN}}x::::::{flag}").user.needs_second_factor
    assert not parse_line("alice@example.test:{PLAIN}x::::::second_factor=no").user.needs_second_factor
    assert not parse_line("alice@example.test:{PLAIN}x").user.needs_second_factor


def test_a_demand_nobody_understands_refuses_log_ins():
    entry = parse_line("alice@example.test:{PLAIN}x::::::second_factor=perhaps")
    assert not entry.user.may_log_in
    assert "second_factor" in entry.warnings[0]


def test_domains_are_added_or_demanded():
    assert parse_line("alice:{PLAIN}x", "example.test").user.address == ALICE
    with pytest.raises(ValueError, match="no domain"):
        parse_line("alice:{PLAIN}x")


@pytest.mark.parametrize(
    "line",
    [
        *("alice", ":x", "@example.test:x", "alice@:x", "al ice@example.test:x", "a\0@example.test:x", "a@b c:x"),
        *('"a"@example.test:x', "a,b@example.test:x", "a@exa_mple.test:x", "a" * 65 + "@b.test:x"),
    ],
)
def test_r_inj_3_broken_names_are_refused_without_quoting_the_password(line: str):
    with pytest.raises(ValueError, match=r".") as caught:
        parse_line(line.replace(":x", ":{PLAIN}topsecret"))
    assert "topsecret" not in str(caught.value)


@given(st.text(max_size=80))
@settings(max_examples=300)
def test_any_line_is_an_entry_or_a_value_error(line: str):
    try:
        entry = parse_line(line, "example.test")
    except ValueError:
        return
    assert entry.user.address.domain
    assert ":" in line


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_any_file_parses_and_good_lines_survive_their_neighbours(lines: list[bytes]):
    octets = b"\n".join([b"alice@example.test:{PLAIN}sesame", *lines, b"bob@example.test:{PLAIN}mellon"])
    users = parse_passwd(octets).value.users
    assert users[ALICE].secret == "{PLAIN}sesame"
    assert BOB in users


def test_sizes():
    assert [parse_size(text) for text in ("1", "1b", "2k", "2 KiB", "3M", "1GB", "1T")] == [
        1,
        1,
        2048,
        2048,
        3 << 20,
        GIB,
        1 << 40,
    ]
    for text in ("", "G", "-1", "1.5G", "1X", "١"):
        with pytest.raises(ValueError, match="size"):
            parse_size(text)


def test_comments_crlf_repeats_and_broken_lines_have_their_numbers():
    parsed = parse_passwd(
        b"# alice@example.test:{PLAIN}no\r\n\r\nalice@example.test:{PLAIN}one\r\n"
        b"alice@example.test:{PLAIN}two\r\nnonsense\r\n\xff@x:y\r\nbob@example.test:{NTLM}1\r\n"
    )
    assert parsed.value.users[ALICE].secret == "{PLAIN}one"
    assert [problem.line for problem in parsed.problems] == [4, 5, 6, 7]


def test_a_typical_hash_is_one_of_the_most_frequent_kind():
    parsed = parse_passwd(b"a@b.test:{PLAIN}x\nc@b.test:$6$a$x\nd@b.test:$6$b$x\ne@b.test:*\nf@b.test:*\ng@b.test:*")
    assert parsed.value.typical_secret == "$6$a$x"


# --- the file


class Case:
    def __init__(self, path, **settings):
        self.path = path
        self.clock = Clock()
        self.threads = RunAtOnce()
        self.hashing = HashingPool(CHEAP, reactor=self.clock, run_in_thread=RunAtOnce())  # type: ignore[arg-type]
        watching = FileWatching(self.clock, self.threads, **settings)
        self.directory = PasswdFile(str(path), watching, hashing=self.hashing)

    def find(self, address=ALICE):
        answers: list = []
        self.directory.find_user(address).addBoth(answers.append)
        return answers[0] if answers else "nothing yet"

    def is_down(self, answer) -> bool:
        return bool(getattr(answer, "check", lambda kind: False)(Unavailable))


@pytest.fixture
def case(tmp_path):
    path = tmp_path / "passwd"
    path.write_text("alice@example.test:{PLAIN}one\n")
    return Case(path)


def test_it_is_looked_at_once_a_second_at_most(case):
    for _ in range(5):
        assert case.find() is not None
    assert case.threads.count == 1
    case.clock.advance(0.99)
    case.find()
    assert case.threads.count == 1
    case.clock.advance(0.02)
    case.find()
    assert case.threads.count == 2


def test_a_change_is_seen_at_the_next_look(case):
    first = case.find()
    # Same size, same second: only the contents tell.
    case.path.write_text("alice@example.test:{PLAIN}two\n")
    case.clock.advance(1)
    second = case.find()
    assert second.secret == "{PLAIN}two"
    assert second.fingerprint != first.fingerprint


def test_a_change_that_keeps_the_time_stamp_is_seen_while_the_stamp_is_new(case):
    case.find()
    stamp = os.stat(case.path).st_mtime_ns
    case.path.write_text("alice@example.test:{PLAIN}two\n")
    os.utime(case.path, ns=(stamp, stamp))
    case.clock.advance(1)
    assert case.find().secret == "{PLAIN}two"


def test_an_old_unchanged_file_is_not_read_again(case, monkeypatch):
    os.utime(case.path, (1, 1))
    case.find()
    monkeypatch.setattr(case.directory._file, "_parse", lambda octets: pytest.fail("parsed again"))
    case.clock.advance(1)
    assert case.find().secret == "{PLAIN}one"


def test_a_replaced_file_is_seen_by_its_inode(case):
    os.utime(case.path, (1, 1))
    case.find()
    other = case.path.with_name("other")
    other.write_text("alice@example.test:{PLAIN}two\n")
    os.utime(other, (1, 1))
    os.rename(other, case.path)
    case.clock.advance(1)
    assert case.find().secret == "{PLAIN}two"


def test_r_auth_7_a_file_that_is_gone_is_unavailable_and_comes_back(case, logged):
    case.find()
    octets = case.path.read_bytes()
    case.path.unlink()
    case.clock.advance(1)
    assert case.is_down(case.find())
    assert case.is_down(case.find(BOB))
    case.clock.advance(1)
    assert case.is_down(case.find())
    case.path.write_bytes(octets)
    case.clock.advance(1)
    assert case.find().secret == "{PLAIN}one"
    # Said once when it went, once when it came back.
    assert len([event for event in logged if str(case.path) in str(event.get("cause", ""))]) == 1
    assert len([event for event in logged if event.get("path") == str(case.path)]) == 1


def test_r_auth_7_a_file_that_never_was_is_unavailable_too(tmp_path):
    case = Case(tmp_path / "none")
    assert case.is_down(case.find())


def test_a_file_past_its_limit_is_unavailable_at_the_limit_it_is_read(tmp_path):
    path = tmp_path / "passwd"
    path.write_text("alice@example.test:{PLAIN}one\n")
    size = path.stat().st_size
    assert Case(path, max_octets=size).find().secret == "{PLAIN}one"
    assert Case(path, max_octets=size - 1).find().check(Unavailable)


def test_those_who_ask_meanwhile_wait_for_the_same_look(case):
    case.threads.hold = True
    answers: list = []
    for _ in range(3):
        case.directory.find_user(ALICE).addBoth(answers.append)
    assert answers == []
    case.threads.go()
    assert len(answers) == 3
    assert case.threads.count == 1


def test_r_auth_7_a_file_that_hangs_is_unavailable_after_its_deadline(case):
    case.find()
    case.threads.hold = True
    case.clock.advance(1)
    answers: list = []
    case.directory.find_user(ALICE).addBoth(answers.append)
    case.clock.advance(4.9)
    assert answers == []
    case.clock.advance(0.2)
    assert answers[0].check(Unavailable)
    assert case.is_down(case.find())  # at once now
    assert case.threads.count == 2  # and no thread more
    case.threads.hold = False
    case.threads.go()
    assert case.find().secret == "{PLAIN}one"


def test_one_who_gives_up_waiting_disturbs_nobody(case):
    case.threads.hold = True
    first, second = case.directory.find_user(ALICE), case.directory.find_user(ALICE)
    first.addErrback(lambda failure: None)
    first.cancel()
    case.threads.go()
    assert second.result.secret == "{PLAIN}one"


def test_broken_lines_are_logged_with_file_and_number_and_without_secrets(tmp_path, logged):
    path = tmp_path / "passwd"
    path.write_text("alice@example.test:{PLAIN}one\nbroken name:{PLAIN}topsecret\n")
    case = Case(path)
    assert case.find().secret == "{PLAIN}one"
    (event,) = [event for event in logged if event.get("path") == str(path)]
    assert event["line"] == 2
    assert "topsecret" not in str(event)
    case.clock.advance(1)
    case.find()
    assert len([event for event in logged if event.get("path") == str(path)]) == 1


# --- what an unknown user costs


def test_r_auth_4_an_unknown_user_costs_one_hash_of_the_usual_kind(tmp_path, monkeypatch):
    path = tmp_path / "passwd"
    path.write_text("alice@example.test:$6$salt$x\nbob@example.test:$6$other$x\ncarol@example.test:{PLAIN}x\n")
    case = Case(path)
    hashed: Any = []
    monkeypatch.setattr(
        "mailsrv.directory.passwords.hashing.verify_password", lambda secret, password: bool(hashed.append(secret))
    )
    case.directory.check_password(case.find(), "guess")
    case.directory.check_password(None, "guess")
    assert hashed == ["$6$salt$x", "$6$salt$x"]


def test_r_auth_4_in_an_empty_file_it_is_a_new_hash(tmp_path, monkeypatch):
    path = tmp_path / "passwd"
    path.write_text("")
    case = Case(path)
    hashed: Any = []
    monkeypatch.setattr(
        "mailsrv.directory.passwords.hashing.verify_password", lambda secret, password: not hashed.append(secret)
    )
    assert case.directory.check_password(None, "guess").result is False
    assert len(hashed) == 1
    assert hashed[0].startswith("{ARGON2ID}$argon2id$v=19$m=64,t=1,p=1$")
