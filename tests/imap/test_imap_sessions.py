"""Several sessions on one mailbox against a simple model: what each client believes is what is so.

Each client does what RFC 3501 asks of clients: it keeps a list of messages and changes it by
EXISTS, EXPUNGE and FETCH responses alone. Whatever the others do meanwhile, message numbers must
mean to it what they mean to the server, and after a NOOP its list and all flags it has ever
been told must be those of the store.
"""

from __future__ import annotations

import re

from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.defer import Deferred

from mailsrv.interfaces.mailbox import FlagOperation
from mailsrv.wire.settings import LimitsSettings
from tests.imap.server import Client, Server
from tests.sharing.sharing_setting import SUPPORT

_FETCH = re.compile(rb"\* (\d+) FETCH \((.*)$")
_FLAGS = re.compile(rb"FLAGS \(([^)]*)\)")
_UID = re.compile(rb"UID (\d+)")
MESSAGE = b"Subject: m\r\n\r\nm\r\n"
FLAGS = st.sets(st.sampled_from(["\\Seen", "\\Deleted", "\\Flagged", "Work"]), max_size=2)
RENUMBERING_IS_FORBIDDEN = ("FETCH", "STORE", "SEARCH")


@define
class Known:
    """What a client believes of one message."""

    uid: int | None = None
    flags: frozenset[str] | None = None


class Believer:
    """A client with its list."""

    def __init__(self, server: Server, *, name: str, condstore: bool, read_only: bool) -> None:
        self.client = Client(server).login()
        self.messages: list[Known] = []
        self.is_idling = False
        self.read_only = read_only
        parameter = " (CONDSTORE)" if condstore else ""
        self.say(f"{'EXAMINE' if read_only else 'SELECT'} {name}{parameter}")

    def hear(self, said: bytes, command: str = "") -> None:
        for line in said.split(b"\r\n"):
            if line.endswith(b" EXISTS"):
                count = int(line.split()[1])
                assert count >= len(self.messages), "EXISTS may not take messages away"
                self.messages += [Known() for _ in range(count - len(self.messages))]
            elif line.endswith(b" EXPUNGE"):
                assert not command.startswith(RENUMBERING_IS_FORBIDDEN), f"EXPUNGE during {command}"
                number = int(line.split()[1])
                assert 1 <= number <= len(self.messages)
                del self.messages[number - 1]
            elif found := _FETCH.match(line):
                number = int(found.group(1))
                assert 1 <= number <= len(self.messages)
                known = self.messages[number - 1]
                if uid := _UID.search(found.group(2)):
                    assert known.uid in (None, int(uid.group(1))), "a number changed its message"
                    known.uid = int(uid.group(1))
                if flags := _FLAGS.search(found.group(2)):
                    known.flags = frozenset(flags.group(1).decode().split()) - {"\\Recent"}

    def say(self, command: str) -> bytes:
        said = self.client.say(command)
        self.hear(said, command)
        assert b"BYE" not in said, said
        return said

    def listen(self) -> None:
        self.hear(self.client.take())


