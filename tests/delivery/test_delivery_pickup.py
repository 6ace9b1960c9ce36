"""Mail of local programs: who they are, what they left while the server was down, and that none of it is lost."""

import os
import socket
import time

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, execute, succeed
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.address import Address
from mailsrv.delivery.drop_folder import (
    CORRUPT,
    TORN_SECONDS,
    DroppedMessage,
    drop,
    look,
    make_drop_folder,
)
from mailsrv.delivery.local_submission import Admission, LocalPeers
from mailsrv.delivery.pickup import Pickup, lock_path, spool_path
from mailsrv.delivery.settings import SendmailSettings
from mailsrv.errors import InsufficientStorage, MailError, Unavailable
from mailsrv.interfaces.envelope import BodyType, Notify, RecipientParameters, ReturnContent
from mailsrv.wire.networks import NetworkSet

from .conftest import ALICE, BOB, make_house

FRIEND = Address("friend", "example.org")
CONTENT = b"From: alice@example.test\r\nMessage-ID: <1@x>\r\nDate: x\r\n\r\nHello\r\n"
MESSAGE = DroppedMessage(ALICE, ((BOB, RecipientParameters()),), CONTENT)
PARAMETERS = RecipientParameters(Notify.SUCCESS | Notify.DELAY, "rfc822;x@example.org")
FULL_MESSAGE = DroppedMessage(
    None,
    ((BOB, PARAMETERS), (Address("ö", "example.org"), RecipientParameters())),
    b"\x00\xff",
    BodyType.EIGHT_BIT,
    is_smtputf8=True,
    return_content=ReturnContent.FULL,
    envelope_id="id",
)


def nobody_may(account, address):
    return succeed(False)


def find(path, **options):
    values = {"without": (), "most": 100, "octets": 1 << 20, "message_octets": 1 << 20, "now": time.time()}
    return look(str(path), **{**values, **options})


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "drop"
    make_drop_folder(str(path))
    return path


def test_the_folder_takes_files_of_all_and_shows_none(folder):
    assert os.stat(folder).st_mode & 0o7777 == 0o1733
    assert os.stat(folder / CORRUPT).st_mode & 0o7777 == 0o700
    os.chmod(folder, 0o1777)
    make_drop_folder(str(folder))
    assert os.stat(folder).st_mode & 0o7777 == 0o1777


@pytest.mark.parametrize("message", [MESSAGE, FULL_MESSAGE])
def test_what_is_left_is_found(folder, message):
    name = drop(str(folder), message)
    (file,) = find(folder).files
    assert (file.name, file.uid, file.message) == (name, os.getuid(), message)


