"""The sessions of a process follow the directories that are configured now, and no earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.task import Clock
from zope.interface import directlyProvides, implementer

from mailsrv.address import Address
from mailsrv.app.sessions import Sessions
from mailsrv.auth.access_settings import AccessAction, AccessSettings
from mailsrv.config.schema import Settings
from mailsrv.directory.chain import DirectoryChain
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.interfaces.directory_changes import IFollowDirectory
from mailsrv.interfaces.sessions import DirectoryProof, IUserSession, Login, SessionEnd
from mailsrv.store.bus import LocalChangeBus

ALICE = Address("alice", "example.test")
SETTINGS = Settings("mail.example.test", "state")


class Followed(MemoryDirectory):
    """Tells of changes when the test says so."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.listeners: list[Callable[[Sequence[Address] | None], None]] = []
        directlyProvides(self, IFollowDirectory)

    def follow_changes(self, changed: Callable[[Sequence[Address] | None], None]) -> Callable[[], None]:
        self.listeners.append(changed)
        return lambda: self.listeners.remove(changed)


@implementer(IUserSession)
class Session:
    service, connection_id, client_address = "imap", "imap-1", ""

    def __init__(self) -> None:
        self.ends: list[SessionEnd] = []

    def end_session(self, end: SessionEnd) -> None:
        self.ends.append(end)

    def abort(self) -> None:
        """Not needed here."""


def test_a_reload_follows_the_new_directories_and_a_change_ends_sessions_at_once() -> None:
    clock = Clock()
    first, second = Followed("first"), Followed("second")
    current: list[Any] = [DirectoryChain([first])]
    sessions = Sessions(SETTINGS, clock=clock, bus=LocalChangeBus(), directory=lambda: current[0])
    sessions.start()
    sessions.use(current[0], SETTINGS)
    assert (len(first.listeners), len(second.listeners)) == (1, 0)
    current[0] = DirectoryChain([second])
    sessions.use(current[0], SETTINGS)
    assert (len(first.listeners), len(second.listeners)) == (0, 1)
    user = second.add_user(ALICE, "secret")
    session = Session()
    sessions.registry.enter(session, Login(user, DirectoryProof(user)))
    second.add_user(ALICE, "secret", may_log_in=False)
    second.listeners[0]([Address("bob", "example.test")])
    clock.advance(1)
    assert not session.ends
    second.listeners[0]([ALICE])
    clock.advance(1)
    assert session.ends == [SessionEnd.DISABLED]
    sessions.stop()
    assert not second.listeners


def test_anything_may_have_changed_is_everybody() -> None:
    clock = Clock()
    directory = Followed("one")
    sessions = Sessions(SETTINGS, clock=clock, bus=LocalChangeBus(), directory=lambda: DirectoryChain([directory]))
    sessions.start()
    sessions.use(directory, SETTINGS)
    user = directory.add_user(ALICE, "secret")
    session = Session()
    sessions.registry.enter(session, Login(user, DirectoryProof(user)))
    directory.add_user(ALICE, "another")
    directory.listeners[0](None)
    clock.advance(1)
    assert session.ends == [SessionEnd.CHANGED]


def test_an_administrator_is_who_the_directory_says_now() -> None:
    clock = Clock()
    directory = Followed("one")
    sessions = Sessions(SETTINGS, clock=clock, bus=LocalChangeBus(), directory=lambda: DirectoryChain([directory]))
    sessions.start()
    sessions.use(directory, SETTINGS)
    user = directory.add_user(ALICE, "secret")
    admin = directory.add_user(Address("admin", "example.test"), "secret", is_administrator=True)
    session = Session()
    sessions.registry.enter(session, Login(user, DirectoryProof(admin), acting=admin))
    directory.listeners[0](None)
    clock.advance(1)
    assert not session.ends
    directory.add_user(admin.address, "secret")
    directory.listeners[0]([admin.address])
    clock.advance(1)
    assert session.ends == [SessionEnd.DEMOTED]


def test_new_rules_on_log_ins_are_held_against_open_sessions_at_once() -> None:
    clock = Clock()
    directory = MemoryDirectory()
    sessions = Sessions(SETTINGS, clock=clock, bus=LocalChangeBus(), directory=lambda: DirectoryChain([directory]))
    sessions.start()
    sessions.use(directory, SETTINGS)
    user = directory.add_user(ALICE, "secret", groups=("guests",))
    session = Session()
    sessions.registry.enter(session, Login(user, DirectoryProof(user)))
    clock.advance(1)
    rules = (AccessSettings(AccessAction.DENY, groups=("guests",)),)
    sessions.use(directory, evolve(SETTINGS, access=rules))
    clock.advance(1)
    assert session.ends == [SessionEnd.DENIED]
