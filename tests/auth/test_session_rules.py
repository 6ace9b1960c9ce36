"""Sessions that could not be begun any more, by the rules on log-ins, end."""

from __future__ import annotations

import pytest

from mailsrv.auth.access_settings import AccessAction, AccessSettings, LoginService
from mailsrv.auth.session_rules import GROUPS_SECONDS
from mailsrv.auth.settings import AuthSettings, SecondFactor
from mailsrv.errors import Unavailable
from mailsrv.interfaces.sessions import DirectoryProof, LastingProof, SessionEnd
from tests.auth.test_session_watch import ALICE, BOB, Place

PLAIN = AuthSettings()


@pytest.fixture
def place() -> Place:
    return Place()


def deny(**what: tuple[str, ...] | tuple[LoginService, ...]) -> AccessSettings:
    return AccessSettings(AccessAction.DENY, **what)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "ends"),
    [
        (deny(users=(str(ALICE),)), True),
        (deny(users=(str(BOB),)), False),
        (deny(networks=("192.0.2.0/24",)), True),
        (deny(networks=("198.51.100.0/24", "local")), False),
        (deny(services=(LoginService.IMAP,)), True),
        (deny(services=(LoginService.POP3,)), False),
        (deny(domains=("example.test",)), True),
    ],
)
def test_new_rules_hold_for_open_sessions(place: Place, rule: AccessSettings, ends: bool) -> None:
    alice = place.log_in()
    by_certificate = place.log_in(proof=LastingProof(place.clock.seconds))
    place.rules.replace(PLAIN, (rule,))
    place.watch.heard(None)
    place.clock.advance(0.2)
    assert alice.ends == by_certificate.ends == ([SessionEnd.DENIED] if ends else [])
    assert not place.asked_groups


def test_who_comes_into_a_group_that_is_denied_or_leaves_one_that_is_allowed_is_out(place: Place) -> None:
    allow = AccessSettings(AccessAction.ALLOW, groups=("staff",))
    place.rules.replace(PLAIN, (deny(groups=("Guests",)), allow, deny()))
    place.change(groups=("staff",))
    place.change(BOB, groups=("staff",))
    alice, bob = place.log_in(), place.log_in(BOB)
    place.clock.advance(20)
    assert not alice.ends
    place.change(groups=("staff", "guests"))
    place.change(BOB, groups=())
    # A directory that tells of its changes says so at once.
    place.watch.heard((ALICE,))
    place.clock.advance(0.2)
    assert (alice.ends, bob.ends) == ([SessionEnd.DENIED], [])
    place.clock.advance(GROUPS_SECONDS + 20)
    assert bob.ends == [SessionEnd.DENIED]


def test_groups_are_asked_for_now_and_then_and_only_where_a_rule_needs_them(place: Place) -> None:
    alice = place.log_in()
    for _ in range(3):
        place.clock.advance(20)
    assert not place.asked_groups
    place.rules.replace(PLAIN, (deny(groups=("guests",)),))
    for _ in range(int(GROUPS_SECONDS / 20) - 1):
        place.clock.advance(20)
    assert place.asked_groups == [ALICE]
    for _ in range(3):
        place.clock.advance(20)
    assert place.asked_groups == [ALICE, ALICE]
    alice.leave()
    place.log_in()
    place.clock.advance(20)
    assert place.asked_groups == [ALICE] * 3


def test_r_auth_7_where_groups_cannot_be_asked_for_nothing_ends(place: Place) -> None:
    alice, bob = place.log_in(), place.log_in(BOB)
    place.change(groups=("guests",))
    place.rules.replace(PLAIN, (deny(groups=("guests",)),))
    place.trouble = Unavailable()
    place.clock.advance(20)
    assert not alice.ends
    assert set(place.asked_groups) == {ALICE, BOB}
    place.trouble = None
    place.clock.advance(20)
    assert alice.ends == [SessionEnd.DENIED]
    assert not bob.ends


@pytest.mark.parametrize(
    "settings", [AuthSettings(second_factor=SecondFactor.ALL), AuthSettings(second_factor_groups=("Strict",))]
)
def test_a_second_factor_that_is_demanded_of_a_group_or_all_ends_what_the_password_began(
    place: Place, settings: AuthSettings
) -> None:
    place.change(groups=("strict",))
    by_password, by_certificate = place.log_in(), place.log_in(proof=LastingProof(place.clock.seconds))
    by_ticket = place.log_in(proof=LastingProof(place.clock.seconds, is_second_factor=False))
    place.rules.replace(settings, ())
    place.clock.advance(20)
    assert by_password.ends == by_ticket.ends == [SessionEnd.SECOND_FACTOR]
    assert not by_certificate.ends


def test_networks_of_a_user_hold_for_open_sessions(place: Place) -> None:
    alice = place.log_in()
    place.change(networks=("192.0.2.0/24",))
    place.clock.advance(20)
    assert not alice.ends
    place.change(networks=("198.51.100.0/24", "local"))
    place.clock.advance(20)
    assert alice.ends == [SessionEnd.DENIED]


def test_rules_are_about_who_logged_in_and_not_about_whose_mailbox_it_is(place: Place) -> None:
    place.change(BOB, is_administrator=True)
    admin = place.user(BOB)
    acting = place.log_in(acting=admin, proof=DirectoryProof(admin))
    place.rules.replace(PLAIN, (deny(users=(str(ALICE),)),))
    place.clock.advance(20)
    assert not acting.ends
    place.rules.replace(PLAIN, (deny(users=(str(BOB),)),))
    place.clock.advance(20)
    assert acting.ends == [SessionEnd.DENIED]
