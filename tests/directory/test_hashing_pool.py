"""The pool of threads for password hashes: bounded, and never in the way."""

from __future__ import annotations

import threading

import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from mailsrv.directory.passwords.hashing import HashingPool, make_hash
from mailsrv.directory.passwords.verifiers import MAX_PASSWORD_OCTETS, verify_password
from mailsrv.directory.settings import PasswordSettings
from mailsrv.errors import Unavailable
from tests.contracts.directory import RunAtOnce

CHEAP = PasswordSettings(argon2_time_cost=1, argon2_memory_kib=64, argon2_parallelism=1, hash_threads=2, hash_queue=3)


def make_pool(threads: RunAtOnce) -> HashingPool:
    return HashingPool(CHEAP, reactor=Clock(), run_in_thread=threads)  # type: ignore[arg-type]


def test_r_lim_2_the_queue_at_its_limit_past_it_and_recovered():
    threads = RunAtOnce()
    threads.hold = True
    pool = make_pool(threads)
    waiting = [pool.verify("{PLAIN}x", "x") for _ in range(5)]
    assert pool.pending == 5
    refused: list = []
    pool.verify("{PLAIN}x", "x").addErrback(refused.append)
    assert refused[0].check(Unavailable)
    assert pool.refused == 1
    threads.go()
    assert all(answer.result is True for answer in waiting)
    assert pool.pending == 0
    threads.hold = False
    assert pool.verify("{PLAIN}x", "x").result is True


def test_cancelled_work_counts_until_the_thread_is_done():
    threads = RunAtOnce()
    threads.hold = True
    pool = make_pool(threads)
    answer = pool.verify("{PLAIN}x", "x")
    answer.addErrback(lambda failure: None)
    answer.cancel()
    assert pool.pending == 1
    threads.go()
    assert pool.pending == 0


def test_new_hashes_are_argon2id_with_the_settings():
    stored = make_hash("sésame", CHEAP)
    assert stored.startswith("{ARGON2ID}$argon2id$v=19$m=64,t=1,p=1$")
    assert verify_password(stored, "sésame")
    assert make_hash("sésame", CHEAP) != stored
    usual = PasswordSettings()
    assert (usual.argon2_time_cost, usual.argon2_memory_kib, usual.argon2_parallelism) == (2, 19456, 1)


@pytest.mark.parametrize("password", ["", "a\0b", "x" * (MAX_PASSWORD_OCTETS + 1), "\ud800"])
def test_no_hash_is_made_of_what_nobody_could_log_in_with(password: str):
    with pytest.raises(ValueError, match="password"):
        make_hash(password, CHEAP)


def test_the_longest_password_works():
    assert verify_password(make_hash("x" * MAX_PASSWORD_OCTETS, CHEAP), "x" * MAX_PASSWORD_OCTETS)


class OwnThreadsTests(TestCase):
    async def test_hashes_are_computed_in_other_threads(self):
        from twisted.internet import reactor

        pool = HashingPool(CHEAP, reactor=reactor)  # type: ignore[arg-type]
        pool.start()
        pool.start()
        self.addCleanup(pool.stop)
        names: list[str] = []

        def check(secret: str, password: str) -> bool:
            names.append(threading.current_thread().name)
            return True

        self.patch(pool, "_check", check)
        assert await pool.verify("{PLAIN}x", "x")
        assert names[0] != threading.main_thread().name
        pool.stop()
        pool.stop()
