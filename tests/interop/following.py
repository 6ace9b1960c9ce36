"""A directory of a real server whose changes are followed."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

import attrs
import ldap3
from twisted.internet.task import Clock

from mailsrv.address import Address
from mailsrv.directory.ldap.build import LdapParts, make_ldap_directory
from mailsrv.directory.ldap.changes import ChangeFollower, Changes, FollowState, Source
from mailsrv.directory.ldap.changes_build import concern_of
from mailsrv.directory.settings import DirectorySettings

LATEST_SECONDS = 10
BASE = "dc=example,dc=test"


def address(text: str) -> Address:
    return Address(text, "example.test")


@attrs.define(eq=False)
class Followed:
    """A directory whose changes are followed; what comes of them is done when :meth:`until` looks."""

    parts: LdapParts
    writer: Callable[[], ldap3.Connection]
    """A connection of who may change entries."""
    follower: ChangeFollower
    calls: queue.SimpleQueue[Callable[[], object]]
    heard: list[set[Address] | None] = attrs.field(factory=list)

    def ask(self, name: str) -> Any:
        """The user, or what a list stands for, or None; as the cache or the server says."""
        results: list[Any] = []
        self.parts.directory.find_user(address(name)).addBoth(results.append)
        self.parts.directory.find_alias(address(name)).addBoth(results.append)
        return results[0] or results[1]

    def until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LATEST_SECONDS
        while not is_so():
            assert time.monotonic() < deadline, self.heard
            try:
                self.calls.get(timeout=0.05)()
            except queue.Empty:
                continue

    def until_followed(self) -> None:
        self.until(lambda: self.follower.state is FollowState.FOLLOWING)

    def until_heard(self, name: str) -> None:
        self.until(lambda: any(each is None or address(name) in each for each in self.heard))

    def change(self, uid: str, **values: str) -> None:
        done = self.writer().modify(
            f"uid={uid},ou=people,{BASE}", {name: [(ldap3.MODIFY_REPLACE, [value])] for name, value in values.items()}
        )
        assert done


def follow(
    settings: DirectorySettings, make: Callable[[Any], Source], writer: Callable[[], ldap3.Connection]
) -> Followed:
    """Returns when what changes from now on is heard of."""
    parts = make_ldap_directory(settings, clock=Clock(), default_domain="example.test")
    calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    def hear(changes: Changes) -> None:
        told = parts.directory.forget(changes)
        one.heard.append(None if told is None else set(told))

    follower = ChangeFollower(
        "ldap",
        parts.attempts,
        make(concern_of(parts.mapping, settings.base, 5.0)),
        hear,
        call_from_thread=calls.put,
        attempt_seconds=2.0,
    )
    one = Followed(parts, writer, follower, calls)
    follower.start()
    one.until_followed()
    return one
