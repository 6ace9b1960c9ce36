"""Passwords that are compared here: what an entry may have in place of one, and what never lets anybody in."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, maybeDeferred

from mailsrv.directory.ldap.connection import LdapEntry
from mailsrv.directory.ldap.password_check import CompareCheck
from mailsrv.directory.ldap.search import Search
from mailsrv.directory.passwords.hashing import HashingPool
from mailsrv.directory.passwords.sha_crypt import sha_crypt
from mailsrv.directory.settings import PasswordSettings

DN = "uid=ada,dc=test"
HASH = sha_crypt(b"sesame", "$6$salt")


class Client:
    """Has one entry."""

    def __init__(self, *values: str) -> None:
        self.entry = LdapEntry(DN, {"userpassword": tuple(value.encode() for value in values)})

    async def search(self, search: Search, *, seconds: float) -> list[LdapEntry]:
        return [self.entry]


def is_right(password: str, *values: str) -> bool:
    hashing = HashingPool(PasswordSettings(), reactor=None, run_in_thread=maybeDeferred)  # type: ignore[arg-type]
    check = CompareCheck(Client(*values), hashing, attribute="userPassword", name="ldap")  # type: ignore[arg-type]
    outcomes: list[Any] = []
    Deferred.fromCoroutine(check.check(DN, password, seconds=1)).addCallback(outcomes.append)
    return bool(outcomes[0].is_right)


@pytest.mark.parametrize(
    "values", [("sesame",), ("{PLAIN}sesame",), (f"{{CRYPT}}{HASH}",), (HASH,), ("other", "sesame")]
)
def test_the_password_is_told_in_every_form(values):
    assert is_right("sesame", *values)
    assert not is_right("Sesame", *values)


@pytest.mark.parametrize("value", ["*", "!", "!!", "x", "*LK*", f"!{{CRYPT}}{HASH}", f"!{HASH}", f"{{CRYPT}}!{HASH}"])
def test_what_stands_in_place_of_a_password_is_none(value):
    assert not is_right(value, value)
    assert not is_right("sesame", value)


@pytest.mark.parametrize("value", [HASH, f"{{CRYPT}}{HASH}", "$9$unknown$hash", "{UNKNOWN}hash"])
def test_who_stole_a_hash_has_no_password(value):
    assert not is_right(value, value)
    assert not is_right(value.partition("}")[2], value)
