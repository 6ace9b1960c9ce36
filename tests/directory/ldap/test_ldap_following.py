"""Sources of changes over servers that are played: what they tell, what they lose, and what is no LDAP."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.address import Address
from mailsrv.directory.ldap import changes_sync, messages
from mailsrv.directory.ldap.answers import Answer, AnswerCache
from mailsrv.directory.ldap.changes import Change, ChangeFollower, Changes, Feed, NotOffered
from mailsrv.directory.ldap.changes_poll import Concern, TimeStampPoll, UsnPoll, former_dn
from mailsrv.directory.ldap.changes_sync import (
    ENTRY_CHANGE,
    PERSISTENT_SEARCH,
    SYNC_INFO,
    SYNC_REQUEST,
    SYNC_STATE,
    BestSource,
    PersistentSearchSource,
    SyncSource,
)
from mailsrv.directory.ldap.connection import LdapEntry
from mailsrv.directory.ldap.entry import EntryReader
from mailsrv.directory.ldap.filters import present
from mailsrv.directory.ldap.mapping import load_preset
from mailsrv.directory.ldap.messages import INTERMEDIATE_RESPONSE, SEARCH_DONE, SEARCH_ENTRY, Message, tlv
from mailsrv.directory.ldap.search import Search
from mailsrv.directory.ldap.trouble import ConnectionLost, LdapTrouble, RequestTrouble, ServerTrouble
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.sessions import DirectoryProof, SessionEnd

BASE = "dc=example,dc=test"
CONCERN = Concern(BASE, present("objectClass"), ("mail",), 5.0)
NUMBER = 7
DONE = tlv(0x0A, b"\0") + tlv(0x04, b"") + tlv(0x04, b"")


def entry(dn: str, mail: str = "", control: bytes = b"") -> Message:
    attribute = tlv(0x30, tlv(0x04, b"mail") + tlv(0x31, tlv(0x04, mail.encode()))) if mail else b""
    content = tlv(0x04, dn.encode()) + tlv(0x30, attribute)
    return Message(NUMBER, SEARCH_ENTRY, content, control)


def state(kind: int, cookie: bytes = b"") -> bytes:
    value = tlv(0x30, tlv(0x0A, bytes((kind,))) + tlv(0x04, b"u" * 16) + (tlv(0x04, cookie) if cookie else b""))
    return messages.control(SYNC_STATE, value)


def information(tag: int, inside: bytes) -> Message:
    return Message(NUMBER, INTERMEDIATE_RESPONSE, tlv(0x80, SYNC_INFO) + tlv(0x81, tlv(tag, inside)))


def changed(kind: int, former: str = "") -> bytes:
    value = tlv(0x30, tlv(0x0A, bytes((kind,))) + (tlv(0x04, former.encode()) if former else b""))
    return messages.control(ENTRY_CHANGE, value)


REFRESHED = information(0xA1, tlv(0x04, b"cookie 1"))


@define(eq=False)
class Played:
    """A connection whose other end says what it was given."""

    says: list[Message | None]
    root: dict[str, tuple[bytes, ...]]
    searches: list[Sequence[LdapEntry] | LdapTrouble] = field(factory=list)
    asked: list[tuple[bytes, ...]] = field(factory=list)
    server: Any = None

    def search(self, search: Search, deadline: float) -> Sequence[LdapEntry]:
        if not search.base:
            return (LdapEntry("", self.root),)
        found = self.searches.pop(0)
        if isinstance(found, LdapTrouble):
            raise found
        return found

    def begin_search(self, *_: object, controls: tuple[bytes, ...] = (), **more: object) -> int:
        self.asked.append(controls)
        return NUMBER

    def next_message(self, seconds: float) -> Message | None:
        if not self.says:
            raise ConnectionLost("over")
        return self.says.pop(0)


@define(eq=False)
class Told:
    """What was told; goes on as long as there is something said."""

    changes: list[Changes] = field(factory=list)
    how: str = ""

    def tell(self, changes: Changes) -> None:
        self.changes.append(changes)

    def pause(self, seconds: float) -> bool:
        return False

    def goes_on(self) -> bool:
        return True

    def following(self, how: str) -> None:
        self.how = how


def offers(*controls: bytes) -> dict[str, tuple[bytes, ...]]:
    return {"supportedcontrol": controls}


def follow(source: Any, says: Sequence[Message | None], root: dict[str, tuple[bytes, ...]] | None = None) -> Told:
    told = Told()
    connection: Any = Played(list(says), offers(SYNC_REQUEST, PERSISTENT_SEARCH) if root is None else root)
    with pytest.raises(ConnectionLost):
        source.follow(connection, told)
    return told


def names(changes: Changes) -> list[tuple[str, bool]]:
    assert changes is not None
    return [(change.dn, change.entry is None) for change in changes]


def test_rfc_4533_the_first_refresh_is_one_notice_and_then_each_change_is_told() -> None:
    told = follow(
        SyncSource(CONCERN),
        [
            entry("uid=a", "a@example.test", state(1)),
            entry("uid=b", "b@example.test", state(1)),
            REFRESHED,
            None,
            entry("uid=a", "x@example.test", state(2)),
            entry("uid=b", "", state(3)),
            None,
        ],
    )
    assert told.changes[0] is None
    assert names(told.changes[1]) == [("uid=a", False), ("uid=b", True)]
    assert told.how == "content synchronization"


def test_rfc_4533_the_cookie_is_shown_again_and_only_what_was_missed_is_told() -> None:
    source = SyncSource(CONCERN)
    follow(source, [REFRESHED, None, entry("uid=a", "a@example.test", state(2, b"cookie 2")), None])
    told, again = Told(), Played([entry("uid=c", "c@example.test", state(1)), REFRESHED, None], offers(SYNC_REQUEST))
    connection: Any = again
    with pytest.raises(ConnectionLost):
        source.follow(connection, told)
    assert b"cookie 2" in again.asked[0][0]
    assert [names(each) for each in told.changes] == [[("uid=c", False)]]


def test_rfc_4533_what_came_before_the_connection_broke_is_told_because_its_cookie_is_kept() -> None:
    source = SyncSource(CONCERN)
    told = follow(source, [REFRESHED, None, entry("uid=a", "a@example.test", state(2, b"cookie 2"))])
    assert told.changes[0] is None
    assert [names(each) for each in told.changes[1:]] == [[("uid=a", False)]]
    # In the midst of a refresh, too.
    told = follow(source, [entry("uid=b", "b@example.test", state(2, b"cookie 3"))])
    assert [names(each) for each in told.changes] == [[("uid=b", False)]]
    assert told.how == "", "but nothing is followed yet"


@pytest.mark.parametrize("said", [information(0xA2, b""), information(0xA3, tlv(0x31, tlv(0x04, b"u" * 16)))])
def test_rfc_4533_deletions_without_names_may_be_of_anybody(said: Message) -> None:
    source = SyncSource(CONCERN)
    follow(source, [REFRESHED, None])
    assert follow(source, [said, REFRESHED, None]).changes == [None]


def test_rfc_4533_a_server_that_wants_to_begin_anew_gets_no_cookie() -> None:
    source = SyncSource(CONCERN)
    follow(source, [REFRESHED, None])
    refused = tlv(0x0A, (4096).to_bytes(2, "big")) + tlv(0x04, b"") + tlv(0x04, b"")
    follow(source, [Message(NUMBER, SEARCH_DONE, refused)])
    again = Played([], offers(SYNC_REQUEST))
    connection: Any = again
    with pytest.raises(ConnectionLost):
        source.follow(connection, Told())
    assert b"cookie" not in again.asked[0][0]


def test_more_missed_than_is_kept_may_be_anything() -> None:
    source = SyncSource(CONCERN)
    follow(source, [REFRESHED, None])
    many = [entry(f"uid={number}", "a@example.test", state(2)) for number in range(1000)]
    assert follow(source, [*many, REFRESHED, None]).changes == [None]


def test_a_persistent_search_tells_new_changed_renamed_and_deleted_entries() -> None:
    told = follow(
        PersistentSearchSource(CONCERN),
        [
            entry("uid=a", "a@example.test", changed(1)),
            entry("uid=b", "", changed(2)),
            entry("uid=d", "d@example.test", changed(8, "uid=c")),
            None,
        ],
    )
    assert told.changes[0] is None
    assert names(told.changes[1]) == [("uid=a", False), ("uid=b", True), ("uid=c", True), ("uid=d", False)]
    assert told.how == "persistent search"


@pytest.mark.parametrize("source", [SyncSource, PersistentSearchSource])
def test_what_is_not_offered_is_not_asked_for(source: Callable[[Concern], Any]) -> None:
    connection: Any = Played([], offers())
    with pytest.raises(NotOffered):
        source(CONCERN).follow(connection, Told())


def test_the_best_of_what_is_offered() -> None:
    told, played = Told(), Played([None], offers(PERSISTENT_SEARCH))
    connection: Any = played
    with pytest.raises(ConnectionLost):
        BestSource(CONCERN, 1.0, None).follow(connection, told)
    assert told.how == "persistent search"
    polled: Any = Played([], offers(), searches=[()])
    BestSource(CONCERN, 1.0, None).follow(polled, told)
    assert told.how == "polling modifyTimestamp"


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.sampled_from([0x64, 0x65, 0x79]), st.binary())
def test_octets_that_are_no_ldap_are_the_servers_trouble(contents: list[bytes], tag: int, control: bytes) -> None:
    for source in (SyncSource(CONCERN), PersistentSearchSource(CONCERN)):
        said = [Message(NUMBER, tag, content, control) for content in contents]
        connection: Any = Played([*said, None], offers(SYNC_REQUEST, PERSISTENT_SEARCH))
        with pytest.raises((ServerTrouble, RequestTrouble)):
            source.follow(connection, Told())


# Polling


def stamped(dn: str, stamp: str, **values: str) -> LdapEntry:
    texts = {"modifytimestamp": stamp, **values}
    return LdapEntry(dn, {name: (value.encode(),) for name, value in texts.items()})


def polled(poll: Any, *answers: Sequence[LdapEntry] | LdapTrouble, usn: int = 0) -> list[Changes]:
    told = Told()
    root: dict[str, tuple[bytes, ...]] = {
        "highestcommittedusn": (str(usn).encode(),),
        "dsservicename": (b"dc1",),
        "defaultnamingcontext": (b"dc=x",),
    }
    connection: Any = Played([], root, searches=list(answers))
    poll.begin(LdapEntry("", root), told)
    poll.ask(connection, told)
    return told.changes


def test_what_was_there_at_the_beginning_is_no_news_and_later_changes_are() -> None:
    poll = TimeStampPoll(CONCERN)
    first = stamped("uid=a", "20240101000000Z", entrycsn="1")
    assert polled(poll, [first]) == []
    assert polled(poll, [first]) == []
    later = stamped("uid=a", "20240101000000Z", entrycsn="2")
    assert polled(poll, [later]) == [[Change("uid=a", later)]]


def test_without_a_finer_mark_a_second_change_within_a_second_is_not_lost() -> None:
    poll = TimeStampPoll(CONCERN)
    assert polled(poll, []) == []
    # Nothing had changed for long: the first change is told.
    quiet = stamped("uid=z", "20240101000000Z")
    assert polled(poll, [quiet]) == [[Change("uid=z", quiet)]]
    once = stamped("uid=a", "20240101000001Z")
    assert polled(poll, [once]) == [[Change("uid=a", once)]]
    assert polled(poll, [once]) == [[Change("uid=a", once)]]
    assert polled(poll, [once]) == []


class Clocks:
    """Our time of day and the time that passes; what a poll asks for last."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.asked = ""

    def poll(self) -> TimeStampPoll:
        return TimeStampPoll(CONCERN, now=self.now, seconds=lambda: self.passed)

    def now(self) -> datetime.datetime:
        return datetime.datetime(2024, 6, 1, 12, tzinfo=datetime.UTC) + datetime.timedelta(seconds=self.passed)

    def ask(self, poll: TimeStampPoll, *entries: LdapEntry) -> datetime.datetime:
        """Since when changes are asked for."""
        asked: list[str] = []

        def search(search: Search, deadline: float) -> Sequence[LdapEntry]:
            asked.append(search.what.text)
            return entries

        connection: Any = SimpleNamespace(search=search)
        poll.ask(connection, Told())
        stamp = re.search(r">=(\d{14}Z)", asked[0])
        assert stamp is not None
        return datetime.datetime.strptime(stamp[1], "%Y%m%d%H%M%S%z")


