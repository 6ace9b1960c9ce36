"""The contract of directories, over every one there is."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.directory.alias_file import AliasFile
from mailsrv.directory.build import make_directory
from mailsrv.directory.chain import DirectoryChain
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.directory.passwd_file import PasswdFile
from mailsrv.directory.passwords.hashing import HashingPool, make_hash
from mailsrv.directory.settings import DirectorySettings, DirectoryType, PasswordSettings
from mailsrv.directory.watched_file import FileWatching
from mailsrv.interfaces.directory import IDirectory
from tests.contracts.directory import ALICE, BOB, STAFF, DirectoryContract, RunAtOnce

CHEAP = PasswordSettings(argon2_time_cost=1, argon2_memory_kib=64, argon2_parallelism=1)
PASSWD = (
    "# users\n"
    f"alice:{make_hash('sesame', CHEAP)}:1000:1000:Alice Example,,,:/home/alice::userdb_quota_rule=*:storage=1G\n"
    "\n"
    "BOB@example.test:{PLAIN}mellon:::Bob:::nologin\n"
)


def make_memory() -> MemoryDirectory:
    directory = MemoryDirectory()
    directory.add_user(ALICE, "sesame", display_name="Alice Example", quota_octets=1 << 30)
    directory.add_user(BOB, "mellon", may_log_in=False)
    directory.add_alias(STAFF, (ALICE, BOB))
    return directory


class MemoryDirectoryTests(DirectoryContract, SynchronousTestCase):
    has_aliases = True

    def make_directory(self) -> MemoryDirectory:
        return make_memory()

    def break_directory(self) -> None:
        self.directory.is_down = True


class FileCase(DirectoryContract):
    def setUp(self):
        self.clock = Clock()
        self.threads = RunAtOnce()
        self.hashing = HashingPool(CHEAP, reactor=self.clock, run_in_thread=self.threads)  # type: ignore[arg-type]
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.passwd = self.folder / "passwd"
        self.passwd.write_text(PASSWD)
        self.aliases = self.folder / "aliases"
        self.aliases.write_text("staff: alice, bob@example.test\n")
        super().setUp()

    def break_directory(self) -> None:
        os.unlink(self.passwd)
        self.clock.advance(1)


class PasswdFileTests(FileCase, SynchronousTestCase):
    def make_directory(self) -> PasswdFile:
        return PasswdFile(
            str(self.passwd),
            FileWatching(self.clock, self.threads),
            hashing=self.hashing,
            default_domain="example.test",
        )


class ChainOfFilesTests(FileCase, SynchronousTestCase):
    has_aliases = True

    def make_directory(self) -> IDirectory:
        return make_directory(
            (
                DirectorySettings(DirectoryType.ALIAS_FILE, str(self.aliases)),
                DirectorySettings(DirectoryType.PASSWD_FILE, str(self.passwd)),
            ),
            hashing=self.hashing,
            clock=self.clock,
            run_in_thread=self.threads,
            default_domain="example.test",
        )


class ChainOverMemoryTests(DirectoryContract, SynchronousTestCase):
    has_aliases = True

    def make_directory(self) -> DirectoryChain:
        self.second = make_memory()
        return DirectoryChain((MemoryDirectory("first"), self.second))

    def break_directory(self) -> None:
        self.second.is_down = True


def test_an_alias_file_alone_has_no_users(tmp_path):
    path = tmp_path / "aliases"
    path.write_text("staff@example.test: alice@example.test\n")
    directory = AliasFile(str(path), FileWatching(Clock(), RunAtOnce()))
    assert directory.list_users().result == ()
    assert directory.find_user(STAFF).result is None
    assert directory.check_password(None, "x").result is False
    assert directory.find_alias(STAFF).result == (ALICE,)
