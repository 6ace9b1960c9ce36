"""``[[access]]``: the first rule that fits decides; what is denied is answered as a wrong password is."""

from __future__ import annotations

import unicodedata

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.address import Address
from mailsrv.auth.access import AccessDecision, AccessRules
from mailsrv.auth.access_settings import AccessAction, AccessSettings, LoginService
from mailsrv.auth.second_factor import SecondFactorRule
from mailsrv.auth.settings import AuthSettings
from mailsrv.config.load import parse
from mailsrv.config.problems import ConfigurationError
from mailsrv.interfaces.directory import DirectoryUser
from tests.smallest_config import SMALLEST

ALICE = DirectoryUser(Address("alice", "example.test"), groups=("Staff", "cn=all,dc=test"))
BOB = DirectoryUser(Address("bob", "other.test"))
OFFICE, HOME = "192.0.2.7", "198.51.100.1"


def rule(action: str, **values: object) -> AccessSettings:
    return AccessSettings(AccessAction(action), **values)  # type: ignore[arg-type]


def decide(
    rules: list[AccessSettings], user: DirectoryUser = ALICE, service: str = "imap", address: str = OFFICE
) -> bool:
    return AccessRules(rules).decide(user, service, address).is_allowed


def test_without_a_rule_that_fits_it_is_allowed():
    assert AccessRules().decide(ALICE, "imap", HOME) == AccessDecision(True, 0)
    assert decide([rule("deny", users=("bob@other.test",))])


def test_the_first_rule_that_fits_decides():
    allow = rule("allow", groups=("staff",), networks=("192.0.2.0/24",))
    deny = rule("deny", groups=("staff",))
    assert AccessRules([allow, deny]).decide(ALICE, "imap", OFFICE) == AccessDecision(True, 1)
    assert AccessRules([allow, deny]).decide(ALICE, "imap", HOME) == AccessDecision(False, 2)
    assert AccessRules([deny, allow]).decide(ALICE, "imap", OFFICE) == AccessDecision(False, 1)
    assert decide([allow, deny], BOB, address=HOME)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_are_the_same_whichever_way_they_are_composed(form):
    def written(text: str) -> str:
        return unicodedata.normalize(form, text)

    zoe = DirectoryUser(Address("zoë", "example.test"), groups=(unicodedata.normalize("NFD", "Büro"), "Straße"))
    assert not decide([rule("deny", users=(written("Zoë@example.test"),))], zoe)
    assert not decide([rule("deny", groups=(written("BÜRO"),))], zoe)
    assert SecondFactorRule(AuthSettings(second_factor_groups=(written("BÜRO"),))).demands(zoe)
    # One is not another.
    assert decide([rule("deny", users=("strasse@example.test",))], DirectoryUser(Address("straße", "example.test")))


@pytest.mark.parametrize(
    "values",
    [
        {"users": ("Alice@Example.TEST",)},
        {"users": ("bob@other.test", "alice@example.test")},
        {"groups": ("STAFF",)},
        {"groups": ("CN=all,DC=test",)},
        {"domains": ("EXAMPLE.test",)},
        {"services": (LoginService.POP3, LoginService.IMAP)},
        {"networks": ("192.0.2.0/24",)},
        {"networks": ("::/0", "192.0.2.7/32")},
        {},
    ],
)
def test_names_are_compared_without_case_and_one_of_a_list_has_to_fit(values):
    assert not decide([rule("deny", **values)])


@pytest.mark.parametrize(
    "values",
    [
        {"users": ("alice@other.test",)},
        {"groups": ("sales",)},
        {"domains": ("sub.example.test",)},
        {"services": (LoginService.SUBMISSION,)},
        {"networks": ("198.51.100.0/24", "local")},
        {"groups": ("staff",), "domains": ("other.test",)},
    ],
)
def test_all_that_is_set_has_to_fit(values):
    assert decide([rule("deny", **values)])


def test_a_unix_socket_is_local_and_in_no_network():
    assert not decide([rule("deny", networks=("local",))], address="")
    assert decide([rule("deny", networks=("0.0.0.0/0", "::/0"))], address="")
    assert not decide([rule("deny")], address="")


def test_mapped_ipv4_is_ipv4():
    assert not decide([rule("deny", networks=("192.0.2.0/24",))], address=f"::ffff:{OFFICE}")


@given(st.text(max_size=40), st.text(max_size=20), st.lists(st.text(max_size=20), max_size=4))
def test_r_inj_3_any_name_of_a_client_or_directory_is_decided_about(address, service, groups):
    rules = AccessRules([rule("allow", groups=("staff",)), rule("deny", networks=("192.0.2.0/24",))])
    user = attrs.evolve(ALICE, groups=tuple(groups))
    assert isinstance(rules.decide(user, service, address).is_allowed, bool)


def test_all_mistakes_are_told_at_once():
    text = SMALLEST + (
        '[[access]]\naction = "refuse"\n'
        '[[access]]\naction = "deny"\nusers = ["alice"]\nservices = ["imap", "smtp"]\n'
        '[[access]]\naction = "deny"\nusers = ["@"]\nnetworks = ["192.0.2.1/24"]\ndomains = ["a b"]\ngroups = [" "]\n'
        '[auth.impersonation]\nseparator = "a"\n'
    )
    with pytest.raises(ConfigurationError) as raised:
        parse(text, "/etc/m.toml")
    keys = {problem.key for problem in raised.value.problems}
    assert keys == {
        "access[0].action",
        "access[1].services[1]",
        "access[1].users",
        "access[2].users",
        "access[2].networks",
        "access[2].domains",
        "access[2].groups",
        "auth.impersonation.separator",
    }


def test_a_table_becomes_a_rule():
    settings = parse(
        SMALLEST + '[[access]]\naction = "deny"\nservices = ["pop3"]\nnetworks = ["local", "192.0.2.0/24"]\n', "/etc/m"
    )
    assert not AccessRules(settings.access).decide(ALICE, "pop3", "").is_allowed
    assert AccessRules(settings.access).decide(ALICE, "imap", "").is_allowed
