"""Which tokens are good, where their keys come from, and what a log-in by them is."""

from __future__ import annotations

import hmac
import json
from typing import Any

import pytest
from joserfc.jwk import ECKey

from mailsrv.address import Address
from mailsrv.auth.bearer_checker import BearerChecker
from mailsrv.auth.issuer_web import IssuerFailed
from mailsrv.auth.offer import MechanismOffer
from mailsrv.auth.rules import LoginRules
from mailsrv.auth.sasl_checker import SaslChecker
from mailsrv.auth.settings import AuthSettings
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.auth.token_keys import KeyTable
from mailsrv.auth.tokens import TokenJudge
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.errors import Unavailable
from mailsrv.interfaces.account import InvalidCredentials, SaslCredentials
from mailsrv.sasl import Conversation
from mailsrv.sasl.bearer import BEARER_MECHANISMS
from tests.auth.token_issuer import (
    EC_KEY,
    INTROSPECTION_URI,
    JWKS_URI,
    NEW_KEY,
    NOW,
    RSA_KEY,
    JudgeCase,
    jwks,
    mint,
    oauth_settings,
    segment,
)


class Case(JudgeCase):
    """With log-ins by the tokens."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        directory = MemoryDirectory()
        directory.add_user(Address("alice", "example.test"), "sesame")
        directory.add_user(Address("bob", "example.test"), "sesame", may_log_in=False)
        auth = AuthSettings(default_domain="example.test")
        self.throttle = LoginThrottle(auth, clock=self.clock)
        bearer = BearerChecker(
            directory,
            LoginRules(auth, self.clock),
            self.judge,
            clock=self.clock,
            throttle=self.throttle,
            seconds=self.clock.seconds,
        )
        self.checker = SaslChecker(
            directory,
            auth,
            clock=self.clock,
            throttle=self.throttle,
            offer=MechanismOffer(auth, directory, takes_tokens=True),
            decoy_secret=b"s" * 32,
            further=dict.fromkeys(BEARER_MECHANISMS, bearer),
        )

    def log_in(self, token: str, name: str = "", mechanism: str = "OAUTHBEARER") -> Any:
        head = f"n,{f'a={name}' if name else ''}," if mechanism == "OAUTHBEARER" else f"user={name}"
        answers: list[Any] = []
        self.challenges: list[bytes] = []
        conversation = Conversation(self.challenges.append)
        first = f"{head}\x01auth=Bearer {token}\x01\x01".encode()
        credentials = SaslCredentials(mechanism, first, conversation.converse, "192.0.2.1", "imap")
        self.checker.requestAvatarId(credentials).addBoth(answers.append)
        if not answers:
            conversation.respond(b"\x01")
            self.clock.advance(20)
        return getattr(answers[0], "value", answers[0])


@pytest.fixture
def case():
    return Case()


def test_good_tokens(case):
    assert case.account(mint()) == "alice@example.test"
    assert case.account(mint(RSA_KEY, "RS256")) == "alice@example.test"
    assert case.account(mint(RSA_KEY, "PS256", aud="mail", scope=None, scp=["mail"])) == "alice@example.test"
    assert case.web.count(JWKS_URI) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://evil.test"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"aud": "other"}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": [["mail"]]}, "audience"),
        ({"exp": NOW - 61}, "expired"),
        ({"exp": None}, "no expiry"),
        ({"exp": "never"}, "no time"),
        ({"exp": True}, "no time"),
        ({"nbf": NOW + 61}, "not valid yet"),
        ({"iat": NOW + 61}, "not valid yet"),
        ({"scope": "openid"}, "scope"),
        ({"scope": None}, "scope"),
        ({"scope": "email"}, "scope"),
        ({"email": None}, "no claim"),
        ({"email": 7}, "no claim"),
        ({"email_verified": False}, "not verified"),
    ],
)
def test_r_auth_5_every_claim_has_to_be_right(case, changes, reason):
    answer = case.account(mint(**changes))
    assert answer.startswith("refused: ")
    assert reason in answer


def test_r_auth_5_the_signature_has_to_be_right(case):
    header, claims, signature = mint().split(".")
    other = mint(email="bob@example.test").split(".")[1]
    stranger = ECKey.generate_key("P-256", {"kid": "ec"})
    for token in (
        f"{header}.{other}.{signature}",
        f"{header}.{claims}.",
        f"{header}.{claims}",
        mint(stranger),
        "a.b.c",
        "e30.e30.e30",
        "..",
    ):
        assert case.account(token).startswith("refused: "), token


def test_r_auth_5_only_listed_algorithms(case):
    assert case.account(mint(RSA_KEY, "RS512")).startswith("refused: algorithm")
    # The public key as the secret of an HMAC: the old trick.
    claims = mint(RSA_KEY, "RS256").split(".")[1]
    header = segment(b'{"alg":"HS256","kid":"rsa"}')
    signed = f"{header}.{claims}"
    digest = hmac.digest(RSA_KEY.as_pem(private=False), signed.encode(), "sha256")
    assert case.account(f"{signed}.{segment(digest)}").startswith("refused: algorithm")
    for unsigned in (b'{"alg":"none","kid":"rsa"}', b'{"alg":"none"}', b'{"kid":"rsa"}'):
        assert case.account(f"{segment(unsigned)}.{claims}.").startswith("refused: ")


@pytest.mark.parametrize("kid", ["../../etc/passwd", "https://evil.test/jwks", "\0", "rsa"])
def test_r_auth_5_a_key_id_is_looked_up_in_a_table(case, kid):
    assert case.account(mint(kid=kid)).startswith("refused: ")


def test_secrets_and_keys_for_encryption_are_no_keys():
    oct_key = {"kty": "oct", "k": "c2VjcmV0", "kid": "o"}
    encryption = {**EC_KEY.as_dict(private=False), "use": "enc", "kid": "e"}
    document: dict[str, Any] = {"keys": [oct_key, encryption, "junk", {"kty": []}, EC_KEY.as_dict(private=False)]}
    table = KeyTable(document)
    assert table.find("ec") is not None
    assert table.find(None) == table.find("ec")
    assert [table.find(kid) for kid in ("o", "e", "\0002", "\0003", "")] == [None] * 5
    for broken in ({}, {"keys": 1}, {"keys": {"kty": "EC"}}):
        with pytest.raises(IssuerFailed):
            KeyTable(broken)


@pytest.mark.parametrize("page", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": [NaN]}', b"[" * 50_000])
def test_r_auth_7_a_document_that_is_none(case, page):
    case.web.pages[JWKS_URI] = page
    assert isinstance(case.account(mint()), Unavailable)


def test_a_token_without_key_id_needs_one_key_alone(case):
    assert case.account(mint(kid=None)) == "refused: unknown key"
    case = Case()
    case.web.failure, case.web.pages[JWKS_URI] = None, jwks(EC_KEY)
    assert case.account(mint(kid=None)) == "alice@example.test"


def test_new_keys_are_fetched_once_a_minute(case):
    case.account(mint())
    case.web.pages[JWKS_URI] = jwks(NEW_KEY)
    assert case.account(mint(NEW_KEY)) == "refused: unknown key"
    case.clock.advance(61)
    assert case.account(mint(NEW_KEY)) == "alice@example.test"
    assert case.account(mint()) == "refused: unknown key"
    assert case.web.count(JWKS_URI) == 2


def test_r_auth_7_no_keys_is_unavailable_and_old_ones_last_a_while():
    case = Case(keys_seconds=100.0, keys_stale_seconds=1000.0)
    case.web.failure = OSError()
    assert isinstance(case.account(mint()), Unavailable)
    case.web.failure, case.web.pages[JWKS_URI] = None, jwks(EC_KEY)
    case.clock.advance(61)
    assert case.account(mint()) == "alice@example.test"
    case.web.failure = OSError()
    case.clock.advance(500)
    assert case.account(mint(exp=NOW + 9999)) == "alice@example.test"
    case.clock.advance(500)
    assert isinstance(case.account(mint(exp=NOW + 9999)), Unavailable)


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
def test_log_in(case, mechanism):
    user = case.log_in(mint(), "alice@example.test", mechanism)
    assert str(user.user.address) == "alice@example.test"
    assert not case.challenges


@pytest.mark.parametrize(
    ("token", "name"),
    [
        (mint(aud="other"), "alice@example.test"),
        (mint(), "carol@example.test"),
        (mint(email="nobody@example.test"), ""),
        (mint(email="bob@example.test"), ""),
        (mint(email="no address@@"), ""),
    ],
)
def test_r_auth_6_failures_are_alike_and_told_in_json(case, token, name):
    answer = case.log_in(token, name)
    assert isinstance(answer, InvalidCredentials)
    assert json.loads(case.challenges[0]) == {"status": "invalid_token", "scope": "mail"}


def test_a_refused_client_is_sent_back_to_the_issuer_of_its_token(case):
    other = oauth_settings(issuer="https://other.example.test", scope="imap", jwks_uri="")
    case.judge = TokenJudge((case.settings, other), lambda _: case.web, clock=case.clock, seconds=case.clock.seconds)
    assert case.judge.table_of(mint(iss=other.issuer, aud="x")) is other
    assert case.judge.table_of(mint(aud="x")) is case.settings
    assert case.judge.table_of("opaque") is case.settings
    assert case.judge.table_of(mint(iss="https://unknown.test")) is case.settings


def test_tokens_are_offered_under_tls_alone():
    offer = MechanismOffer(AuthSettings(), MemoryDirectory(), takes_tokens=True)
    assert offer(True) == ("OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN")
    assert offer(False) == ("PLAIN", "LOGIN")


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithms": ("HS256",)},
        {"algorithms": ("none",)},
        {"algorithms": ()},
        {"audience": ()},
        {"audience": ("mail", "")},
        {"scope": ""},
        {"scope": " "},
        {"jwks_uri": "http://x.test/"},
        {"jwks_uri": "https://x.test/\r\nX: y"},
        {"jwks_uri": "https://ü.test/"},
        {"domains": ("no domain",)},
        {"jwks_file": "keys.json"},
        {"client_id": "x", "client_secret_file": "y"},
        {"jwks_uri": "", "client_id": "x"},
        {"jwks_uri": "", "client_secret_file": "y"},
        {"jwks_uri": "", "introspection_uri": INTROSPECTION_URI},
        {"jwks_uri": "", "issuer": "http://login.example.test"},
        {"jwks_uri": "", "issuer": "login.example.test"},
    ],
)
def test_settings_that_would_let_anybody_in_are_refused(changes):
    with pytest.raises(ValueError, match=r"expected|Length|needs|only one|together"):
        oauth_settings(**changes)


def test_an_issuer_may_have_several_tables(case):
    tables = (oauth_settings(audience=("webmail",)), oauth_settings())
    case.judge = TokenJudge(tables, lambda _: case.web, clock=case.clock, seconds=case.clock.seconds)
    assert case.account(mint()) == "alice@example.test"
    assert case.account(mint(aud="webmail")) == "alice@example.test"
    assert case.account(mint(aud="other")) == "refused: audience"
