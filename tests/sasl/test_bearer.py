"""Messages of OAUTHBEARER and XOAUTH2, by the examples of their papers and broken."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.sasl import SaslError
from mailsrv.sasl.bearer import TokenGiven, parse_bearer, refusal

TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
# RFC 7628 4.1
EXAMPLE = f"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer {TOKEN}\x01\x01".encode()


def test_the_example_of_the_rfc():
    given_ = parse_bearer("OAUTHBEARER", EXAMPLE)
    assert given_ == TokenGiven("user@example.com", TOKEN)
    assert TOKEN not in repr(given_)


def test_no_name_is_needed():
    assert parse_bearer("OAUTHBEARER", f"n,,\x01auth=Bearer {TOKEN}\x01\x01".encode()).name == ""


def test_xoauth2():
    message = f"user=someuser@example.com\x01auth=Bearer {TOKEN}\x01\x01".encode()
    assert parse_bearer("XOAUTH2", message) == TokenGiven("someuser@example.com", TOKEN)


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x01",
        b"\x01\x01",
        b"n,,\x01\x01",
        b"n,,\x01auth=Bearer x\x01",
        b"n,,\x01auth=Basic x\x01\x01",
        b"n,,\x01auth=Bearer x y\x01\x01",
        b"n,,\x01auth=Bearer \x01\x01",
        b"n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01",
        b"p=tls-exporter,,\x01auth=Bearer x\x01\x01",
        b"user\x01auth=Bearer x\x01\x01",
        b"n,,\x01auth=Bearer x\x00\x01\x01",
        b"\xff,\x01auth=Bearer x\x01\x01",
        b"n,a=x=y,\x01auth=Bearer x\x01\x01",
        b"n,a=x=2c,\x01auth=Bearer x\x01\x01",
        b"n,a=x\r\n,\x01auth=Bearer x\x01\x01",
        b"user=x\0\x01auth=Bearer x\x01\x01",
        b"user=x\r\ny\x01auth=Bearer x\x01\x01",
        b"user=\xc2\x85\x01auth=Bearer x\x01\x01",
    ],
)
def test_r_auth_3_malformed(mechanism, message):
    with pytest.raises(SaslError):
        parse_bearer(mechanism, message)


@given(mechanism=st.sampled_from(["OAUTHBEARER", "XOAUTH2"]), message=st.binary(max_size=100))
def test_arbitrary_octets(mechanism, message):
    try:
        given_ = parse_bearer(mechanism, message)
    except SaslError:
        return
    assert given_.token


def test_refusals_are_json():
    told = json.loads(refusal("OAUTHBEARER", scope="mail", openid_configuration="https://x.test/c"))
    assert told == {"status": "invalid_token", "scope": "mail", "openid-configuration": "https://x.test/c"}
    assert json.loads(refusal("XOAUTH2", scope="mail"))["status"] == "401"
