"""Tokens as attackers, and careless issuers, make them (RFC 8725; R-AUTH-5)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey, RSAKey

from mailsrv.auth.signed_tokens import TOKEN_LIMIT_OCTETS, parse_jwt
from mailsrv.auth.token_claims import check_claims
from mailsrv.auth.token_errors import TokenRefused
from mailsrv.auth.token_keys import KeyTable
from tests.auth.token_issuer import (
    EC_KEY,
    JWKS_URI,
    NOW,
    JudgeCase,
    claims,
    jwks,
    mint,
    oauth_settings,
    segment,
    sign,
)

PAYLOAD = json.dumps(claims()).encode()


@pytest.fixture
def case():
    return JudgeCase()


def test_a_header_may_hold_what_nobody_needs(case):
    header = {"alg": "ES256", "kid": "ec", "typ": "at+JWT", "x5t": "abc", "nonce": "x", "x5c": ["A" * 1600]}
    assert case.account(sign(header, PAYLOAD)) == "alice@example.test"


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"typ": "logout+jwt"},
        {"typ": "secevent+jwt"},
        {"typ": 7},
        {"kid": 7},
        {"kid": ["ec"]},
        {"kid": None, "jku": "https://evil.test/jwks"},
        {"alg": "es256"},
        {"alg": ["ES256"]},
        {"alg": None},
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "PBES2-HS256+A128KW", "p2c": 2**31},
        {"alg": "ES384"},
        {"alg": "RS256"},
    ],
)
def test_r_auth_5_a_header_that_asks_for_more_is_refused(case, header):
    whole = {"alg": "ES256", "kid": "ec", **header}
    assert case.account(sign({name: value for name, value in whole.items() if value is not None}, PAYLOAD)).startswith(
        "refused: "
    )
    assert "https://evil.test/jwks" not in case.web.asked


def test_r_auth_5_a_key_that_comes_with_the_token_is_not_used(case):
    own = ECKey.generate_key("P-256", {"kid": "ec"})
    for header in (
        {"alg": "ES256", "kid": "ec", "jwk": own.as_dict(private=False)},
        {"alg": "ES256", "jwk": own.as_dict(private=False)},
        {"alg": "ES256", "kid": "ec", "jku": "https://evil.test/jwks", "x5u": "https://evil.test/x5u"},
    ):
        assert case.account(sign(header, PAYLOAD, own)).startswith("refused: ")
    assert set(case.web.asked) == {JWKS_URI}


@pytest.mark.parametrize("ending", ["=", "\n", " ", ".", ".AA", "\0"])
def test_one_token_has_one_spelling(case, ending):
    assert case.account(mint() + ending).startswith("refused: ")


def test_encrypted_and_nested_tokens_are_not_opened(case):
    inner = mint()
    for token in (
        sign({"alg": "ES256", "kid": "ec", "cty": "JWT"}, inner.encode()),
        f"{segment(b'{}')}.a.b.c.d",
        f"{segment(json.dumps({'alg': 'RSA-OAEP', 'enc': 'A128GCM', 'zip': 'DEF'}).encode())}.AA.AA.AA.AA",
        sign({"alg": "ES256", "kid": "ec"}, b"[" * 3000 + b"]" * 3000),
        sign({"alg": "ES256", "kid": "ec"}, b'{"a":' * 900 + b"1" + b"}" * 900),
        sign({"alg": "ES256", "kid": "ec"}, b'["iss"]'),
        sign({"alg": "ES256", "kid": "ec"}, b"\xff\xfe"),
    ):
        assert case.account(token).startswith("refused: "), token[:60]


def test_huge_tokens_are_not_looked_at(case):
    assert case.account(mint(x="A" * TOKEN_LIMIT_OCTETS)).startswith("refused: ")
    assert not case.web.asked


@pytest.mark.parametrize(
    "value", ["1e999", "-1e999", "NaN", "Infinity", "-Infinity", str(10**400), '"9999999999"', "[]"]
)
@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
def test_r_auth_5_times_that_are_none(case, name, value):
    payload = json.dumps(claims(**{name: 0})).replace(f'"{name}": 0', f'"{name}": {value}').encode()
    answer = case.account(sign({"alg": "ES256", "kid": "ec"}, payload))
    assert answer.startswith("refused: ")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cnf": {"jkt": "x"}}, "bound to a key"),
        ({"cnf": {"x5t#S256": "x"}}, "bound to a key"),
        ({"token_type": "DPoP"}, "token_type"),
        ({"token_type": "refresh_token"}, "token_type"),
        ({"token_use": "id"}, "token_use"),
        ({"typ": "Refresh"}, "typ"),
        ({"typ": "ID"}, "typ"),
        ({"sub": 7}, "sub"),
        ({"sub": ""}, "sub"),
        # Scope is no regular expression, no list in one word, and never satisfied by one of two (R-AUTH-5).
        ({"scope": "mail.read"}, "scope"),
        ({"scope": ["openid mail"]}, "scope"),
        ({"scope": {"mail": True}}, "scope"),
        ({"scope": "Mail"}, "scope"),
        ({"scope": "openid\tmail"}, "scope"),
        ({"scope": "other", "scp": "mail"}, "scope"),
        ({"aud": "mail other"}, "audience"),
        ({"aud": {"mail": 1}}, "audience"),
        ({"aud": "other", "scope": "mail", "scp": "mail"}, "audience"),
        ({"email": "x" * 2000}, "no claim"),
        ({"email": ["alice@example.test"]}, "no claim"),
        ({"email_verified": "true"}, "not verified"),
    ],
)
def test_r_auth_5_claims_in_shapes_of_their_own(case, changes, reason):
    answer = case.account(mint(**changes))
    assert answer.startswith("refused: ")
    assert reason in answer


def test_r_auth_5_all_words_of_the_scope_are_needed():
    case = JudgeCase(scope="mail.read mail.send")
    assert case.account(mint(scope="mail.read")) == "refused: scope"
    assert case.account(mint(scope="mail.send mail.read")) == "alice@example.test"


@pytest.mark.parametrize(
    ("account", "is_good"),
    [
        ("alice@example.test", True),
        ("alice@EXAMPLE.test", True),
        ("alice@bücher.test", True),
        ("alice@xn--bcher-kva.test", True),
        ("bob@other.test", False),
        ("bob@mail.example.test", False),
        ("bob@example.test.other.test", False),
        ("bob@example.test@other.test", False),
        ("alice", False),
        ("@example.test", False),
    ],
)
def test_r_auth_5_an_issuer_vouches_for_its_own_domains(account, is_good):
    case = JudgeCase(domains=("Example.test", "bücher.test"))
    answer = case.account(mint(email=account))
    assert answer == (account if is_good else "refused: an account of another domain")


def test_the_allowance_for_clocks_goes_both_ways_and_no_further():
    case = JudgeCase(clock_skew_seconds=5.0)
    assert case.account(mint(exp=NOW - 4.9)) == "alice@example.test"
    assert case.account(mint(exp=NOW - 5)) == "refused: expired"
    assert case.account(mint(nbf=NOW + 5)) == "alice@example.test"
    assert case.account(mint(nbf=NOW + 5.1)) == "refused: not valid yet"


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_keys_that_are_too_weak_or_for_something_else_are_no_keys():
    weak = RSAKey.generate_key(1024).as_dict(private=False)
    good = EC_KEY.as_dict(private=False)
    members: list[Any] = [
        {**weak, "kid": "weak"},
        {**good, "kid": "wrap", "key_ops": ["wrapKey"]},
        {**good, "kid": "odd", "key_ops": "verify"},
        {**good, "kid": "good", "key_ops": ["verify"]},
        {**good, "kid": "point", "x": "AAAA"},
        {**good, "kid": "good", "alg": "ES384"},
    ]
    keys = KeyTable({"keys": members})
    assert [keys.find(kid) for kid in ("weak", "wrap", "odd", "point")] == [None] * 4
    good_one = keys.find("good")
    assert good_one is not None
    # Of two with one id it is the first.
    assert good_one.get("alg") is None


def test_a_private_key_that_was_published_is_not_kept():
    key = KeyTable({"keys": [EC_KEY.as_dict(private=True)]}).find("ec")
    assert key is not None
    assert not key.is_private


@pytest.mark.parametrize(
    ("member", "algorithm"),
    [({"alg": "ES384"}, "ES256"), ({"use": "enc"}, "ES256")],
)
def test_r_auth_5_a_key_serves_what_its_issuer_says(case, member, algorithm):
    case.web.pages[JWKS_URI] = json.dumps({"keys": [{**EC_KEY.as_dict(private=False), **member}]}).encode()
    assert case.account(mint(EC_KEY, algorithm)).startswith("refused: ")


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_ed25519():
    key = OKPKey.generate_key("Ed25519", {"kid": "ed"})
    case = JudgeCase(algorithms=("EdDSA",))
    case.web.pages[JWKS_URI] = jwks(key)
    assert case.account(mint(key, "EdDSA")) == "alice@example.test"
    assert case.account(mint()) == "refused: algorithm"


def test_r_auth_5_tokens_that_cannot_be_good_fetch_no_keys(case):
    case.account(sign({"alg": "none", "kid": "other"}, PAYLOAD))
    case.account(sign({"alg": "ES256", "kid": 1}, PAYLOAD))
    case.account(mint(iss="https://evil.test"))
    assert not case.web.asked
    for number in range(100):
        case.account(mint(kid=f"unknown {number}"))
    assert case.web.count(JWKS_URI) == 1


@given(token=st.text(max_size=80) | st.from_regex(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", fullmatch=True))
def test_any_text_is_judged(token):
    assert JudgeCase().account(token).startswith("refused: ")


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "scope", "scp", "sub", "email", "email_verified", "cnf"])


@given(changes=st.dictionaries(NAMES, _JSON, min_size=1, max_size=4))
def test_r_auth_5_claims_of_any_shape_are_judged(changes):
    told = claims() | changes
    try:
        good = check_claims(told, oauth_settings(), NOW)
    except TokenRefused:
        return
    assert told["iss"] == claims()["iss"]
    assert "mail" in told["aud"]
    assert good.account == told["email"]
    assert good.expires is not None
    assert good.expires > NOW - 61


def test_a_token_says_little_before_it_is_believed():
    assert parse_jwt("opaque") is None
    assert parse_jwt("a.b") is None
    assert parse_jwt("a.b.c") is None
    found = parse_jwt(f"{segment(b'{}')}.{segment(b'{}')}.")
    assert found is not None
    assert found.issuer == ""