@given(st.data())
def test_r_dur_6_a_torn_file_is_no_message(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("torn")
    make_drop_folder(str(folder))
    name = drop(str(folder), FULL_MESSAGE)
    octets = (folder / name).read_bytes()
    place = data.draw(st.integers(0, len(octets) - 1))
    if data.draw(st.booleans()):
        (folder / name).write_bytes(octets[:place])
    else:
        (folder / name).write_bytes(octets[:place] + bytes([octets[place] ^ 0x55]) + octets[place + 1 :])
    found = find(folder)
    assert not found.files
    assert not found.corrupt, "it may still be written"
    later = find(folder, now=time.time() + TORN_SECONDS + 1)
    assert [each for each, _ in later.corrupt] == [name]
    assert (folder / CORRUPT / name).exists()


def test_strange_files_are_put_aside(folder, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"x")
    os.symlink(other, folder / "a.mail")
    os.mkfifo(folder / "b.mail")
    name = drop(str(folder), MESSAGE)
    os.link(folder / name, tmp_path / "again")
    os.mkdir(folder / "c.mail")
    drop(str(folder), evolve(MESSAGE, content=b"x" * 5_000_000))
    (folder / "ignored").write_bytes(b"")
    found = find(folder, message_octets=1000)
    assert not found.files
    assert len(found.corrupt) == 5
    assert not find(folder).corrupt
    assert other.read_bytes() == b"x"


def test_portions(folder):
    names = [drop(str(folder), MESSAGE) for _ in range(5)]
    found = find(folder, most=2)
    assert [file.name for file in found.files] == sorted(names)[:2]
    assert found.waiting == 3
    assert len(find(folder, octets=1).files) == 1
    assert len(find(folder, without=set(names[:4])).files) == 1


def test_a_full_disk_leaves_nothing(folder, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        drop(str(folder), MESSAGE)
    assert [each.name for each in folder.iterdir()] == [CORRUPT]


class PeerTests(SynchronousTestCase):
    def peers(self, **settings):
        return LocalPeers(SendmailSettings(**settings), domain="example.test", may_send_as=nobody_may)

    def test_r_auth_a_user_of_this_machine_is_who_the_system_says(self):
        peers = self.peers()
        root = peers.account_of_uid(0)
        assert root is not None
        assert root.address == Address("root", "example.test")
        assert self.successResultOf(root.may_send_as(FRIEND)) is True
        stranger = peers.account_of_uid(987_654)
        assert stranger is not None
        assert stranger.address == Address("uid-987654", "example.test")
        assert self.successResultOf(stranger.may_send_as(stranger.address)) is True
        assert self.successResultOf(stranger.may_send_as(ALICE)) is False
        self.failureResultOf(stranger.open_mailboxes(), MailError)
        trusted = self.peers(trusted_users=("uid-987654",)).account_of_uid(987_654)
        assert trusted is not None
        assert self.successResultOf(trusted.may_send_as(ALICE)) is True

    def test_the_other_end_of_a_unix_socket(self):
        class Transport:
            def __init__(self, handle):
                self.handle = handle

            def getHandle(self):
                return self.handle

        ours, theirs = socket.socketpair(socket.AF_UNIX)
        other = socket.socket(socket.AF_INET)
        try:
            account = self.peers().account_of_transport(Transport(ours))
            assert account is not None
            assert account.is_trusted
            admission = Admission(self.peers(), NetworkSet(["192.0.2.0/24"]))
            assert getattr(admission(Transport(ours), ""), "address", None) == account.address
            assert admission(Transport(other), "192.0.2.7") is True
            assert admission(Transport(other), "198.51.100.7") is False
            assert admission(Transport(other), "") is False
            assert admission(object(), "") is False
            assert Admission(None, NetworkSet())(Transport(ours), "") is False
        finally:
            for each in (ours, theirs, other):
                each.close()


class PickupTests(SynchronousTestCase):
    def setUp(self):
        self.state = self.mktemp()
        os.mkdir(self.state)
        self.house = make_house("submission", apply=False, routes=())
        self.settings = SendmailSettings()
        self.path = os.path.abspath(spool_path(self.settings, self.state))
        self.is_allowed = True
        make_drop_folder(self.path)
        self.pickup = self.make()

    def make(self):
        return Pickup(
            self.settings,
            path=self.path,
            lock=os.path.abspath(lock_path(self.state)),
            receiver=self.house.receiver,
            peers=LocalPeers(self.settings, domain="example.test", may_send_as=nobody_may),
            hostname="mail.example.test",
            postmaster=Address("postmaster", "example.test"),
            clock=self.house.clock,
            run_in_thread=lambda function, *arguments: execute(function, *arguments),
        )

    def run_once(self):
        self.pickup.start()
        self.house.clock.advance(0)

    def names(self):
        return sorted(name for name in os.listdir(self.path) if name != CORRUPT)

    def recipients(self):
        return [sorted(str(recipient) for recipient in _addresses(record)) for record in self.house.journal.records]

    def test_what_was_left_is_taken_at_the_start_and_then_from_time_to_time(self):
        drop(self.path, MESSAGE)
        self.run_once()
        assert self.recipients() == [["bob@example.test"]]
        assert self.names() == []
        drop(self.path, evolve(MESSAGE, recipients=((FRIEND, PARAMETERS),)))
        self.house.clock.advance(15)
        assert self.house.onward()[0][1] == {"friend@example.org": "mx:example.org"}
        self.successResultOf(self.pickup.stop())
        assert not self.house.clock.getDelayedCalls()

    def test_what_fails_for_now_waits(self):
        drop(self.path, MESSAGE)
        self.house.journal.failure = InsufficientStorage()
        self.run_once()
        assert len(self.names()) == 1
        self.house.journal.failure = None
        self.house.clock.advance(15)
        assert (self.names(), len(self.recipients())) == ([], 1)

    def test_one_recipient_that_waits_makes_all_wait(self):
        drop(self.path, evolve(MESSAGE, recipients=((ALICE, RecipientParameters()), (BOB, RecipientParameters()))))
        self.house.directory.is_down = True
        self.run_once()
        assert (len(self.names()), self.recipients()) == (1, [])
        self.house.directory.is_down = False
        self.house.clock.advance(15)
        assert self.recipients() == [["alice@example.test", "bob@example.test"]]

    def test_what_is_refused_goes_back(self):
        nobody = Address("nobody", "example.test")
        drop(self.path, evolve(MESSAGE, recipients=((nobody, PARAMETERS), (BOB, RecipientParameters()))))
        self.run_once()
        assert self.recipients() == [["bob@example.test"], ["alice@example.test"]]
        notice = self.house.journal.records[1].messages[0].content.octets
        assert notice.startswith(b"Return-Path: <>\r\n")
        assert b"Final-Recipient: rfc822; nobody@example.test\r\nAction: failed\r\nStatus: 5.1.1\r\n" in notice
        assert self.names() == []

    def test_what_waits_for_too_long_goes_back(self):
        name = drop(self.path, MESSAGE)
        os.utime(os.path.join(self.path, name), (0, 0))
        self.house.directory.is_down = True
        self.run_once()
        assert len(self.names()) == 1, "the notice waits"
        self.house.directory.is_down = False
        self.house.clock.advance(15)
        assert self.recipients() == [["alice@example.test"]]
        assert b"Status: 5.4.7" in self.house.journal.records[0].messages[0].content.octets
        assert self.names() == []

    def test_nothing_goes_back_for_the_null_sender(self):
        nobody = Address("nobody", "example.test")
        drop(self.path, evolve(MESSAGE, sender=None, recipients=((nobody, PARAMETERS),)))
        self.run_once()
        assert (self.names(), self.recipients()) == ([], [])

    def test_what_can_neither_be_sent_nor_returned_is_kept(self):
        nobody = Address("nobody", "example.test")
        drop(self.path, evolve(MESSAGE, sender=nobody, recipients=((nobody, PARAMETERS),)))
        self.run_once()
        assert (self.names(), self.recipients()) == ([], [])
        assert len(os.listdir(os.path.join(self.path, CORRUPT))) == 1

    def test_one_worker_looks_at_a_time(self):
        drop(self.path, MESSAGE)
        first, self.house.journal.waiting = self.house.journal, Deferred()
        self.run_once()
        other = self.make()
        self.successResultOf(Deferred.fromCoroutine(other.round()))
        first.waiting.callback(None)
        assert len(self.recipients()) == 1
        assert self.names() == []

    def test_a_file_that_cannot_be_removed_is_not_taken_twice(self):
        drop(self.path, MESSAGE)
        from mailsrv.delivery import pickup

        def fail(path, name):
            raise OSError(30, "Read-only file system")

        self.patch(pickup, "remove", fail)
        with capturedLogs() as events:
            self.run_once()
            self.house.clock.advance(15)
            self.house.clock.advance(15)
        assert len(self.recipients()) == 1
        assert sum(event["log_level"].name == "critical" for event in events) == 1

    def test_stopping_waits_for_the_message_under_way(self):
        drop(self.path, MESSAGE)
        drop(self.path, MESSAGE)
        waiting: Deferred = Deferred()
        self.house.journal.waiting = waiting
        self.run_once()
        stopping = self.pickup.stop()
        self.assertNoResult(stopping)
        self.house.journal.waiting = None
        waiting.callback(None)
        self.successResultOf(stopping)
        assert (len(self.recipients()), len(self.names())) == (1, 1)

    def test_a_folder_that_is_gone_is_told_once(self):
        self.house.journal.failure = Unavailable()
        os.rmdir(os.path.join(self.path, CORRUPT))
        os.rmdir(self.path)
        with open(self.path, "w"):
            pass
        with capturedLogs() as events:
            self.run_once()
            self.house.clock.advance(15)
        assert sum("cannot be picked up" in event["log_format"] for event in events) == 1


def _addresses(record):
    for message in record.messages:
        for delivery in message.deliveries:
            account = getattr(delivery, "account", None)
            if isinstance(account, Address):
                yield account
            else:
                yield from (recipient.address for recipient in delivery.recipients)
