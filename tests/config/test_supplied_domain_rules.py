"""What the check of the configuration allows where a directory lists domains, and what it still finds."""

from __future__ import annotations

import pytest

from mailsrv.config.load import parse
from mailsrv.config.problems import ConfigurationError
from mailsrv.config.schema import Settings

TEXT = """
hostname = "mail.example.test"
state_dir = "state"

[[listen]]
service = "lmtp"
endpoint = "unix:lmtp.sock"

[[directory]]
type = "ldap"
uri = ["ldaps://ldap.example.test"]
base = "dc=example,dc=test"
"""
DEFAULT = '[auth]\ndefault_domain = "example.test"\n'
DOMAIN = '[[domain]]\nname = "static.test"\n'
LIST = '[[list]]\naddress = "team@dir.test"\npost = "users"\n'
ROUTE = '[[route]]\nto = "alice@dir.test"\nvia = "local"\n'
DELIVERY = '[delivery]\nsrs_domain = "dir.test"\n'
STORE = '[store]\npath = "mail/{local}"\n'


def check(*tables: str) -> Settings:
    return parse("\n".join((TEXT, *tables)), "/etc/mailsrv/mailsrv.toml")


def problems(*tables: str) -> set[str]:
    with pytest.raises(ConfigurationError) as raised:
        check(*tables)
    return {problem.key for problem in raised.value.problems}


def test_without_a_directory_that_lists_some_a_domain_is_demanded():
    assert "domain" in problems(DEFAULT)
    assert problems(DEFAULT, DOMAIN) == {"auth.default_domain"}
    assert problems("domains = false", DOMAIN, LIST, ROUTE, DELIVERY) == {
        *("list[0].address", "route[0].to", "delivery.srs_domain")
    }


def test_a_directory_that_lists_domains_is_enough():
    settings = check("domains = true", DEFAULT, LIST, ROUTE, DELIVERY)
    assert settings.domain == ()
    assert settings.directory[0].domains
    assert check("domains = true", DOMAIN, DEFAULT, LIST, ROUTE, DELIVERY).domain[0].name == "static.test"


def test_names_without_a_domain_need_one():
    assert problems("domains = true") == {"auth.default_domain"}
    assert check("domains = true", DOMAIN).auth.default_domain == ""


def test_what_can_be_no_domain_is_found_all_the_same():
    assert problems("domains = true", '[auth]\ndefault_domain = "a b"\n') == {"auth.default_domain"}
    assert problems("domains = true", DEFAULT, '[delivery]\nsrs_domain = "a b"\n') == {"delivery.srs_domain"}


def test_several_domains_may_come_so_accounts_are_kept_apart_by_them():
    assert problems("domains = true", DEFAULT, STORE) == {"store.path"}
    assert check(DOMAIN, STORE).store.path


def test_what_is_said_of_where_domains_stand_is_checked():
    wrong = '[directory.attributes]\ndomain_base = "ou=x,{tree}"\n'
    assert problems("domains = true", wrong, DEFAULT) == {"directory[0].attributes"}
    assert problems("domains = true\ndomains_seconds = 0.5", DEFAULT) == {"directory[0].domains_seconds"}