def test_one_entry_from_the_future_does_not_hide_what_comes_before_it() -> None:
    clocks = Clocks()
    poll = clocks.poll()
    clocks.ask(poll, stamped("uid=a", "20990101000000Z"))
    clocks.passed += 10
    assert clocks.ask(poll) <= clocks.now() - datetime.timedelta(seconds=300)


@pytest.mark.parametrize("behind", [-900, 0, 900])
def test_entries_that_came_all_at_once_are_not_asked_for_ever_after(behind: float) -> None:
    """Whatever the server's clock shows, what it does now is asked for, and what it did an hour ago is not."""
    clocks = Clocks()
    poll = clocks.poll()

    def server() -> datetime.datetime:
        return clocks.now() - datetime.timedelta(seconds=behind)

    loaded = server()
    clocks.ask(poll, *(stamped(f"uid={number}", f"{loaded:%Y%m%d%H%M%SZ}") for number in range(10)))
    clocks.passed += 3600
    since = clocks.ask(poll)
    assert loaded < since <= server() - datetime.timedelta(seconds=300)


def test_numbers_go_on_where_they_were_and_deleted_entries_get_their_names_back() -> None:
    poll = UsnPoll(CONCERN)
    assert polled(poll, usn=100) == []
    gone = LdapEntry("CN=Carol\\0ADEL:0a1b,CN=Deleted Objects,DC=x", {"lastknownparent": (b"CN=Users,DC=x",)})
    here = LdapEntry("CN=Ada,CN=Users,DC=x", {})
    assert polled(poll, [here], [gone], usn=102) == [[Change(here.dn, here), Change("CN=Carol,CN=Users,DC=x")]]
    assert polled(poll, usn=102) == []


