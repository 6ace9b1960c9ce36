"""The file of the app passwords: with one connection, with two, as another process sees it, and when it is broken."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.auth.app_passwords.database import AppPasswordDatabase
from mailsrv.auth.app_passwords.form import read_secret
from mailsrv.auth.app_passwords.record import AppPassword, Scope, check_name
from mailsrv.errors import Unavailable
from tests.contracts.app_passwords import ALICE, EVERYTHING, AppPasswordContract, body


class TestWithOneConnection(AppPasswordContract):
    def open_other(self, path):
        return self.one


class TestOfAnotherWorker(AppPasswordContract):
    def open_other(self, path):
        return AppPasswordDatabase(path)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "app-passwords.db")


@pytest.fixture
def database(path):
    database = AppPasswordDatabase(path)
    yield database
    database.close()


def add(database, name="phone", limit=20):
    return database.add(ALICE, name, EVERYTHING, now=1000.0, expires_at=None, limit=limit)


def test_the_secret_is_neither_in_the_file_nor_in_a_repr(database, path, tmp_path):
    fresh = add(database)
    assert fresh.secret not in repr(fresh)
    assert body(fresh) not in repr(fresh)
    for each in os.listdir(tmp_path):
        octets = (tmp_path / each).read_bytes()
        assert body(fresh).encode() not in octets
        assert fresh.secret.encode() not in octets
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_what_another_process_added_and_revoked_is_seen_at_once(database, path):
    add(database, "mine")
    script = (
        "import sys; from mailsrv.auth.app_passwords.database import AppPasswordDatabase as D\n"
        "from mailsrv.auth.app_passwords.record import Scope\n"
        "d = D(sys.argv[1]); d.revoke('alice@example.test', 'mine')\n"
        "f = d.add('alice@example.test', 'theirs', frozenset(Scope), now=1.0, expires_at=None, limit=5)\n"
        "print(f.secret)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True, timeout=60)
    (left,) = database.list()
    assert left.name == "theirs"
    assert database.find(ALICE, read_secret(done.stdout) or "") == left


def test_many_at_once_stay_within_the_limit(path):
    refused = []

    def work(number):
        database = AppPasswordDatabase(path)
        try:
            add(database, str(number), limit=5)
        except Exception as error:
            refused.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=work, args=[number]) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database = AppPasswordDatabase(path)
    assert (len(database.list()), len(refused)) == (5, 7)
    assert {str(error) for error in refused} == {f"{ALICE} has 5 app passwords, and no more than 5 are allowed"}
    database.close()


def test_a_file_put_in_its_place_is_used_from_then_on(database, path, tmp_path):
    old = add(database)
    restored = AppPasswordDatabase(str(tmp_path / "restored.db"))
    new = add(restored, "other")
    restored.close()
    assert database.find(ALICE, body(old)) is not None
    os.rename(tmp_path / "restored.db", path)
    for suffix in ("-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)
    assert database.find(ALICE, body(old)) is None
    assert database.find(ALICE, body(new)) is not None
    os.unlink(path)
    assert database.find(ALICE, body(new)) is None
    assert database.is_empty()


@pytest.mark.parametrize("octets", [b"", b"nonsense" * 1000, b"SQLite format 3\0" + b"\0" * 5000])
def test_r_auth_7_a_file_that_cannot_be_read_is_unavailable(database, path, octets):
    with open(path, "wb") as file:
        file.write(octets)
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            database.find(ALICE, "a" * 20)
        assert path in caught.value.cause
        assert path not in caught.value.text
    os.unlink(path)
    assert body(add(database))


def test_a_symbolic_link_is_not_followed(database, path, tmp_path):
    other = AppPasswordDatabase(str(tmp_path / "other.db"))
    add(other)
    other.close()
    os.symlink(tmp_path / "other.db", path)
    with pytest.raises(Unavailable):
        database.list()


def test_a_scope_nobody_knows_grants_nothing(database):
    fresh = add(database)
    with database._writing(is_durable=False) as connection:
        connection.execute("UPDATE app_password SET scopes='imap everything'")
    found = database.get(fresh.password.id)
    assert found.scopes == {Scope.IMAP}


TIMES = st.floats(0, 1e10)


@given(st.frozensets(st.sampled_from(Scope)), st.sampled_from([*Scope, None]), st.none() | TIMES, TIMES)
def test_it_is_good_for_its_scopes_until_it_expires(scopes, wanted, expires_at, now):
    password = AppPassword(1, ALICE, "phone", scopes, 0.0, expires_at)
    is_good = wanted in scopes and (expires_at is None or now < expires_at)
    assert (password.objection(wanted, now) == "") is is_good


@given(st.text(max_size=80))
def test_a_name_is_refused_or_fits_a_line(text):
    try:
        name = check_name(text)
    except ValueError:
        return
    assert name.isprintable()
    assert name == name.strip()
    assert 0 < len(name) <= 64
