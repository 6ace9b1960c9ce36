"""Who is blocked or delayed, and letting them go on: told by a fake clock, over two workers."""

from __future__ import annotations

import ipaddress

from twisted.internet.task import Clock

from mailsrv.auth.blocks import BlockEffect, count_blocks, list_blocks, parse_network, unblock_account, unblock_network
from mailsrv.auth.failure_table import FailureFile
from mailsrv.auth.settings import AuthSettings
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.wire.networks import NetworkSet

NOW = 1_700_000_000
ALICE, BOB = "alice@example.test", "bob@example.test"
HOME, OFFICE = "192.0.2.1", "198.51.100.9"


class Case:
    def __init__(self, exempt=(), **changes):
        self.clock = Clock()
        self.clock.advance(NOW)
        self.settings = AuthSettings(**changes)
        file = FailureFile(None, 100)
        self.workers = [
            LoginThrottle(self.settings, clock=self.clock, exempt_networks=exempt, failures=file) for _ in range(2)
        ]
        self.failures = self.workers[0].failures
        self.exempt = NetworkSet(exempt)
        self.tried = 0

    def fail(self, count, account=ALICE, network=HOME):
        for number in range(count):
            self.tried += 1
            self.workers[number % 2].begin(account, network, f"wrong{self.tried}").failed()

    def blocks(self):
        return list_blocks(self.failures, self.exempt, self.clock.seconds())

    def is_refused(self, account=ALICE, network=HOME):
        answers = set()
        for worker in self.workers:
            attempt = worker.begin(account, network, "right")
            attempt.abandoned()
            answers.add(attempt.is_refused)
        assert len(answers) == 1
        return answers.pop()


def test_guessing_goes_on_at_the_rate_of_the_limit():
    case = Case(failures_per_network=100_000)
    looked_at = 0
    for number in range(24 * 60):
        attempt = case.workers[number % 2].begin(ALICE, HOME, f"guess{number}")
        looked_at += not attempt.is_refused
        attempt.failed()
        case.clock.advance(60)
    assert 24 * 10 <= looked_at <= 24 * 10 + 11


def test_nobody_is_blocked_at_first():
    assert Case().blocks() == []


def test_r_auth_6_an_account_past_its_limit_at_a_network_and_the_delays_of_both():
    case = Case()
    case.fail(5)
    case.clock.advance(10)
    case.fail(6)
    blocked, account, network = sorted(case.blocks(), key=lambda block: -len(block.account + block.network))
    assert (blocked.effect, blocked.account, blocked.network) == (BlockEffect.BLOCKED, ALICE, HOME)
    assert blocked.since == NOW
    # Ten in an hour, so one is forgotten in six minutes; a limit holds until half of it is.
    assert 150 < blocked.until - case.clock.seconds() < 190
    case.clock.advance(blocked.until - case.clock.seconds() - 1)
    assert case.is_refused()
    case.clock.advance(2)
    assert not case.is_refused()
    assert (account.effect, account.account, account.network) == (BlockEffect.DELAYED, ALICE, "")
    assert (network.effect, network.account, network.network) == (BlockEffect.DELAYED, "", HOME)
    assert account.delay_seconds == 15
    assert account.failures == network.failures == blocked.failures
    case.clock.advance(3600)
    assert case.blocks() == []


def test_r_nat_1_a_network_is_blocked_as_a_whole_unless_it_is_trusted():
    case = Case(failures_per_network=4)
    for account in "abcd":
        case.fail(1, f"{account}@example.test")
    [block] = [each for each in case.blocks() if each.effect is BlockEffect.BLOCKED]
    assert block.is_whole_network
    assert (block.network, block.failures) == (HOME, 4)
    assert count_blocks(case.failures, case.exempt, case.clock.seconds()) == (1, 4)
    case.workers[0].failures.succeeded(b"digest", HOME, f"{HOME} {BOB}", case.clock.seconds())
    assert not any(each.network == HOME for each in case.blocks())


def test_networks_that_are_exempt_now_are_not_listed():
    case = Case()
    case.fail(10)
    case.exempt = NetworkSet(["192.0.2.0/24"])
    assert [(block.account, block.network) for block in case.blocks()] == [(ALICE, "")]


def test_an_account_that_is_unblocked_goes_on_at_once_in_all_workers():
    case = Case()
    case.fail(10)
    case.fail(10, network=OFFICE)
    case.fail(10, account=BOB)
    assert unblock_account(case.failures.table, ALICE) == 3
    assert not case.is_refused()
    assert not case.is_refused(network=OFFICE)
    assert case.is_refused(account=BOB)
    assert unblock_account(case.failures.table, ALICE) == 0
    # The network's delay is not the account's.
    assert {block.network for block in case.blocks() if not block.account} == {HOME, OFFICE}


def test_a_network_that_is_unblocked_goes_on_at_once_in_all_workers():
    case = Case()
    case.fail(10)
    case.fail(10, network="192.0.2.200")
    case.fail(10, network=OFFICE)
    assert unblock_network(case.failures.table, ipaddress.ip_network("192.0.2.0/24")) == 4
    assert not case.is_refused()
    assert not case.is_refused(network="192.0.2.200")
    assert case.is_refused(network=OFFICE)


def test_ipv6_is_unblocked_by_its_64():
    case = Case()
    case.fail(10, network="2001:db8:1:2::3")
    network = parse_network("2001:db8:1:2::ffff")
    assert network == ipaddress.ip_network("2001:db8:1:2::/64")
    assert unblock_network(case.failures.table, network) == 2
    assert parse_network("alice") is None
    assert parse_network("") is None


def test_a_name_longer_than_a_record_is_unblocked_all_the_same():
    case = Case()
    long = "x" * 300
    case.fail(10, account=long)
    assert case.is_refused(account=long)
    assert unblock_account(case.failures.table, long) == 2
    assert not case.is_refused(account=long)


def test_all_is_forgotten_at_once():
    case = Case()
    case.fail(10)
    case.fail(10, account=BOB, network=OFFICE)
    case.failures.table.forget_all()
    assert case.blocks() == []
    assert not case.is_refused()
    # What was wrong is counted anew.
    case.fail(10)
    assert case.is_refused()
