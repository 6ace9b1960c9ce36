"""The Maildir store and its memory twin, led through the same story, tell the same (hypothesis)."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.python.failure import Failure

from mailsrv.address import Address
from mailsrv.disk import RealDisk
from mailsrv.errors import MailError
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.mailbox import FlagOperation, NewMessage
from mailsrv.store.check import check_account
from mailsrv.store.memory import MemoryMailStore
from mailsrv.store.settings import StoreSettings
from tests.store.store_setting import StoreSetting

ALICE = Address("alice", "example.test")
NAMES = st.sampled_from(["INBOX", "Archive", "A", "A/b", "A/b/c", "B", "x.y"])
FLAGS = st.frozensets(st.sampled_from(["\\Seen", "\\Deleted", "\\Flagged", "work", "$Junk"]), max_size=3)
PICK = st.integers(0, 2**16)


class Twins(RuleBasedStateMachine):
    """UIDs are compared by place: a restart may leave gaps in one twin."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="twins-")
        self.settings = StoreSettings(path=f"{self.folder}/{{local}}", mailbox_count=12)
        self.memory = self.account(MemoryMailStore(self.settings))
        self.setting = StoreSetting(self.settings)
        self.maildir = self.account(self.setting.store)
        self.number = 0

    @staticmethod
    def account(store: Any) -> Any:
        return store.open_account(ALICE).result

    @staticmethod
    def outcome(deferred: Any) -> Any:
        result = deferred.result
        if isinstance(result, Failure):
            deferred.addErrback(lambda _: None)
            assert result.check(MailError), result
            return type(result.value)
        return result

    def both(self, function: Any) -> tuple[Any, Any]:
        one, other = self.outcome(function(self.memory)), self.outcome(function(self.maildir))
        if isinstance(one, type) or isinstance(other, type):
            assert one == other
        return one, other

    def on_mailbox(self, name: str, function: Any) -> None:
        one, other = self.both(lambda mail: mail.open_mailbox(name))
        if not isinstance(one, type):
            first, second = self.outcome(function(one)), self.outcome(function(other))
            if isinstance(first, type) or isinstance(second, type):
                assert first == second
            other.close()

    @staticmethod
    def some(mailbox: Any, pick: int) -> list[int]:
        return [uid for place, uid in enumerate(mailbox.uids) if pick >> (place % 16) & 1]

    @rule(name=NAMES, flags=FLAGS, count=st.integers(1, 3))
    def append(self, name: str, flags: frozenset[str], count: int) -> None:
        messages = []
        for _ in range(count):
            self.number += 1
            messages.append(NewMessage(InlineContent(b"Subject: %d\r\n\r\nx\r\n" % self.number), flags, self.number))
        self.both(lambda mail: mail.append(name, messages))

    @rule(name=NAMES, pick=PICK, flags=FLAGS, operation=st.sampled_from(FlagOperation))
    def store(self, name: str, pick: int, flags: frozenset[str], operation: FlagOperation) -> None:
        self.on_mailbox(name, lambda mailbox: mailbox.store_flags(self.some(mailbox, pick), operation, flags))

    @rule(name=NAMES)
    def expunge(self, name: str) -> None:
        self.on_mailbox(name, lambda mailbox: mailbox.expunge())

    @rule(name=NAMES, pick=PICK)
    def delete_messages(self, name: str, pick: int) -> None:
        self.on_mailbox(name, lambda mailbox: mailbox.delete_messages(self.some(mailbox, pick)))

    @rule(name=NAMES, destination=NAMES, pick=PICK, is_move=st.booleans())
    def copy(self, name: str, destination: str, pick: int, is_move: bool) -> None:
        def act(mailbox: Any) -> Any:
            uids = self.some(mailbox, pick)
            return mailbox.move(uids, destination) if is_move else mailbox.copy(uids, destination)

        self.on_mailbox(name, act)

    @rule(name=NAMES)
    def create(self, name: str) -> None:
        self.both(lambda mail: mail.create(name))

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self.both(lambda mail: mail.delete(name))

    @rule(old=NAMES, new=NAMES)
    def rename(self, old: str, new: str) -> None:
        self.both(lambda mail: mail.rename(old, new))

    @rule(name=NAMES, subscribed=st.booleans())
    def subscribe(self, name: str, subscribed: bool) -> None:
        self.both(lambda mail: mail.subscribe(name, subscribed=subscribed))

    @rule()
    def names_catch_up(self) -> None:
        self.setting.reactor.advance(3)

    @rule(is_kill=st.booleans())
    def restart(self, is_kill: bool) -> None:
        if is_kill:
            self.setting.kill()
        else:
            self.setting.stop()
        self.setting = StoreSetting(self.settings, segment_id=self.setting.journal.segment_id)
        self.setting.journal._offsets = iter(range(self.number * 10_000, 1 << 60, 4096))  # type: ignore[assignment]
        self.maildir = self.account(self.setting.store)

    def picture(self, mail: Any) -> Any:
        infos = mail.list_mailboxes().result
        picture: list[Any] = [(info.name, info.is_selectable, info.is_subscribed, info.exists) for info in infos]
        for info in infos:
            if info.is_selectable:
                mailbox = mail.open_mailbox(info.name).result
                contents = mailbox.contents(list(mailbox.uids)).result
                flags = [mailbox.flag_set(number) for number in mailbox.flag_set_numbers]
                dates = [summary.internal_date for summary in mailbox.summaries(list(mailbox.uids)).result]
                status = mail.status(info.name).result
                picture.append(
                    (
                        info.name,
                        [one.octets if one else None for one in contents],
                        flags,
                        dates,
                        (status.messages, status.unseen, status.deleted, status.size_octets),
                    )
                )
                mailbox.close()
        quota = mail.quota().result
        picture.append((quota.octets, quota.messages))
        return picture

    @invariant()
    def the_twins_agree(self) -> None:
        assert self.picture(self.memory) == self.picture(self.maildir)

    def teardown(self) -> None:
        self.setting.stop()
        report = check_account(RealDisk(), f"{self.folder}/alice")
        shutil.rmtree(self.folder)
        assert report.is_sound, report
        assert not report.differs, report


TestTwins = Twins.TestCase
TestTwins.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
