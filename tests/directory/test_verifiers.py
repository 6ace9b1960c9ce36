"""Every scheme of stored passwords: published vectors, and libpass as a second opinion."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from passlib import hash as oracle

from mailsrv.directory.passwords import verifiers
from mailsrv.directory.passwords.libcrypt import load_crypt
from mailsrv.directory.passwords.sha_crypt import sha_crypt
from mailsrv.directory.passwords.verifiers import cost_class, is_supported, verify_password


def test_shared_vectors_of_the_oracle():
    for crypt in (oracle.sha256_crypt, oracle.sha512_crypt):
        for password in ("", "a", "Hello world!", "x" * 63, "x" * 64, "x" * 65, "x" * 200, "naïve ☃"):
            for salt, rounds in (("", 1000), ("a", 5000), ("0123456789abcdef", 1001)):
                stored = crypt.using(salt=salt, rounds=rounds).hash(password)
                assert sha_crypt(password.encode(), stored) == stored


def test_sha_crypt_bounds_rounds_and_salt_as_specified():
    assert sha_crypt(b"x", "$5$rounds=10$roundstoolow").startswith("$5$rounds=1000$roundstoolow$")
    assert sha_crypt(b"x", "$6$saltstringsaltstring").startswith("$6$saltstringsaltst$")
    for broken in ("", "$7$x", "$5$a:b", "6$x"):
        with pytest.raises(ValueError, match="setting"):
            sha_crypt(b"x", broken)


@given(st.binary(max_size=150).filter(lambda octets: 0 not in octets), st.text("./09azAZ", max_size=16))
@settings(max_examples=40, deadline=None)
def test_own_sha_crypt_agrees_with_the_system(password: bytes, salt: str):
    system = load_crypt()
    if system is None:
        return
    for kind in "56":
        setting = f"${kind}$rounds=1000${salt}"
        expected = system(password, setting)
        if expected is not None:
            assert sha_crypt(password, setting) == expected


def digest_forms(password: bytes, salt: bytes) -> list[str]:
    forms = []
    for name, algorithm in (("SHA", "sha1"), ("SHA256", "sha256"), ("SHA512", "sha512"), ("PLAIN-MD5", "md5")):
        plain = hashlib.new(algorithm, password).digest()
        forms += [
            f"{{{name}}}{base64.b64encode(plain).decode()}",
            f"{{{name}}}{plain.hex()}",
            f"{{{name}.b64}}{base64.b64encode(plain).decode()}",
            f"{{{name}.hex}}{plain.hex()}",
            f"{{{name}.HEX}}{plain.hex().upper()}",
        ]
    for name, algorithm in (("SSHA", "sha1"), ("SSHA256", "sha256"), ("SSHA512", "sha512"), ("SMD5", "md5")):
        salted = hashlib.new(algorithm, password + salt).digest() + salt
        forms += [
            f"{{{name}}}{base64.b64encode(salted).decode()}",
            f"{{{name}.hex}}{salted.hex()}",
        ]
    rounds = 50
    derived = hashlib.pbkdf2_hmac("sha1", password, b"NaCl", rounds).hex()
    forms.append(f"{{PBKDF2}}$1$NaCl${rounds}${derived}")
    forms += [
        "{PLAIN}" + password.decode(),
        "{CLEAR}" + password.decode(),
        "{cleartext}" + password.decode(),
        "{PLAIN.hex}" + password.hex(),
        "{PLAIN.b64}" + base64.b64encode(password).decode(),
    ]
    return forms


OTHER = [
    oracle.sha512_crypt.using(rounds=1000).hash("sesame ☃"),
    "{SHA512-CRYPT}" + oracle.sha512_crypt.using(rounds=5000).hash("sesame ☃"),
    "{SHA256-CRYPT}" + oracle.sha256_crypt.using(rounds=1000).hash("sesame ☃"),
    "{CRYPT}" + oracle.sha256_crypt.using(rounds=1000).hash("sesame ☃"),
    oracle.argon2.using(type="ID", rounds=1, memory_cost=64, parallelism=1).hash("sesame ☃"),
    "{ARGON2ID}" + oracle.argon2.using(type="ID", rounds=1, memory_cost=64, parallelism=2).hash("sesame ☃"),
    "{ARGON2I}" + oracle.argon2.using(type="I", rounds=1, memory_cost=64, parallelism=1).hash("sesame ☃"),
    oracle.bcrypt.using(rounds=4, ident="2y").hash("sesame ☃"),
    "{BLF-CRYPT}" + oracle.bcrypt.using(rounds=4, ident="2b").hash("sesame ☃"),
    "{CRYPT}" + oracle.bcrypt.using(rounds=4, ident="2a").hash("sesame ☃"),
    oracle.ldap_salted_sha1.hash("sesame ☃"),
    oracle.ldap_salted_sha256.hash("sesame ☃"),
    oracle.ldap_salted_sha512.hash("sesame ☃"),
    oracle.ldap_sha1.hash("sesame ☃"),
    oracle.ldap_salted_md5.hash("sesame ☃"),
    oracle.ldap_md5.hash("sesame ☃"),
]


@pytest.mark.parametrize("stored", [*OTHER, *digest_forms("sesame ☃".encode(), b"pepper")])
def test_each_scheme_takes_the_password_and_no_other(stored: str):
    assert is_supported(stored)
    assert verify_password(stored, "sesame ☃")
    for wrong in ("", "sesame", "sesame ☃ ", "SESAME ☃", "sesame ☃\0", "\0", "\ud800", stored):
        assert not verify_password(stored, wrong)


def test_scram_example_of_rfc_7677():
    # RFC 7677 section 3: user "user", password "pencil"
    salt, rounds = "W22ZaJ0SNY7soEsUEjb6gQ==", 4096
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", base64.b64decode(salt), rounds)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    # The RFC's ServerSignature is made with this ServerKey: so the derivation is the right one.
    message = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    signature = hmac.digest(server_key, message, "sha256")
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    stored = ",".join((str(rounds), salt, base64.b64encode(stored_key).decode(), base64.b64encode(server_key).decode()))
    assert verify_password("{SCRAM-SHA-256}" + stored, "pencil")
    assert not verify_password("{SCRAM-SHA-256}" + stored, "pencil2")


def test_bcrypt_counts_72_octets_and_longer_passwords_do_not_raise():
    stored = oracle.bcrypt.using(rounds=4).hash("x" * 72)
    assert verify_password(stored, "x" * 72)
    assert verify_password(stored, "x" * 100)
    assert not verify_password(stored, "x" * 71)


def test_without_the_system_library_sha_crypt_still_works(monkeypatch):
    stored = oracle.sha512_crypt.using(rounds=1000).hash("sesame")
    monkeypatch.setattr(verifiers, "_system_crypt", None)
    assert not verifiers.has_system_crypt()
    assert is_supported(stored)
    assert verify_password(stored, "sesame")
    assert not verify_password(stored, "sesam")
    assert not is_supported("$1$abc$BXBqpb9BZcZhXLgbee.0s/")


def test_long_passwords_fit_sha_crypt_though_the_system_refuses_them():
    stored = sha_crypt(b"y" * 600, "$6$rounds=1000$salt")
    assert verify_password(stored, "y" * 600)
    assert not verify_password(stored, "y" * 599)


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "x",
        "*",
        "!",
        "{",
        "{}",
        "{PLAIN}",
        "{NOSUCH}x",
        "{NTLM}8846f7eaee8fb117ad06bdd830b7586c",
        "abJnggxhB/yWI",
        "{CRYPT}abJnggxhB/yWI",
        "{CRYPT}",
        "{SSHA}####",
        "{SSHA}" + base64.b64encode(hashlib.sha1(b"x").digest()).decode(),
        "{SHA}" + base64.b64encode(b"short").decode(),
        "{SHA256.hex}zz",
        "{PBKDF2}$1$salt$0$" + "0" * 40,
        "{PBKDF2}$2$salt$10$" + "0" * 40,
        "{SCRAM-SHA-256}0,AAAA,AAAA,AAAA",
        "{ARGON2ID}$argon2id$v=19$m=64,t=1,p=1$c2FsdA$",
        "{ARGON2ID}",
        "$argon2id$",
        "$2y$",
        "$2y$99$abcdefghijklmnopqrstuv",
        "$6$",
        "$",
        "{PLAIN.hex}0",
        "{PLAIN.hex}ff",
        "{BLF-CRYPT}ü",
        "{ARGON2ID}ü",
        "{CRYPT}$6$ü",
    ],
)
def test_broken_and_unknown_hashes_fit_nothing(stored: str):
    for password in ("", "x", "*", "!", stored):
        assert verify_password(stored, password) is False


@given(st.text(max_size=60), st.text(min_size=1, max_size=20))
@settings(max_examples=300, deadline=None)
def test_no_stored_text_raises(stored: str, password: str):
    if "rounds=" in stored:
        return
    assert verify_password(stored, password) in {True, False}
    is_supported(stored)
    cost_class(stored)


def test_cost_classes_leave_out_salt_and_digest():
    assert cost_class("{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$abc") == "argon2id$v=19$m=19456,t=2,p=1"
    assert cost_class("$2y$10$abcdefghijklmnopqrstuu") == "2y$10"
    assert cost_class("$6$rounds=10000$abc$def") == "6$rounds=10000"
    assert cost_class("{SHA512-CRYPT}$6$123$def") == cost_class("$6$abc$xyz") == "6"
    assert cost_class("{ssha}abc") == "SSHA"
