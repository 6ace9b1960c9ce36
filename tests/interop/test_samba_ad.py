"""A real Samba domain controller: log-in by every name, nested groups, accounts that are shut, changes, discovery."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner
from twisted.internet.task import Clock

from mailsrv.address import Address
from mailsrv.cli.root import root
from mailsrv.directory.ldap.build import LdapParts, make_ldap_directory
from mailsrv.directory.ldap.changes import ChangeFollower, Changes, FollowState
from mailsrv.directory.ldap.changes_build import concern_of
from mailsrv.directory.ldap.changes_poll import PollSource
from mailsrv.directory.settings import DirectorySettings, DirectoryType
from mailsrv.errors import Unavailable
from tests.interop.recipe import section
from tests.interop.samba import ADMIN, ADMIN_PASSWORD, BASE, DISABLED, SERVICE, SERVICE_PASSWORD, USERS, Samba

PASSWORD = "Secret.w0rd"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def samba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Samba]:
    with Samba(tmp_path_factory.mktemp("samba")) as server:
        server.add_user("searcher", SERVICE_PASSWORD)
        ada = server.add_user(
            "ada",
            PASSWORD,
            mail="ada.lovelace@example.test",
            proxyAddresses=["SMTP:ada.lovelace@example.test", "smtp:countess@example.test", "x400:c=GB"],
            displayName="Ada Lovelace",
        )
        ben = server.add_user("ben", PASSWORD, mail="ben@example.test")
        off = server.add_user("off", PASSWORD, control=DISABLED, mail="off@example.test")
        server.add_user("old", PASSWORD, mail="old@example.test", accountExpires="132000000000000000")
        inner = server.add_group("inner", ben, off)
        server.add_group("staff", ada, inner, mail="staff@example.test")
        (server.folder / "service.secret").write_text(SERVICE_PASSWORD + "\n")
        (server.folder / "admin.secret").write_text(ADMIN_PASSWORD + "\n")
        yield server


@attrs.frozen(eq=False)
class Asked:
    """A directory that is asked in place."""

    parts: LdapParts

    def result(self, deferred: Any) -> Any:
        results: list[Any] = []
        deferred.addBoth(results.append)
        (result,) = results
        if hasattr(result, "raiseException"):
            result.raiseException()
        return result

    def user(self, name: str) -> Any:
        return self.result(self.parts.directory.find_user(address(name)))

    def targets(self, name: str) -> Any:
        return self.result(self.parts.directory.find_alias(address(name)))

    def log_in(self, name: str, password: str = PASSWORD) -> str:
        """The account; "" where the log-in fails."""
        user = self.result(self.parts.directory.find_login(address(name)))
        if user is None or not user.may_log_in:
            return ""
        return str(user.address) if self.result(self.parts.directory.check_password(user, password)) else ""


def address(name: str) -> Address:
    local, _, domain = name.partition("@")
    return Address(local, domain or "example.test")


def settings(samba: Samba, **changes: Any) -> DirectorySettings:
    values: dict[str, Any] = {
        "uri": (samba.uri,),
        "preset": "samba-ad",
        "base": BASE,
        "ca_file": str(samba.certificate),
        "bind_dn": SERVICE,
        "bind_password_file": str(samba.folder / "service.secret"),
    }
    return DirectorySettings(DirectoryType.LDAP, **{**values, **changes})


def asked(samba: Samba, **changes: Any) -> Asked:
    return Asked(make_ldap_directory(settings(samba, **changes), clock=Clock(), default_domain="example.test"))


@pytest.fixture(params=["samba-ad", "active-directory"])
def preset(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.parametrize("name", ["ada", "ada@example.test", "ada.lovelace", "ADA.Lovelace@example.test", "countess"])
def test_login_by_short_name_principal_name_mail_and_alias(samba: Samba, preset: str, name: str) -> None:
    directory = asked(samba, preset=preset)
    assert directory.log_in(name) == "ada.lovelace@example.test"
    assert directory.log_in(name, "Wrong.w0rd") == ""


def test_what_is_told_of_a_user(samba: Samba) -> None:
    directory = asked(samba)
    user = directory.user("ada.lovelace")
    assert user.display_name == "Ada Lovelace"
    assert user.may_log_in
    assert directory.targets("countess") == (address("ada.lovelace"),)
    assert directory.user("nobody") is None


def test_r_auth_1_an_empty_password_lets_nobody_in(samba: Samba) -> None:
    # Active Directory takes a name without a password for an anonymous bind, which succeeds.
    assert asked(samba).log_in("ada", "") == ""


@pytest.mark.parametrize("name", ["off", "old"])
def test_accounts_that_are_shut_or_have_expired(samba: Samba, preset: str, name: str) -> None:
    directory = asked(samba, preset=preset)
    assert not directory.user(name).may_log_in
    assert directory.log_in(name) == ""


def test_groups_within_groups_and_the_primary_group(samba: Samba, preset: str) -> None:
    directory = asked(samba, preset=preset, administrator_groups=("Domain Users",))
    assert set(directory.targets("staff")) >= {address("ada.lovelace"), address("ben")}
    groups = directory.result(directory.parts.directory.find_groups(directory.user("ben")))
    assert {"inner", "staff", "Domain Users"} <= set(groups)
    found = directory.result(directory.parts.directory.find_login(address("ben")))
    assert found.is_administrator


def test_over_ldaps_and_over_starttls_with_the_certificate_checked(samba: Samba) -> None:
    assert asked(samba, uri=(samba.tls_uri,)).log_in("ben") == "ben@example.test"
    with pytest.raises(Unavailable, match="certificate"):
        asked(samba, uri=(samba.tls_uri,), ca_file="").log_in("ben")


def test_without_tls_the_server_takes_no_password(samba: Samba) -> None:
    with pytest.raises(Unavailable, match="strong"):
        asked(samba, starttls=False).log_in("ben")


def test_a_review_asks_for_many_at_once(samba: Samba) -> None:
    directory = asked(samba)
    names = [address(name) for name in ("ada.lovelace", "ben", "off", "gone")]
    found = directory.result(directory.parts.directory.review(names))
    assert [found[name] is not None and found[name].may_log_in for name in names] == [True, True, False, False]


def test_changes_are_polled_by_number_and_what_is_deleted_is_seen(samba: Samba) -> None:
    carol = samba.add_user("carol", PASSWORD, mail="carol@example.test")
    directory = asked(samba, cache_seconds=1e6, bind_dn=ADMIN, bind_password_file=str(samba.folder / "admin.secret"))
    parts = directory.parts
    calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    def hear(changes: Changes) -> None:
        parts.directory.forget(changes)

    follower = ChangeFollower(
        "samba",
        parts.attempts,
        PollSource(concern_of(parts.mapping, BASE, 5.0), 0.1),
        hear,
        call_from_thread=calls.put,
        attempt_seconds=2.0,
    )

    def until(is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 15
        while not is_so():
            assert time.monotonic() < deadline
            try:
                calls.get(timeout=0.05)()
            except queue.Empty:
                continue

    follower.start()
    try:
        until(lambda: follower.state is FollowState.FOLLOWING)
        assert follower.how.startswith("polling uSNChanged")
        assert directory.user("carol").may_log_in
        assert directory.user("dora") is None
        samba.modify(carol, userAccountControl=str(DISABLED))
        until(lambda: not directory.user("carol").may_log_in)
        samba.add_user("dora", PASSWORD, mail="dora@example.test")
        until(lambda: directory.user("dora") is not None)
        samba.delete(carol)
        until(lambda: directory.user("carol") is None)
        # R-AUTH-2: what was verified with the old password is good no more.
        before = directory.user("dora").fingerprint
        samba.modify(f"CN=dora,{USERS}", unicodePwd='"Another.w0rd1"'.encode("utf-16-le"))
        until(lambda: directory.user("dora").fingerprint != before)
        assert directory.log_in("dora", "Another.w0rd1")
    finally:
        follower.stop()
        samba.delete(f"CN=dora,{USERS}")


def test_discover_finds_the_preset_and_the_base(samba: Samba) -> None:
    arguments = ["ldap", "discover", samba.uri, "--ca-file", str(samba.certificate)]
    done = CliRunner().invoke(root, arguments)
    assert done.exit_code == 0, done.output
    (table,) = tomllib.loads(done.output)["directory"]
    assert table["preset"] in {"samba-ad", "active-directory"}
    assert table["base"].lower() == BASE.lower()


RECIPE = """\
set -ex
samba-tool() {{ command samba-tool "$@" -H {folder}/private/sam.ldb -s {configuration}; }}
export PATH="{bin}:$PATH" MAILSRV_CONFIG={config}
"""
CONFIG = """\
hostname = "mail.example.test"
state_dir = "{folder}/state"

