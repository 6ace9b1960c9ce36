"""The cache of verified log-ins: what it may mix up (nothing), and when it forgets."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from mailsrv.address import Address, AddressError
from mailsrv.auth.login_cache import LoginCache

ALICE = Address("alice", "example.test")
BOB = Address("bob", "example.test")

TEXT = st.text(max_size=12)
LOCAL_PART = st.text(alphabet='ab@\\" +%', min_size=1, max_size=4)
DOMAIN = st.sampled_from(["a.test", "b.test", "a.b.test", "aa.test"])
LOGIN = st.tuples(TEXT, TEXT, LOCAL_PART, DOMAIN, TEXT)


def make_cache(**changes) -> tuple[LoginCache, Clock]:
    clock = Clock()
    return LoginCache(clock=clock, **{"seconds": 60, "entries": 3, **changes}), clock


@given(LOGIN, LOGIN)
def test_r_auth_2_no_two_users_share_a_key(one, other):
    assume(one != other)
    cache, _ = make_cache()
    try:
        keys = [
            cache.key(mechanism, service, Address(local_part, domain), password)
            for mechanism, service, local_part, domain, password in (one, other)
        ]
    except AddressError:
        return
    assert keys[0] != keys[1]


def test_r_auth_2_fields_do_not_run_into_each_other():
    cache, _ = make_cache()
    keys = {
        cache.key("PLAIN", "imap", ALICE, "x"),
        cache.key("PLAINimap", "", ALICE, "x"),
        cache.key("PLAI", "Nimap", ALICE, "x"),
        cache.key("PLAIN", "imap\0", ALICE, "x"),
        cache.key("PLAIN", "pop3", ALICE, "x"),
        cache.key("PLAIN", "imap", BOB, "x"),
        cache.key("PLAIN", "imap", ALICE, "x\0"),
        cache.key("PLAIN", "imap", ALICE, ""),
    }
    assert len(keys) == 8


def test_keys_are_of_this_process_and_hold_no_password():
    first, second = make_cache()[0], make_cache()[0]
    assert first.key("PLAIN", "imap", ALICE, "x") != second.key("PLAIN", "imap", ALICE, "x")
    assert b"sesame" not in first.key("PLAIN", "imap", ALICE, "sesame")


def test_it_knows_what_was_added_until_the_time_is_over():
    cache, clock = make_cache()
    cache.add(b"k", b"f")
    clock.advance(59.9)
    assert cache.knows(b"k", b"f")
    clock.advance(0.1)
    assert not cache.knows(b"k", b"f")
    assert len(cache) == 0


def test_an_entry_dies_when_the_directory_entry_changes():
    cache, _ = make_cache()
    cache.add(b"k", b"f")
    assert not cache.knows(b"k", b"g")
    assert not cache.knows(b"k", b"f")


def test_r_lim_2_the_least_recently_used_goes_first():
    cache, _ = make_cache()
    for key in (b"1", b"2", b"3"):
        cache.add(key, b"")
    assert cache.knows(b"1", b"")
    cache.add(b"4", b"")
    assert [cache.knows(key, b"") for key in (b"1", b"2", b"3", b"4")] == [True, False, True, True]
    assert len(cache) == 3


def test_it_can_be_switched_off():
    for changes in ({"seconds": 0}, {"entries": 0}):
        cache, _ = make_cache(**changes)
        cache.add(b"k", b"")
        assert not cache.knows(b"k", b"")