def test_who_may_not_see_deleted_entries_asks_once() -> None:
    poll = UsnPoll(CONCERN)
    polled(poll, usn=100)
    assert polled(poll, [], RequestTrouble("no right"), usn=101) == []
    assert polled(poll, [], usn=102) == []


def test_a_server_that_was_set_back_may_have_changed_anything() -> None:
    poll = UsnPoll(CONCERN)
    polled(poll, usn=100)
    assert polled(poll, usn=50) == [None]


def test_another_server_counts_for_itself() -> None:
    poll = UsnPoll(CONCERN)
    polled(poll, usn=100)
    told = Told()
    poll.begin(LdapEntry("", {"highestcommittedusn": (b"7",), "dsservicename": (b"dc2",)}), told)
    assert told.changes == [None]


def test_a_deleted_entry_without_a_parent_has_no_name() -> None:
    assert former_dn(LdapEntry("CN=Carol\\0ADEL:0a1b,CN=Deleted Objects,DC=x", {})) == ""
    assert former_dn(LdapEntry("CN=Carol,DC=x", {"lastknownparent": (b"DC=x",)})) == ""


# What is forgotten


def test_answers_of_an_entry_are_dropped_together_and_still_serve_an_outage() -> None:
    now = [0.0]
    cache = AnswerCache(clock=lambda: now[0], seconds=100, outage_seconds=1000, entries=3)
    alice, alias, group = (Address(name, "example.test") for name in ("alice", "al", "staff"))
    user = DirectoryUser(alice)
    cache.add(alice, Answer(user, "uid=alice"))
    cache.add(alias, Answer(dn="uid=Alice", targets=(alice,)))
    cache.add(group, Answer(dn="cn=staff", targets=(alice,), is_list=True))
    assert cache.users_of("UID=alice") == [user]
    assert cache.drop_entry("uid=ALICE", ()) == {alice, alias}
    assert cache.fresh(alice) is None
    assert cache.fresh(alias) is None
    assert cache.fresh(group) is not None
    assert cache.stale(alice) is not None
    cache.drop_lists()
    assert cache.fresh(group) is None
    # Bounded, its index too.
    for number in range(50):
        cache.add(Address(f"user{number}", "example.test"), Answer(user, f"uid=user{number}"))
    assert len(cache) == 3
    assert len(cache._by_dn) == 3


