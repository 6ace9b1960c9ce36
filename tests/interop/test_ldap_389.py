"""FreeIPA's directory server, 389 DS: log-ins by the preset, and changes heard by persistent search."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailsrv.directory.ldap.changes_sync import BestSource
from mailsrv.directory.settings import DirectorySettings, DirectoryType
from tests.interop.ds389 import BASE, SERVICE, Ds389
from tests.interop.following import Followed, address, follow

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Ds389]:
    with Ds389() as one:
        one.add_person("alice", "sesame, open")
        one.add_person("bob", "speak, friend")
        yield one


def settings_of(server: Ds389) -> DirectorySettings:
    return DirectorySettings(
        DirectoryType.LDAP,
        uri=(server.uri,),
        base=BASE,
        preset="freeipa",
        ca_file=str(server.certificate),
        bind_dn=SERVICE,
        bind_password_file=str(server.secret),
        cache_seconds=1e6,
    )


@pytest.fixture
def followed(server: Ds389) -> Iterator[Followed]:
    one = follow(settings_of(server), lambda concern: BestSource(concern, 5.0, None), server.writer)
    one.heard.clear()
    yield one
    one.follower.stop()


def test_persistent_search_is_the_best_it_offers(followed: Followed) -> None:
    assert "persistent search" in followed.follower.how


def now(deferred: Deferred[Any]) -> Any:
    results: list[Any] = []
    deferred.addBoth(results.append)
    return results[0]


def test_log_ins_by_the_preset(followed: Followed) -> None:
    directory = followed.parts.directory
    alice = now(directory.find_login(address("alice")))
    assert (alice.address, alice.display_name) == (address("alice"), "alice")
    assert now(directory.check_password(alice, "sesame, open")) is True
    assert now(directory.check_password(alice, "sesame")) is False


def test_a_lock_is_heard_at_once_and_so_is_its_end(server: Ds389, followed: Followed) -> None:
    assert followed.ask("bob").may_log_in
    server.change("bob", nsAccountLock="true")
    followed.until_heard("bob")
    assert not followed.ask("bob").may_log_in
    followed.heard.clear()
    server.change("bob", nsAccountLock="")
    followed.until_heard("bob")
    assert followed.ask("bob").may_log_in


def test_who_comes_and_who_goes_is_heard(server: Ds389, followed: Followed) -> None:
    assert followed.ask("carol") is None
    server.add_person("carol", "moria")
    followed.until_heard("carol")
    assert followed.ask("carol").address == address("carol")
    followed.heard.clear()
    assert server.writer().delete(f"uid=carol,ou=people,{BASE}")
    followed.until_heard("carol")
    assert followed.ask("carol") is None
