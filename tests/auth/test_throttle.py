"""Delays and limits for failed log-ins, told by a fake clock."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from mailsrv.auth.failure_table import FailureFile
from mailsrv.auth.settings import AuthSettings
from mailsrv.auth.shared_failures import DAY, HOUR
from mailsrv.auth.throttle import LoginThrottle

HOME, OFFICE, SIX = "192.0.2.1", "198.51.100.9", "2001:db8:1:2::3"
ALICE, BOB = "alice@example.test", "bob@example.test"


class Case:
    def __init__(self, *, exempt=(), failures=None, clock=None, **changes):
        self.clock = clock or Clock()
        if clock is None:
            self.clock.advance(1_700_000_000)
        settings = AuthSettings(**changes)
        self.throttle = LoginThrottle(settings, clock=self.clock, exempt_networks=exempt, failures=failures)

    def fail(self, account=ALICE, network=HOME, password="wrong") -> float:
        return self.throttle.begin(account, network, password).failed()

    def succeed(self, account=ALICE, network=HOME, password="right") -> None:
        self.throttle.begin(account, network, password).succeeded()

    def is_refused(self, account=ALICE, network=HOME, password="right") -> bool:
        attempt = self.throttle.begin(account, network, password)
        attempt.abandoned()
        return attempt.is_refused


def test_r_auth_6_delays_double_from_2_to_15_seconds():
    case = Case()
    assert [case.fail(password=str(number)) for number in range(6)] == [2, 4, 8, 15, 15, 15]


def test_r_auth_6_delays_decay():
    case = Case()
    for number in range(3):
        case.fail(password=str(number))
    case.clock.advance(120)
    assert case.fail(password="again") == 8  # halved to 4, then doubled
    case.clock.advance(DAY)
    assert case.fail(password="later") == 2


def test_a_long_attack_is_forgotten_as_fast_as_a_short_one():
    case = Case()
    for number in range(500):
        case.fail(network=f"10.0.{number // 250}.{number % 250}", password=str(number))
    case.clock.advance(8 * 120)
    assert case.fail(network=OFFICE, password="typing error") == 2


def test_r_auth_6_delays_are_per_account_and_per_network_never_global():
    case = Case()
    for number in range(4):
        case.fail(password=str(number))
    # Another account from another network knows nothing of it.
    assert case.fail(BOB, OFFICE, "x") == 2
    # The account is slow from elsewhere, the network for others.
    assert case.fail(ALICE, "203.0.113.5", "y") == 15
    assert case.fail("carol@example.test", HOME, "z") == 15


def test_r_nat_1_the_same_wrong_password_counts_once():
    case = Case()
    assert [case.fail(password="old") for _ in range(30)] == [2.0] * 30
    assert not case.is_refused()
    # Also when a telephone sends it from home and from the office.
    assert case.fail(network=OFFICE, password="old") == 2


def test_r_lim_2_ten_failures_an_hour_for_a_user_from_a_network():
    case = Case()
    for number in range(9):
        case.fail(password=str(number))
    assert not case.is_refused()
    case.fail(password="9")
    assert case.is_refused()
    assert case.throttle.refused == 1
    # From elsewhere, and for others from here, it goes on.
    assert not case.is_refused(network=OFFICE)
    assert not case.is_refused(account=BOB)
    case.clock.advance(HOUR)
    assert not case.is_refused()


def test_r_lim_2_fifty_failures_a_day_from_a_network():
    case = Case()
    for number in range(49):
        case.fail(account=f"user{number}@example.test")
    assert not case.is_refused(account=BOB)
    case.fail(account="user49@example.test")
    assert case.is_refused(account=BOB)
    assert not case.is_refused(account=BOB, network=OFFICE)
    case.clock.advance(DAY)
    assert not case.is_refused(account=BOB)


def test_refused_attempts_do_not_prolong_the_refusal():
    case = Case()
    for number in range(10):
        case.fail(password=str(number))
    for number in range(100):
        case.clock.advance(1)
        assert case.fail(password=f"more{number}") >= 2
    # Ten in an hour: six minutes for each to be forgotten, and half of one is enough.
    case.clock.advance(81)
    assert not case.is_refused()
    case.fail(password="yet another")
    assert case.is_refused()


def test_r_nat_1_a_network_with_a_recent_success_is_not_refused_as_a_whole():
    case = Case()
    case.succeed(BOB, OFFICE)
    for number in range(200):
        delay = case.fail(f"user{number}@example.test", OFFICE)
        assert delay == 2
    assert not case.is_refused("carol@example.test", OFFICE)
    case.clock.advance(DAY)
    for number in range(50):
        case.fail(f"user{number}@example.test", OFFICE, "x")
    assert case.is_refused("carol@example.test", OFFICE)


def test_r_nat_1_a_password_that_was_right_here_stays_usable_here():
    case = Case()
    case.succeed(ALICE, OFFICE, "right")
    for number in range(20):
        case.fail(ALICE, OFFICE, str(number))
    assert case.is_refused(ALICE, OFFICE, "guess")
    assert not case.is_refused(ALICE, OFFICE, "right")
    assert not case.is_refused(BOB, OFFICE)


def test_a_success_forgives_the_user_on_this_network():
    case = Case()
    for number in range(9):
        case.fail(password=str(number))
    case.succeed()
    for number in range(9):
        case.fail(password=f"later{number}")
    assert not case.is_refused(password="another")


def test_r_lim_2_a_program_that_logs_in_often_gives_no_new_guesses_to_others_in_its_network():
    case = Case(failures_per_user=3)
    case.succeed()
    for number in range(3):
        assert not case.is_refused(password=f"guess {number}")
        case.fail(password=f"guess {number}")
        case.succeed()
    assert case.is_refused(password="another guess")
    assert not case.is_refused()
    # A password that is new there was found by its owner.
    case.clock.advance(HOUR / 3 + 1)
    case.succeed(password="new one")
    assert not case.is_refused(password="slip of the finger")


def test_a_proof_that_nobody_can_guess_is_no_attempt_and_makes_its_network_trusted():
    case = Case(failures_per_user=1, failures_per_network=2)
    case.fail(password="wrong")
    case.fail(BOB, password="wrong")
    assert case.is_refused(password="other")
    refused = case.throttle.refused
    case.throttle.proven(ALICE, HOME, "a certificate")
    assert case.throttle.refused == refused
    assert not case.is_refused("carol@example.test")
    exempt = Case(exempt=["192.0.2.0/24"])
    exempt.throttle.proven(ALICE, HOME, "a certificate")
    assert not exempt.throttle.failures.is_trusted(HOME, exempt.clock.seconds())


def test_attempts_under_way_count_so_that_many_at_once_gain_nothing():
    case = Case()
    attempts = [case.throttle.begin(ALICE, HOME, str(number)) for number in range(30)]
    assert [attempt.is_refused for attempt in attempts] == [False] * 10 + [True] * 20
    for attempt in attempts[:10]:
        attempt.abandoned()
    assert not case.is_refused()


def test_many_connections_with_one_password_at_once_are_one_attempt():
    case = Case()
    attempts = [case.throttle.begin(ALICE, HOME, "right") for _ in range(30)]
    assert not any(attempt.is_refused for attempt in attempts)
    for attempt in attempts:
        attempt.succeeded()
    assert not case.is_refused()


def test_ipv6_is_counted_by_64_and_mapped_ipv4_as_ipv4():
    case = Case()
    for number in range(10):
        case.fail(network=f"2001:db8:1:2::{number:x}", password=str(number))
    assert case.is_refused(network="2001:db8:1:2:ffff::1")
    assert not case.is_refused(network="2001:db8:1:3::1")
    for number in range(10):
        case.fail(BOB, network=f"::ffff:{HOME}", password=str(number))
    assert case.is_refused(BOB, network=HOME)


def test_exempt_networks_are_neither_delayed_nor_refused():
    case = Case(exempt=("192.0.2.0/24",))
    assert [case.fail(password=str(number)) for number in range(100)] == [0] * 100
    assert not case.is_refused()
    assert case.fail(network=OFFICE) == 2


def test_a_unix_socket_has_no_network_but_accounts_still_count():
    case = Case()
    for number in range(60):
        case.fail(f"user{number}@example.test", "")
    assert not case.is_refused(BOB, "")
    for number in range(10):
        case.fail(ALICE, "", str(number))
    assert case.is_refused(ALICE, "")


def test_r_lim_2_memory_is_bounded():
    case = Case(throttle_entries=100)
    for number in range(1000):
        case.fail(f"user{number}@example.test", f"10.0.{number // 250}.{number % 250}", "x" * number)
    table = case.throttle.failures.table
    for records in (table.accounts, table.networks, table.pairs):
        assert 100 <= records.capacity <= 150
        # The latest are there.
        assert 90 <= len(list(records)) <= records.capacity
    assert table.accounts.get("user999@example.test").failures == 1
    assert not case.throttle.under_way


NASTY = ("", "*()\\", "\0", "a\0b", "\ud800", "alice@example.test 192.0.2.1", "ａ", "\u202e")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["fail", "succeed", "abandon", "wait"]),
            st.sampled_from([ALICE, BOB, *NASTY]),
            st.sampled_from([HOME, OFFICE, SIX, "", "nonsense"]),
            st.sampled_from(["a", "b", "", "\ud800"]),
        ),
        max_size=60,
    )
)
@settings(max_examples=100)
def test_r_inj_3_any_history_leaves_delays_in_bounds_and_nothing_under_way(history):
    case = Case()
    for action, account, network, password in history:
        attempt = case.throttle.begin(account, network, password)
        if action == "fail":
            assert 2 <= attempt.failed() <= 15
        elif action == "succeed" and not attempt.is_refused:
            attempt.succeeded()
        else:
            attempt.abandoned()
            case.clock.advance(7)
    assert not case.throttle.under_way


# Several workers


def workers(count=3, **changes) -> list[Case]:
    clock, failures = Clock(), FailureFile(None, 1000)
    clock.advance(1_700_000_000)
    return [Case(failures=failures, clock=clock, **changes) for _ in range(count)]


def test_r_lim_2_wrong_passwords_for_a_user_are_counted_over_all_workers():
    cases = workers()
    for number in range(10):
        assert not cases[number % 3].is_refused()
        cases[number % 3].fail(password=str(number))
    assert all(case.is_refused() for case in cases)
    assert not any(case.is_refused(account=BOB) for case in cases)
    assert not any(case.is_refused(network=OFFICE) for case in cases)
    cases[0].clock.advance(HOUR)
    assert not any(case.is_refused() for case in cases)


def test_r_auth_6_delays_grow_over_all_workers():
    cases = workers()
    assert [cases[number % 3].fail(password=str(number)) for number in range(5)] == [2, 4, 8, 15, 15]


def test_r_lim_2_failures_from_a_network_are_counted_over_all_workers():
    cases = workers(failures_per_network=6)
    for number in range(6):
        cases[number % 3].fail(account=f"user{number}@example.test", password=str(number))
    assert all(case.is_refused(account=BOB) for case in cases)
    assert not any(case.is_refused(account=BOB, network=OFFICE) for case in cases)
    cases[0].clock.advance(DAY)
    assert not any(case.is_refused(account=BOB) for case in cases)


def test_r_nat_1_a_forgotten_telephone_counts_once_at_all_workers():
    cases = workers()
    for number in range(100):
        cases[number % 3].fail(password="old")
    assert not any(case.is_refused() for case in cases)


def test_r_nat_1_a_network_that_one_worker_knows_is_trusted_by_all():
    cases = workers(failures_per_network=4)
    cases[0].succeed(account=BOB, network=OFFICE)
    for number in range(20):
        cases[number % 3].fail(account=f"user{number}@example.test", network=OFFICE, password=str(number))
    assert not any(case.is_refused(network=OFFICE) for case in cases)


def test_a_password_that_was_right_at_one_worker_is_looked_at_by_all():
    cases = workers(failures_per_user=4)
    cases[0].succeed(password="right")
    for number in range(9):
        cases[1].fail(password=str(number))
    assert not any(case.is_refused(password="right") for case in cases)
    assert all(case.is_refused(password="guess") for case in cases)
    # Until it was changed.
    cases[0].fail(password="right")
    assert cases[2].is_refused(password="right")


def test_no_password_is_kept_in_what_workers_share():
    failures = FailureFile(None, 100)
    case = Case(failures=failures)
    case.fail(password="hunter22")
    case.succeed(password="correct horse")
    memory = bytes(failures.table._memory)
    assert b"alice@example.test" in memory
    assert b"hunter22" not in memory
    assert b"correct horse" not in memory
    assert Case(failures=failures).throttle.digest(ALICE, "x") == case.throttle.digest(ALICE, "x")
    assert Case().throttle.digest(ALICE, "x") != Case().throttle.digest(ALICE, "x")
