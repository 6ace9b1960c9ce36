"""Changes in a real OpenLDAP server are noticed at once: by polling and by content synchronization."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ldap3
import pytest

from mailsrv.directory.ldap.changes import FollowState, Source
from mailsrv.directory.ldap.changes_poll import PollSource
from mailsrv.directory.ldap.changes_sync import BestSource, PersistentSearchSource, SyncSource
from mailsrv.directory.settings import DirectorySettings, DirectoryType
from mailsrv.tls.self_signed import write_self_signed
from tests.interop.following import Followed, address
from tests.interop.following import follow as follow_directory
from tests.interop.slapd import ADMIN, ADMIN_PASSWORD, BASE, SERVICE, SERVICE_PASSWORD, Slapd, person

PEOPLE, GROUPS = f"ou=people,{BASE}", f"ou=groups,{BASE}"
STAFF = f"cn=staff,{GROUPS}"
SYNCPROV = (
    "moduleload syncprov\noverlay syncprov\nsyncprov-checkpoint 10 1\nsyncprov-sessionlog 100\nindex entryCSN eq\n"
    "index modifyTimestamp eq\n"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Slapd]:
    write_self_signed("localhost", str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    (tmp_path / "secret").write_text(SERVICE_PASSWORD)
    staff = f"dn: {STAFF}\nobjectClass: groupOfNames\nobjectClass: mailUser\ncn: staff\nmail: staff@example.test\n"
    entries = (person("alice", "sesame"), person("bob", "mellon"), f"{staff}member: uid=alice,{PEOPLE}\n")
    with Slapd(tmp_path / "ldap", tmp_path / "cert.pem", tmp_path / "key.pem", entries, directives=SYNCPROV) as one:
        yield one


def follow(server: Slapd, make: Callable[[Any], Source]) -> Followed:
    settings = DirectorySettings(
        DirectoryType.LDAP,
        uri=(server.uri,),
        base=BASE,
        ca_file=str(server.certificate),
        bind_dn=SERVICE,
        bind_password_file=str(server.folder.parent / "secret"),
        attributes={"disabled": ["employeeType=away"]},
        cache_seconds=1e6,
    )
    return follow_directory(
        settings,
        make,
        lambda: ldap3.Connection(ldap3.Server(server.uri), ADMIN, ADMIN_PASSWORD, auto_bind=True),
    )


def poll(concern: Any) -> Source:
    return PollSource(concern, 0.1)


def sync(concern: Any) -> Source:
    return BestSource(concern, 0.1, SyncSource)


def best(concern: Any) -> Source:
    return BestSource(concern, 0.1, None)


@pytest.fixture(params=[poll, sync, best])
def followed(server: Slapd, request: pytest.FixtureRequest) -> Iterator[Followed]:
    one = follow(server, request.param)
    yield one
    one.follower.stop()


def test_the_best_way_is_taken(server: Slapd) -> None:
    assert "content synchronization" in follow(server, best).follower.how
    assert "modifyTimestamp" in follow(server, poll).follower.how


def test_what_a_server_does_not_offer_is_polled(server: Slapd) -> None:
    one = follow(server, lambda concern: BestSource(concern, 0.1, PersistentSearchSource))
    assert "modifyTimestamp" in one.follower.how


def test_a_user_who_is_disabled_is_asked_about_anew(followed: Followed) -> None:
    assert followed.ask("alice").may_log_in
    followed.heard.clear()
    followed.change("alice", employeeType="away")
    followed.until_heard("alice")
    followed.until(lambda: not followed.ask("alice").may_log_in)


def test_a_new_user_is_known_though_they_were_nobody_before(followed: Followed) -> None:
    assert followed.ask("carol") is None
    followed.heard.clear()
    followed.writer().add(
        f"uid=carol,{PEOPLE}", ["inetOrgPerson"], {"cn": "C", "sn": "C", "mail": "carol@example.test"}
    )
    followed.until(lambda: followed.ask("carol") is not None)


def test_an_alias_that_is_taken_away_is_forgotten(followed: Followed) -> None:
    followed.change("bob", mailAlternateAddress="robert@example.test")
    followed.until(lambda: followed.ask("robert") is not None)
    followed.heard.clear()
    followed.change("bob", mailAlternateAddress="rob@example.test")
    followed.until_heard("robert")
    followed.until(lambda: followed.ask("robert") is None)
    assert followed.ask("rob") == (address("bob"),)


def test_members_of_a_list_are_read_anew(followed: Followed) -> None:
    assert followed.ask("staff") == (address("alice"),)
    followed.writer().modify(STAFF, {"member": [(ldap3.MODIFY_ADD, [f"uid=bob,{PEOPLE}"])]})
    followed.until(lambda: set(followed.ask("staff")) == {address("alice"), address("bob")})
    # And where a member has another address.
    followed.change("bob", mail="bobby@example.test")
    followed.until(lambda: set(followed.ask("staff")) == {address("alice"), address("bobby")})


def test_what_changes_nothing_of_where_mail_goes_keeps_the_lists(server: Slapd) -> None:
    one = follow(server, sync)
    assert one.ask("staff") == (address("alice"),)
    one.until_heard("alice")
    assert one.ask("staff") == (address("alice"),)
    one.heard.clear()
    one.change("alice", telephoneNumber="1")
    one.until_heard("alice")
    assert one.parts.directory.peek(address("alice")) is None
    assert one.parts.directory.peek(address("staff")) is not None
    one.follower.stop()


@pytest.mark.parametrize("make", [sync, best])
def test_a_user_who_is_deleted_is_gone_at_once(server: Slapd, make: Callable[[Any], Source]) -> None:
    one = follow(server, make)
    assert one.ask("alice")
    one.writer().delete(f"uid=alice,{PEOPLE}")
    one.until(lambda: one.ask("alice") is None)
    one.follower.stop()


@pytest.mark.parametrize("make", [poll, sync])
def test_a_restart_of_the_server_misses_nothing(server: Slapd, make: Callable[[Any], Source]) -> None:
    one = follow(server, make)
    assert one.ask("alice").may_log_in
    one.heard.clear()
    server.kill()
    one.until(lambda: one.follower.state is FollowState.TRYING)
    assert one.parts.directory.peek(address("alice")) is not None  # an outage forgets nothing
    server.start()
    one.change("alice", employeeType="away")
    one.until_followed()
    one.until_heard("alice")
    one.until(lambda: not one.ask("alice").may_log_in)
    one.follower.stop()


def test_a_stopped_follower_tells_nothing(server: Slapd) -> None:
    one = follow(server, poll)
    one.heard.clear()
    one.follower.stop()
    one.change("alice", employeeType="away")
    time.sleep(0.3)
    while not one.calls.empty():
        one.calls.get()()
    assert not one.heard
