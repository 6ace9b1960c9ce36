"""What every directory does, whatever it is made of. A subclass gives ``make_directory``.

Every Deferred must have fired by the time it is looked at: a directory with threads is given
threads that run at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from mailsrv.address import Address
from mailsrv.errors import Unavailable
from mailsrv.interfaces.directory import DirectoryUser, IDirectory

ALICE = Address("alice", "example.test")
BOB = Address("bob", "example.test")
STAFF = Address("staff", "example.test")

# Names that were trouble elsewhere (R-INJ-3), as far as they can be addresses at all.
NASTY_LOCAL_PARTS = (
    "*",
    "*)(uid=*",
    "alice)(|(uid=*",
    "\\2a",
    "alice\\",
    "alice'--",
    "alice@example.test",
    "../alice",
    "alice:x",
    "ali ce",
    "аlice",  # Cyrillic а
    "alice\u200b",
    "ａｌｉｃｅ",
    "İ" * 32,
    "#alice",
    "alice%00",
)


class RunAtOnce:
    """Threads that run in place; ``hold`` keeps the work until ``go``. ``count`` counts it."""

    def __init__(self) -> None:
        self.count = 0
        self.hold = False
        self.held: list[Any] = []

    def __call__(self, function: Any, /) -> Deferred[Any]:
        self.count += 1
        answer: Deferred[Any] = Deferred()

        def work() -> None:
            try:
                value = function()
            except Exception:
                answer.errback()
            else:
                answer.callback(value)

        if self.hold:
            self.held.append(work)
        else:
            work()
        return answer

    def go(self) -> None:
        held, self.held = self.held, []
        for work in held:
            work()


# A test case only once it is mixed into one: the contract by itself is not run.
if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as Base
else:
    Base = object


class DirectoryContract(Base):
    """Alice: password "sesame", 1 GiB; Bob: "mellon", may not log in; staff is both, where there are aliases."""

    has_aliases = False

    def make_directory(self) -> Any:
        raise NotImplementedError

    def break_directory(self) -> None:
        """From now on the directory must be unavailable."""
        raise NotImplementedError

    def setUp(self):
        self.directory = self.make_directory()

    def find(self, address: Address) -> Any:
        return self.successResultOf(self.directory.find_user(address))

    def check(self, user: DirectoryUser | None, password: str) -> Any:
        return self.successResultOf(self.directory.check_password(user, password))

    def test_it_provides_the_interface(self):
        verifyObject(IDirectory, self.directory)
        assert self.directory.name

    def test_a_user_is_found_whatever_the_case(self):
        for spelling in ("alice", "ALICE", "Alice"):
            user = self.find(Address(spelling, "Example.TEST"))
            assert user is not None
            assert user.address == ALICE
            assert user.display_name == "Alice Example"
            assert user.quota_octets == 1 << 30
            assert user.may_log_in

    def test_nobody_is_nobody(self):
        for address in (Address("carol", "example.test"), Address("alice", "example.org"), Address("postmaster", "")):
            assert self.find(address) is None

    def test_r_inj_3_nasty_names_are_nobody(self):
        for local_part in NASTY_LOCAL_PARTS:
            assert self.find(Address(local_part, "example.test")) is None, local_part
            assert self.successResultOf(self.directory.find_alias(Address(local_part, "example.test"))) is None, (
                local_part
            )

    def test_only_the_right_password_is_right(self):
        alice = self.find(ALICE)
        assert self.check(alice, "sesame") is True
        for wrong in ("", "Sesame", "sesame ", "sesam", "sesame\0", "sesame\0x", "*", "\udc80", "x" * 10_000, "mellon"):
            assert self.check(alice, wrong) is False, wrong[:20]

    def test_nobody_has_no_password(self):
        for password in ("", "sesame", "x"):
            assert self.check(None, password) is False

    def test_a_user_may_be_shut_out(self):
        bob = self.find(BOB)
        assert bob is not None
        assert not bob.may_log_in
        assert bob.quota_octets is None

    def test_entries_have_fingerprints_of_their_own_and_keep_them(self):
        alice, bob = self.find(ALICE), self.find(BOB)
        assert alice is not None
        assert bob is not None
        assert alice.fingerprint
        assert alice.fingerprint != bob.fingerprint
        again = self.find(ALICE)
        assert again is not None
        assert alice.fingerprint == again.fingerprint

    def test_no_secret_is_shown(self):
        alice = self.find(ALICE)
        assert alice is not None
        for text in (repr(alice), str(alice)):
            assert "sesame" not in text
            assert "PLAIN" not in text
            assert "argon" not in text

    def test_users_are_listed_in_order(self):
        users = self.successResultOf(self.directory.list_users())
        assert [user.address for user in users] == [ALICE, BOB]

    def test_an_alias_is_answered_one_step(self):
        targets = self.successResultOf(self.directory.find_alias(Address("Staff", "example.test")))
        if self.has_aliases:
            assert tuple(targets) == (ALICE, BOB)
        else:
            assert targets is None
        assert self.successResultOf(self.directory.find_alias(ALICE)) is None

    def test_r_auth_7_a_directory_that_is_down_is_not_an_empty_one(self):
        alice = self.find(ALICE)
        self.break_directory()
        self.failureResultOf(self.directory.find_user(ALICE), Unavailable)
        self.failureResultOf(self.directory.find_user(Address("carol", "example.test")), Unavailable)
        self.failureResultOf(self.directory.list_users(), Unavailable)
        # A hash that was fetched before can still be checked; what must not come is "wrong".
        answer: list[Any] = []
        self.directory.check_password(alice, "sesame").addBoth(answer.append)
        assert answer[0] is True or answer[0].check(Unavailable)