def test_a_silent_connection_is_asked_for_a_sign_of_life_and_given_up_without(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(changes_sync, "time", SimpleNamespace(monotonic=lambda: now[0]))
    other = Message(NUMBER + 1, SEARCH_DONE, DONE)
    played = Played([None, None, other, None, None, None, None], {})
    connection: Any = played
    listening = changes_sync.Listening(connection, NUMBER, Told(), 5.0)
    assert listening.next() is None
    now[0] = 31.0
    assert listening.next() is None
    assert len(played.asked) == 1
    # The answer to that is no change, but a sign.
    now[0] = 34.0
    assert listening.next() is None
    now[0] = 60.0
    assert listening.next() is None
    assert len(played.asked) == 1
    now[0] = 65.0
    assert listening.next() is None
    assert len(played.asked) == 2
    now[0] = 69.0
    assert listening.next() is None
    now[0] = 70.5
    with pytest.raises(ServerTrouble, match="silent"):
        listening.next()


def test_the_servers_farewell_ends_it() -> None:
    connection: Any = Played([Message(0, 0x78, DONE)], {})
    with pytest.raises(ConnectionLost):
        changes_sync.Listening(connection, NUMBER, Told(), 5.0).next()


@pytest.mark.parametrize(
    ("preset", "attribute"),
    [("active-directory", "pwdLastSet"), ("freeipa", "krbLastPwdChange"), ("openldap", "pwdChangedTime")],
)
def test_sessions_outlive_changes_that_are_no_new_password_where_these_can_be_told_apart(
    preset: str, attribute: str
) -> None:
    reader = EntryReader(load_preset(preset), name="ldap", default_domain="example.test", seconds=lambda: 0.0)

    def user(stamp: str, changed_at: str, name: str = attribute) -> DirectoryUser:
        texts = {"mail": "a@example.test", "modifytimestamp": changed_at, "whenchanged": changed_at}
        texts[name.lower()] = stamp
        found = reader.user(LdapEntry("uid=a", {key: (value.encode(),) for key, value in texts.items()}))
        assert found is not None
        return found.user

    def end(before: DirectoryUser, after: DirectoryUser) -> SessionEnd | None:
        ends: list[SessionEnd | None] = []
        DirectoryProof(before).objection(after).addCallback(ends.append)
        return ends[0]

    early, late = "20240101000000Z", "20240102000000Z"
    assert user(early, early).fingerprint != user(early, late).fingerprint
    assert end(user(early, early), user(early, late)) is None
    assert end(user(early, early), user(late, early)) is SessionEnd.CHANGED
    # Without such an attribute any change counts.
    assert end(user(early, early, "cn"), user(early, late, "cn")) is SessionEnd.CHANGED


def test_a_server_that_lets_us_go_again_and_again_is_left_alone_for_longer_and_longer() -> None:
    """Each connection costs all that is remembered."""
    waits: list[float] = []

    class Stopped:
        def is_set(self) -> bool:
            return len(waits) >= 5

        def wait(self, seconds: float) -> bool:
            waits.append(seconds)
            return False

    class Brief:
        def follow(self, connection: object, feed: Feed) -> None:
            feed.following("a way")
            raise ConnectionLost("over")

    servers = SimpleNamespace(usable=lambda: [SimpleNamespace(uri="ldap://one")])
    opened = SimpleNamespace(close=lambda: None)
    attempts: Any = SimpleNamespace(servers=servers, open=lambda *_, **more: opened)
    follower: Any = ChangeFollower(
        "x", attempts, Brief(), lambda _changes: None, call_from_thread=lambda call: call(), attempt_seconds=1.0
    )
    follower._is_stopped = Stopped()
    follower._run()
    assert waits == [1, 2, 4, 8, 16]
