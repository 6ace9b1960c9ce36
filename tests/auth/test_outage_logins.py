"""Log-ins while the directory is down, where the administrator wants them."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import fail

from mailsrv.auth.access_settings import AccessAction, AccessSettings
from mailsrv.auth.outage_logins import OutageLogins
from mailsrv.errors import Unavailable
from mailsrv.interfaces.account import InvalidCredentials
from tests.auth.test_checker import ALICE, Case

HOUR: dict[str, Any] = {"outage_seconds": 3600.0, "cache_seconds": 0.0}


def down(case: Case) -> Case:
    case.directory.is_down = True
    return case


def test_r_auth_7_without_the_setting_nobody_logs_in_while_the_directory_is_down() -> None:
    case = Case(cache_seconds=0.0)
    assert case.log_in().address == ALICE
    assert isinstance(down(case).log_in(), Unavailable)


@pytest.mark.parametrize("name", ["alice", "Alice@Example.test"])
def test_who_logged_in_lately_is_let_in_by_that_password(name: str) -> None:
    case = Case(**HOUR)
    assert case.log_in(name).address == ALICE
    down(case)
    assert case.log_in("alice@example.test").address == ALICE
    # Never in the words of a wrong password: it may be a new one.
    assert isinstance(case.log_in(password="wrong"), Unavailable)
    assert isinstance(case.log_in("carol", "friend"), Unavailable)
    # Each service by itself (R-AUTH-2).
    assert isinstance(case.log_in(service="submission"), Unavailable)
    case.clock.advance(3600)
    assert isinstance(case.log_in(), Unavailable)


def test_an_outage_does_not_prolong_itself() -> None:
    case = Case(**HOUR)
    case.log_in()
    down(case)
    case.clock.advance(1800)
    assert case.log_in().address == ALICE
    case.clock.advance(1800)
    assert isinstance(case.log_in(), Unavailable)


def test_r_auth_6_guesses_at_what_was_right_count_and_are_late() -> None:
    case = Case(**HOUR)
    case.log_in()
    down(case)
    for number in range(10):
        (answer,) = _after_delay(case, f"guess {number}")
        assert isinstance(answer.value, Unavailable)
    # Nothing is looked at any more from there.
    (answer,) = _after_delay(case, "sesame")
    assert isinstance(answer.value, InvalidCredentials)
    assert case.log_in().address == ALICE


def _after_delay(case: Case, password: str) -> list[Any]:
    answers = case.begin(password=password, client_address="198.51.100.7")
    assert not answers
    case.clock.advance(15)
    return answers


def test_who_was_disabled_before_the_outage_is_not_let_in() -> None:
    case = Case(**HOUR)
    case.log_in()
    case.directory._users[ALICE] = evolve(case.directory._users[ALICE], may_log_in=False)
    assert isinstance(case.log_in(), InvalidCredentials)
    assert isinstance(down(case).log_in(), Unavailable)


def test_a_new_password_takes_the_place_of_the_old_one_for_all_services() -> None:
    case = Case(**HOUR)
    case.log_in(service="imap")
    case.log_in(service="submission")
    case.directory.add_user(ALICE, "new")
    assert case.log_in(password="new").address == ALICE
    down(case)
    assert case.log_in(password="new").address == ALICE
    for service in ("imap", "submission"):
        assert isinstance(case.log_in(service=service), Unavailable)


def test_rules_hold_as_ever() -> None:
    case = Case(**HOUR)
    case.log_in()
    case.log_in(client_address="198.51.100.7")
    rules = (AccessSettings(AccessAction.DENY, networks=("198.51.100.0/24",)),)
    case.checker._rules._access = type(case.checker._rules._access)(rules)
    down(case)
    assert case.log_in().address == ALICE
    assert isinstance(case.log_in(client_address="198.51.100.7"), Unavailable)


def test_what_is_remembered_has_a_bound() -> None:
    case = Case(**HOUR, cache_entries=1)
    case.log_in()
    case.log_in("alice")
    outage: OutageLogins = case.checker._outage
    assert len(outage) == 1
    assert len(Case(cache_seconds=0.0).checker._outage) == 0


def test_r_auth_6_guesses_count_while_the_cache_lets_somebody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(cache_seconds=1000.0)
    case.log_in(client_address="198.51.100.7")
    # The user is remembered, the password cannot be asked about.
    monkeypatch.setattr(case.directory, "check_password", lambda *_: fail(Unavailable()))
    for number in range(10):
        (answer,) = _after_delay(case, f"guess {number}")
        assert isinstance(answer.value, Unavailable)
    (answer,) = _after_delay(case, "one more")
    assert isinstance(answer.value, InvalidCredentials)
    # From another place, and of this service nothing is known.
    assert case.log_in().address == ALICE
    assert isinstance(case.log_in(service="submission"), Unavailable)