class Sessions(RuleBasedStateMachine):
    name = "INBOX"

    def make_server(self):
        return Server(limits=LimitsSettings(exempt_networks=("192.0.2.0/24",)))

    @initialize(condstore=st.lists(st.booleans(), min_size=3, max_size=3), is_slow=st.booleans())
    def begin(self, condstore, is_slow):
        self.surprises = []
        self.server = self.make_server()
        self.inbox = self.server.mailbox()
        for _ in range(3):
            self.server.add(MESSAGE)
        self.believers = [
            Believer(self.server, name=self.name, condstore=condstore[0], read_only=False),
            Believer(self.server, name=self.name, condstore=condstore[1], read_only=False),
            Believer(self.server, name=self.name, condstore=condstore[2], read_only=True),
        ]
        if is_slow:
            for name in ("refresh", "claim_recent", "store_flags", "expunge", "copy", "move", "summaries", "contents"):
                setattr(self.inbox, name, self.slowly(getattr(self.inbox, name)))

    def slowly(self, method):
        """The store takes a turn of the reactor, and in it others change the mailbox: before or after."""

        def call(*arguments, **options):
            answer: Deferred[object] = Deferred()

            def work():
                is_after, change = self.surprises.pop(0) if self.surprises else (False, lambda: None)
                if not is_after:
                    change()
                done = method(*arguments, **options)
                if is_after:
                    change()
                done.chainDeferred(answer)

            self.server.clock.callLater(0, work)
            return answer

        return call

    @rule(
        is_after=st.booleans(),
        kind=st.sampled_from(["deliver", "vanish", "flag"]),
        at=st.integers(0, 4),
        flags=FLAGS,
        times=st.integers(1, 4),
    )
    def plan(self, is_after, kind, at, flags, times):
        """What happens in the middle of the next commands (where the store is slow)."""

        def change():
            uids = self.inbox.uids
            if kind == "deliver":
                self.server.add(MESSAGE, flags=tuple(flags))
            elif at < len(uids) and kind == "vanish":
                self.inbox.remove([uids[at]])
            elif at < len(uids):
                self.inbox._store_flags([uids[at]], FlagOperation.REPLACE, frozenset(flags), None)

        self.surprises += [(is_after, change)] * times

    who = st.integers(0, 2)
    writer = st.integers(0, 1)

    def pick(self, index):
        believer = self.believers[index]
        if believer.is_idling:
            believer.hear(believer.client.send(b"DONE\r\n"))
            believer.is_idling = False
        return believer

    @rule(flags=FLAGS, count=st.integers(1, 3))
    def deliver(self, flags, count):
        for _ in range(count):
            self.server.add(MESSAGE, flags=tuple(flags))

    @rule(
        who=writer,
        flags=FLAGS,
        operation=st.sampled_from(["FLAGS", "+FLAGS", "-FLAGS"]),
        silent=st.booleans(),
        uid=st.booleans(),
        at=st.integers(0, 5),
        width=st.integers(0, 3),
    )
    def store(self, who, flags, operation, silent, uid, at, width):
        believer = self.pick(who)
        if at >= len(believer.messages):
            return
        chosen = believer.messages[at : at + width + 1]
        if uid and any(known.uid is None for known in chosen):
            return
        numbers = ",".join(str(known.uid) for known in chosen) if uid else f"{at + 1}:{at + len(chosen)}"
        before = [(known, known.flags) for known in chosen]
        command = f"{'UID ' if uid else ''}STORE {numbers} {operation}{'.SILENT' if silent else ''} ({' '.join(flags)})"
        heard: set[int] = set()
        for known in chosen:
            known.flags = None
        said = believer.say(command)
        heard = {id(known) for known in chosen if known.flags is not None}
        for known, had in before:
            if id(known) in heard or not silent:
                continue
            # Nothing was told, so the client works it out (RFC 3501 6.4.6).
            if operation == "FLAGS":
                known.flags = frozenset(flags)
            elif had is not None:
                known.flags = had | flags if operation == "+FLAGS" else had - flags
        assert b" OK" in said or b"[EXPUNGEISSUED]" in said
        if b"[EXPUNGEISSUED]" in said or uid:
            # What is gone was not changed; it will be expunged, and nothing is believed of it until then.
            alive = set(self.inbox.uids)
            for known in chosen:
                if known.uid is None or known.uid not in alive:
                    known.flags = None

    @rule(who=writer)
    def expunge(self, who):
        assert b" OK" in self.pick(who).say("EXPUNGE")

    @rule(at=st.integers(0, 5))
    def vanish(self, at):
        if at < len(self.inbox.uids):
            self.inbox.remove([self.inbox.uids[at]])

    @rule(who=who, uid=st.booleans(), low=st.integers(1, 6))
    def fetch(self, who, uid, low):
        believer = self.pick(who)
        if uid:
            assert b" OK" in believer.say(f"UID FETCH {low}:* (UID FLAGS)")
        elif low <= len(believer.messages):
            said = believer.say(f"FETCH {low}:* (UID FLAGS)")
            assert b" OK" in said or b"[EXPUNGEISSUED]" in said

    @rule(who=who)
    def read(self, who):
        believer = self.pick(who)
        if believer.messages:
            believer.say("FETCH 1:* (UID RFC822.SIZE BODY[HEADER.FIELDS (SUBJECT)])")

    @rule(who=who, uid=st.booleans(), flag=st.sampled_from(["SEEN", "DELETED", "KEYWORD work"]))
    def search(self, who, uid, flag):
        believer = self.pick(who)
        is_surprised = bool(self.surprises)
        said = believer.say(f"{'UID ' if uid else ''}SEARCH {flag}")
        line = next(line for line in said.split(b"\r\n") if line.startswith(b"* SEARCH"))
        wanted = "\\" + flag.capitalize() if " " not in flag else "Work"
        for number in map(int, line.split()[2:]):
            found = number if uid else believer.messages[number - 1].uid
            if found is not None and not is_surprised and found in set(self.inbox.uids):
                assert wanted in self.server.account.flags_of("INBOX", found)

    @rule(who=writer, at=st.integers(0, 4), moves=st.booleans())
    def copy(self, who, at, moves):
        believer = self.pick(who)
        if at < len(believer.messages):
            believer.say(f"{'MOVE' if moves else 'COPY'} {at + 1} {'Trash' if moves else self.name}")

    @rule(who=who)
    def idle(self, who):
        believer = self.believers[who]
        if not believer.is_idling:
            assert b"+ idling" in believer.say("IDLE")
            believer.is_idling = True

    @rule(who=who)
    def noop(self, who):
        believer = self.pick(who)
        self.surprises.clear()
        believer.say("NOOP")
        self.check(believer)

    @precondition(lambda self: hasattr(self, "believers"))
    @invariant()
    def who_idles_knows(self):
        for believer in self.believers:
            if believer.is_idling:
                self.surprises.clear()
                believer.listen()
                self.check(believer)

    def check(self, believer):
        uids = list(self.inbox.uids)
        assert len(believer.messages) == len(uids)
        for known, uid in zip(believer.messages, uids, strict=True):
            assert known.uid in (None, uid)
            if known.flags is not None:
                assert known.flags == self.server.account.flags_of("INBOX", uid)

    def teardown(self):
        self.surprises = []
        for believer in getattr(self, "believers", ()):
            self.pick(self.believers.index(believer))
            believer.say("NOOP")
            self.check(believer)
            believer.say("FETCH 1:* (UID FLAGS)")
            assert [known.uid for known in believer.messages] == list(self.inbox.uids)
            self.check(believer)
            believer.client.transport.close_from_client()
            believer.client.take()
        if hasattr(self, "server"):
            assert self.server.factory.connection_count == 0


Sessions.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestSessions = Sessions.TestCase


class SharedSessions(Sessions):
    """The mailbox is somebody else's; what is moved goes to the user's own account."""

    name = '"Other Users/support@example.test"'

    def make_server(self):
        server = super().make_server()
        server.owner = SUPPORT
        server.share("support:write")
        return server


SharedSessions.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestSharedSessions = SharedSessions.TestCase
