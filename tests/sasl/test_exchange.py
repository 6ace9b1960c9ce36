"""PLAIN and LOGIN as the protocols use them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.sasl import (
    MECHANISM_NAMES,
    Challenge,
    PasswordGiven,
    SaslCancelled,
    SaslError,
    SaslExchange,
    decode_base64,
    encode_challenge,
)


def b64(octets: bytes) -> bytes:
    return base64.b64encode(octets)


def test_plain_with_an_initial_response():
    given_ = SaslExchange("plain").begin(b64(b"\0alice\0s3cret"))
    assert given_ == PasswordGiven("alice", "s3cret", "")
    assert "s3cret" not in repr(given_)


def test_plain_with_an_authorization_identity_and_without_initial_response():
    exchange = SaslExchange("PLAIN")
    challenge = exchange.begin()
    assert challenge == Challenge(b"")
    assert exchange.receive(b64("bob\0älice\0pässword".encode())) == PasswordGiven("älice", "pässword", "bob")


def test_login_asks_for_name_and_password():
    exchange = SaslExchange("LOGIN")
    first = exchange.begin()
    assert isinstance(first, Challenge)
    assert encode_challenge(first) == b"VXNlcm5hbWU6"
    second = exchange.receive(b64(b"alice"))
    assert isinstance(second, Challenge)
    assert encode_challenge(second) == b"UGFzc3dvcmQ6"
    assert exchange.receive(b64(b"pass word")) == PasswordGiven("alice", "pass word")


def test_login_takes_the_name_as_initial_response():
    exchange = SaslExchange("LOGIN")
    assert exchange.begin(b64(b"alice")) == Challenge(b"Password:")


@pytest.mark.parametrize("mechanism", MECHANISM_NAMES)
def test_a_star_cancels(mechanism):
    exchange = SaslExchange(mechanism)
    exchange.begin()
    with pytest.raises(SaslCancelled):
        exchange.receive(b"*")


def test_unknown_mechanisms_are_unknown():
    with pytest.raises(KeyError):
        SaslExchange("NTLM")


@pytest.mark.parametrize(
    "text",
    [
        b"YQ",
        b"YQ=",
        b"YQ===",
        b"Y Q=",
        b"YQ==\t",
        b"\tYQ==",
        b"YR==",
        b"Y-Q=",
        b"=",
        b"Y=Q=",
        b"YQ==YQ==",
        b"\xff",
        b"A" * 12300,
    ],
)
def test_r_auth_3_base64_is_strict(text):
    with pytest.raises(SaslError):
        decode_base64(text)


@given(st.binary(max_size=60))
def test_base64_of_anything_is_read(octets):
    assert decode_base64(b64(octets)) == octets


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"alice",
        b"\0alice",
        b"\0alice\0",
        b"\0\0secret",
        b"a\0b\0c\0d",
        b"\0al\nice\0secret",
        b"\0al\xff\0secret",
        b"\0alice\0\xff",
        b"\0" + b"a" * 2000 + b"\0secret",
    ],
)
def test_r_ctl_1_malformed_plain_responses_are_refused(response):
    with pytest.raises(SaslError) as refused:
        SaslExchange("PLAIN").begin(b64(response))
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("name", [b"", b"al\0ice", b"al\rice"])
def test_malformed_login_names_are_refused(name):
    exchange = SaslExchange("LOGIN")
    exchange.begin()
    with pytest.raises(SaslError):
        exchange.receive(b64(name))


def test_r_auth_1_an_empty_password_is_refused():
    exchange = SaslExchange("LOGIN")
    exchange.begin(b64(b"alice"))
    with pytest.raises(SaslError):
        exchange.receive(b"")


def test_an_empty_initial_response():
    with pytest.raises(SaslError):
        SaslExchange("PLAIN").begin(b"=")
