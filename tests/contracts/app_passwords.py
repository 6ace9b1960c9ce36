"""What the file of app passwords does, whoever has it open. A subclass gives ``open_other``: another worker's view."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailsrv.auth.app_passwords.database import AppPasswordDatabase, AppPasswordRefused, Fresh
from mailsrv.auth.app_passwords.form import read_secret
from mailsrv.auth.app_passwords.record import AppPassword, Scope

ALICE, BOB = "alice@example.test", "bob@example.test"
EVERYTHING = frozenset(Scope)


def body(fresh: Fresh) -> str:
    return read_secret(fresh.secret) or "none"


class AppPasswordContract:
    """``self.one`` changes, ``self.other`` looks."""

    one: AppPasswordDatabase
    other: AppPasswordDatabase

    @pytest.fixture(autouse=True)
    def databases(self, tmp_path: Path):
        path = str(tmp_path / "app-passwords.db")
        self.one = AppPasswordDatabase(path)
        self.other = self.open_other(path)
        yield
        self.one.close()
        self.other.close()

    def open_other(self, path: str) -> AppPasswordDatabase:
        raise NotImplementedError

    def add(self, account: str = ALICE, name: str = "phone", limit: int = 20, **values: object) -> Fresh:
        scopes = values.pop("scopes", EVERYTHING)
        return self.one.add(account, name, scopes, now=1000.0, limit=limit, **{"expires_at": None, **values})  # type: ignore[arg-type]

    def test_before_there_are_any(self):
        assert self.other.is_empty()
        assert self.other.find(ALICE, "a" * 20) is None
        assert self.other.get(1) is None
        assert self.other.list() == ()
        assert self.other.revoke(ALICE) == ()
        self.other.note_use(1, 1000.0, "imap", "192.0.2.1")
        assert self.other.is_empty()

    def test_one_that_was_added_is_found_at_once(self):
        assert self.other.is_empty()
        fresh = self.add(scopes=frozenset({Scope.IMAP, Scope.SMTP}), expires_at=5000.0)
        expected = AppPassword(
            fresh.password.id, ALICE, "phone", frozenset({Scope.IMAP, Scope.SMTP}), 1000.0, expires_at=5000.0
        )
        assert fresh.password == expected
        assert self.other.find(ALICE, body(fresh)) == expected
        assert self.other.get(expected.id) == expected
        assert self.other.list(ALICE) == (expected,)
        assert not self.other.is_empty()

    def test_r_auth_2_it_is_good_for_its_own_account_only(self):
        fresh, of_bob = self.add(), self.add(BOB)
        assert self.other.find(BOB, body(fresh)) is None
        assert self.other.find(ALICE, body(of_bob)) is None
        assert self.other.find("nobody@example.test", body(fresh)) is None
        assert self.other.find("' OR 1=1 --", body(fresh)) is None
        assert self.other.find(ALICE.upper(), body(fresh)) is None

    def test_each_of_many_is_found(self):
        added = [self.add(name=f"device {number}") for number in range(20)]
        for fresh in added:
            assert self.other.find(ALICE, body(fresh)) == fresh.password
        assert self.other.list() == tuple(fresh.password for fresh in added)

    def test_r_auth_2_a_revoked_one_is_gone_at_once(self):
        phone, tablet = self.add(), self.add(name="tablet")
        assert self.other.find(ALICE, body(phone)) == phone.password
        assert self.one.revoke(ALICE, "PHONE") == (phone.password,)
        assert self.other.find(ALICE, body(phone)) is None
        assert self.other.get(phone.password.id) is None
        assert self.other.find(ALICE, body(tablet)) == tablet.password
        assert self.one.revoke(ALICE, "phone") == ()
        assert self.one.revoke(BOB, "tablet") == ()
        assert self.one.revoke(ALICE, str(tablet.password.id)) == (tablet.password,)
        assert self.other.is_empty()

    def test_all_of_an_account_are_revoked(self):
        self.add()
        self.add(name="tablet")
        kept = self.add(BOB)
        assert len(self.one.revoke(ALICE)) == 2
        assert self.other.list() == (kept.password,)

    def test_a_number_is_never_given_again(self):
        first = self.add()
        self.one.revoke(ALICE)
        assert self.add().password.id != first.password.id

    def test_r_lim_2_so_many_an_account(self):
        for number in range(3):
            self.add(name=str(number), limit=3)
        with pytest.raises(AppPasswordRefused, match="no more than 3"):
            self.add(name="more", limit=3)
        assert len(self.other.list(ALICE)) == 3
        self.add(BOB, limit=3)
        self.one.revoke(ALICE, "1")
        self.add(name="more", limit=3)

    def test_a_name_is_an_accounts_only_one(self):
        self.add(name="Phone")
        with pytest.raises(AppPasswordRefused, match="already"):
            self.add(name="phone ")
        self.add(BOB, name="phone")

    @pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\nb", "a\0b", "\x1b[2J"])
    def test_a_name_can_be_shown(self, name: str):
        with pytest.raises(ValueError, match="name"):
            self.add(name=name)
        assert self.other.is_empty()

    def test_one_that_is_for_nothing_is_refused(self):
        with pytest.raises(ValueError, match="for something"):
            self.add(scopes=frozenset())

    def test_the_last_use_is_remembered(self):
        fresh = self.add()
        self.other.note_use(fresh.password.id, 2000.0, "imap", "192.0.2.1")
        found = self.one.get(fresh.password.id)
        assert found is not None
        assert (found.used_at, found.used_service, found.used_network) == (2000.0, "imap", "192.0.2.1")