[auth]
default_domain = "example.test"

[[listen]]
service = "mx"
endpoint = "tcp:25"

[[domain]]
name = "example.test"

[store]
type = "memory"
path = "mail/{{domain}}/{{local}}"

"""


def test_every_line_of_the_recipe_works(samba: Samba, tmp_path: Path) -> None:
    entries, table, commands = section("ldap.rst", "Samba, step by step")
    config, secret = tmp_path / "mailsrv.toml", tmp_path / "ldap.secret"
    secret.write_text("Serv1ce.of.mail\n")
    begin = RECIPE.format(
        folder=samba.folder, configuration=samba.configuration, bin=Path(sys.executable).parent, config=config
    )
    text = CONFIG.format(folder=tmp_path) + table.replace("/etc/mailsrv/samba-ca.pem", str(samba.certificate))
    config.write_text(
        text.replace("/etc/mailsrv/ldap.secret", str(secret)).replace("ldaps://dc1.example.test", samba.tls_uri)
    )
    afterwards = "echo Nan0second.s | mailsrvctl ldap check grace --password-stdin"
    script = "\n".join((begin, entries.replace("/etc/mailsrv/ldap.secret", str(secret)), commands, afterwards))
    done = subprocess.run(
        ["bash", "-c", script],
        env=dict(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mail for it goes to grace@example.test" in done.stdout


def test_domains_are_those_of_the_forest_and_the_suffixes_of_principals(samba: Samba, preset: str) -> None:
    partitions = f"CN=Partitions,CN=Configuration,{BASE}"
    source = asked(samba, preset=preset, domains=True, base=USERS).parts.domains
    assert source is not None
    samba.modify(partitions, uPNSuffixes="shop.example")
    try:
        found: list[Any] = []
        source.find_domains().addBoth(found.append)
        assert [(each.name, each.main) for each in found[0]] == [
            ("example.test", "example.test"),
            ("shop.example", "shop.example"),
        ]
        assert found[0][0].origin == f"dnsRoot of CN=EXAMPLE,{partitions}"
    finally:
        samba.modify(partitions, uPNSuffixes=[])
