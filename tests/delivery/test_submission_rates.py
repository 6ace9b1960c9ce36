"""What a user may send in an hour and a day: at the limit, over it, recovered (R-LIM-2), and over restarts."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from mailsrv.address import Address
from mailsrv.delivery.submission_rates import SubmissionRates, all_rates, rates_of, rates_path
from mailsrv.delivery.submission_settings import SubmissionSettings
from mailsrv.delivery.submission_table import SubmissionTable
from tests.delivery.conftest import Account

ALICE, BOB = Address("alice", "example.test"), Address("bob", "example.test")
START = 1_700_000_000.0
HOUR, DAY = 3600.0, 86400.0
UNLIMITED: dict[str, Any] = {
    "messages_per_hour": 0,
    "messages_per_day": 0,
    "recipients_per_hour": 0,
    "recipients_per_day": 0,
}


class Sender:
    """Rates on a clock."""

    def __init__(self, path=None, **settings):
        self.clock = Clock()
        self.clock.advance(START)
        self.settings = SubmissionSettings(**{**UNLIMITED, **settings})
        self.rates = SubmissionRates(self.settings, None if path is None else str(path), self.clock.seconds)
        self.rates.start()

    def send(self, count=1, *, user=ALICE, recipients=0):
        """How many of so many attempts are accepted."""
        return sum(self.rates.check(user, recipients) is None for _ in range(count))

    def refusal(self, recipients=0) -> Any:
        """What alice is told now."""
        return self.rates.check(ALICE, recipients)


@pytest.mark.parametrize(
    ("name", "recipients", "seconds"),
    [
        ("messages_per_hour", 0, HOUR),
        ("messages_per_day", 0, DAY),
        ("recipients_per_hour", 1, HOUR),
        ("recipients_per_day", 1, DAY),
    ],
)
def test_r_lim_2_at_over_and_recovered(name, recipients, seconds):
    sender = Sender(**{name: 10})
    assert sender.send(15, recipients=recipients) == 10
    assert sender.send(15, recipients=recipients, user=BOB) == 10
    assert sender.send(50, recipients=1 - recipients) == 50
    error = sender.refusal(recipients)
    assert str(error.status) == "4.7.1"
    assert error.text.isascii()
    assert f"the limit is 10 {'an hour' if seconds == HOUR else 'a day'}" in error.text
    sender.clock.advance(seconds / 10)
    assert sender.send(3, recipients=recipients) == 1
    sender.clock.advance(seconds)
    assert sender.send(15, recipients=recipients) == 10


def test_hour_and_day_hold_together():
    sender = Sender(messages_per_hour=10, messages_per_day=15)
    assert sender.send(20) == 10
    sender.clock.advance(HOUR)
    assert sender.send(20) == 5
    assert "a day" in sender.refusal().text
    sender.clock.advance(DAY)
    assert sender.send(20) == 10


def test_recipients_named_together_are_counted_together_or_not_at_all():
    sender = Sender(recipients_per_hour=10)
    assert sender.send(recipients=7) == 1
    assert sender.send(recipients=4) == 0
    assert sender.send(recipients=3) == 1
    assert sender.send(recipients=1) == 0


def test_unlimited_users_and_no_limits():
    assert Sender().send(5000) == 5000
    sender = Sender(messages_per_day=1, unlimited_users=("alice@example.test",))
    assert sender.send(100) == 100
    assert sender.send(100, user=BOB) == 1


@pytest.mark.parametrize(("wait", "said"), [(1, "1 minute"), (600, "10 minutes"), (DAY, "24 hours")])
def test_the_peer_is_told_how_long_to_wait(wait, said):
    sender = Sender(messages_per_day=round(DAY / wait))
    while (error := sender.refusal()) is None:
        pass
    assert error.text.endswith(f"try again in {said}")


def test_a_refusal_is_logged_once_in_ten_minutes():
    sender = Sender(messages_per_day=1)
    with capturedLogs() as told:
        sender.send(100)
        assert [(event["account"], event["limit"]) for event in told] == [("alice@example.test", "messages_per_day")]
        sender.clock.advance(601)
        sender.send(5)
        assert len(told) == 2


def test_what_was_sent_survives_a_restart_and_a_kill(tmp_path):
    path = tmp_path / "rates" / "submission"
    code = (
        "import os, sys\n"
        "from mailsrv.address import Address\n"
        "from mailsrv.delivery.submission_settings import SubmissionSettings\n"
        "from mailsrv.delivery.submission_rates import SubmissionRates\n"
        f"rates = SubmissionRates(SubmissionSettings(messages_per_hour=10), sys.argv[1], lambda: {START})\n"
        "assert [rates.check(Address('alice', 'example.test'), 0) for _ in range(9)] == [None] * 9\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    sender = Sender(path, messages_per_hour=10)
    assert sender.send(5) == 1
    again = Sender(path, messages_per_hour=10)
    assert again.send(5) == 0
    assert again.send(5, user=BOB) == 5


def test_two_workers_count_together(tmp_path):
    path = tmp_path / "submission"
    one, two = Sender(path, recipients_per_day=10), Sender(path, recipients_per_day=10)
    assert [(one if number % 2 else two).send(recipients=1) for number in range(12)] == [1] * 10 + [0] * 2


def test_another_number_of_users_keeps_what_was_counted(tmp_path):
    path = tmp_path / "submission"
    sender = Sender(path, messages_per_day=20, users_remembered=10)
    sender.send(20)
    sender.send(3, user=BOB)
    larger = Sender(path, messages_per_day=20, users_remembered=1000)
    assert larger.send(5) == 0
    assert larger.send(20, user=BOB) == 17


def test_other_limits_hold_at_once_for_what_was_counted():
    sender = Sender(messages_per_hour=10)
    sender.send(10)
    sender.rates.replace_settings(SubmissionSettings(**{**UNLIMITED, "messages_per_day": 5}))
    assert sender.send(10) == 5


def test_nothing_is_made_before_the_start(tmp_path):
    rates = SubmissionRates(SubmissionSettings(), str(tmp_path / "rates" / "t"), lambda: START)
    assert not (tmp_path / "rates").exists()
    assert rates.check(ALICE, 0) is None
    assert (tmp_path / "rates" / "t").exists()


def test_a_file_that_cannot_be_made_leaves_a_table_in_memory(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with capturedLogs() as told:
        sender = Sender(tmp_path / "file" / "submission", messages_per_hour=2)
    assert "cannot be used" in told[0]["log_format"]
    assert sender.send(5) == 2


def test_a_clock_that_was_set_back_refuses_no_longer_than_the_period():
    sender = Sender(messages_per_hour=10)
    sender.send(10)
    clock = Clock()
    clock.advance(START - 10 * DAY)
    earlier = SubmissionRates(sender.settings, None, clock.seconds)
    earlier._file = sender.rates._file
    assert earlier.check(ALICE, 0) is not None
    [rates] = all_rates(earlier.table, sender.settings, clock.seconds())
    assert rates.wait_seconds <= HOUR
    clock.advance(HOUR / 10)
    assert earlier.check(ALICE, 0) is None
    assert earlier.check(ALICE, 0) is not None
    assert earlier.table.forget("alice@example.test")
    assert earlier.check(ALICE, 0) is None


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e300, -1.0])
def test_garbage_in_the_file_harms_nobody_for_long(garbage):
    sender = Sender(messages_per_hour=2)
    sender.send(1)
    table = sender.rates.table
    slot = table.find_or_make("alice@example.test")
    for limit in range(4):
        table.set_arrival(slot, limit, garbage)
    sender.rates.check(ALICE, 0)
    rates = rates_of(table.get("alice@example.test"), sender.settings, START)
    assert 0 <= rates.used["messages_per_hour"] <= 2
    assert 0 <= rates.wait_seconds <= HOUR


def test_a_full_table_forgets_who_has_used_least_and_not_who_is_refused():
    sender = Sender(messages_per_day=10, users_remembered=4)
    assert sender.send(20) == 10
    for number in range(200):
        assert sender.send(user=Address(f"user{number}", "example.test")) == 1
    assert sender.send(20) == 0
    assert len(list(sender.rates.table)) == 8


def test_long_and_foreign_names(tmp_path):
    sender = Sender(tmp_path / "t", messages_per_day=2)
    names = [Address("x" * 64, "y" * 60 + ".test"), Address("jürgen", "example.test"), Address("a b", "example.test")]
    for user in names:
        assert sender.send(5, user=user) == 2
    found = SubmissionTable.open_existing(str(tmp_path / "t"))
    assert found is not None
    assert {record.name for record in found} == {str(user) for user in names}


def test_a_foreign_file_is_not_read_as_a_table(tmp_path):
    (tmp_path / "x").write_bytes(bytes(10_000))
    with pytest.raises(ValueError, match="no table"):
        SubmissionTable.open_existing(str(tmp_path / "x"))
    assert SubmissionTable.open_existing(str(tmp_path / "none")) is None
    assert rates_path("/state") == "/state/rates/submission"


# In transactions


def limited_house(house_factory, service="submission", **limits):
    """A house, and the rates its receiver asks."""
    house = house_factory(service)
    rates = SubmissionRates(SubmissionSettings(**{**UNLIMITED, **limits}), None, house.clock.seconds)
    receiver = house.receiver
    receiver._parts = evolve(receiver._parts, submission_rates=rates)
    return house


def refused(deferred):
    """The refusal it failed with, or None."""
    found: list[Any] = []
    deferred.addCallbacks(lambda _: found.append(None), lambda failure: found.append(failure.value))
    return found[0]


def begun(deferred):
    found: list[Any] = []
    deferred.addCallback(found.append)
    return found[0]


def test_mail_of_a_user_is_counted_and_refused(house_factory):
    house = limited_house(house_factory, messages_per_hour=2)
    account = Account(ALICE)
    for _ in range(2):
        assert refused(house.begin(ALICE, account)) is None
    error = refused(house.begin(ALICE, account))
    assert str(error.status) == "4.7.1"
    assert "Too many messages" in error.text
    assert refused(house.begin(BOB, Account(BOB))) is None
    house.clock.advance(1800)
    assert refused(house.begin(ALICE, account)) is None


def test_mail_from_a_foreign_address_is_refused_and_not_counted(house_factory):
    house = limited_house(house_factory, messages_per_hour=1)
    assert str(refused(house.begin(BOB, Account(ALICE))).status) == "5.7.1"
    assert refused(house.begin(ALICE, Account(ALICE))) is None


def test_recipients_of_a_user_are_counted_and_refused(house_factory):
    house = limited_house(house_factory, recipients_per_day=2)
    mail = begun(house.begin(ALICE, Account(ALICE)))
    assert refused(mail.add_recipient(Address("nobody", "example.test"))) is not None  # of no use, so not counted
    assert refused(mail.add_recipient(BOB)) is None
    assert refused(mail.add_recipient(BOB)) is None  # again: one recipient
    assert refused(mail.add_recipient(ALICE)) is None
    another = begun(house.begin(ALICE, Account(ALICE)))
    assert "Too many recipients" in refused(another.add_recipient(BOB)).text


@pytest.mark.parametrize("service", ["mx", "lmtp"])
def test_only_submission_is_counted(house_factory, service):
    house = limited_house(house_factory, service, messages_per_day=1, recipients_per_day=1)
    for _ in range(3):
        mail = begun(house.begin())
        assert refused(mail.add_recipient(ALICE)) is None
