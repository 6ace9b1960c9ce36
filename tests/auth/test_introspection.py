"""Issuers that are asked about tokens (RFC 7662), and what happens when they do not answer."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from twisted.logger import capturedLogs

from mailsrv.auth.answer_cache import AnswerCache
from mailsrv.auth.introspection import basic_authorization
from mailsrv.auth.issuer_web import WebAnswer
from mailsrv.auth.oauth_settings import UntoldClaim
from mailsrv.auth.token_claims import GoodToken
from mailsrv.auth.tokens import TokenJudge
from mailsrv.errors import Unavailable
from tests.auth.token_issuer import (
    INTROSPECTION_URI,
    NEW_KEY,
    NOW,
    JudgeCase,
    asking_settings,
    claims,
    jwks,
    mint,
    oauth_settings,
)


def told(**changes: Any) -> dict[str, Any]:
    return claims(**{"active": True, "token_type": "Bearer", "sub": "7", **changes})


class Asking(JudgeCase):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**asking_settings(**settings))
        self.web.told["good"] = told()

    @property
    def questions(self) -> int:
        return self.web.count(INTROSPECTION_URI)

    def answer(self, number: int = 0, **changes: Any) -> None:
        """The question that was held back."""
        assert self.web.held is not None
        octets = json.dumps(told(**changes)).encode()
        self.web.held[number].callback(WebAnswer(200, "application/json", octets))


@pytest.fixture
def case():
    return Asking()


def test_the_question(case):
    assert case.account("good") == "alice@example.test"
    [(form, authorization)] = case.web.forms
    assert form == "token=good&token_type_hint=access_token"
    kind, _, pair = authorization.partition(" ")
    assert kind == "Basic"
    # RFC 6749 2.3.1: urlencoded before they are joined.
    assert base64.b64decode(pair) == b"mail+server:s%26cr+t"


def test_names_and_secrets_of_any_letters_make_one_field():
    assert base64.b64decode(basic_authorization("a:b", "ü:\r\n").removeprefix("Basic ")) == b"a%3Ab:%C3%BC%3A%0D%0A"


def test_jwts_of_the_issuer_are_asked_about_too(case):
    token = mint()
    case.web.told[token] = told()
    assert case.account(token) == "alice@example.test"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"active": False}, "not active"),
        ({"iss": "https://evil.test"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"aud": "other"}, "audience"),
        ({"aud": None}, "audience"),
        ({"exp": NOW - 61}, "expired"),
        ({"exp": None}, "no expiry"),
        ({"nbf": NOW + 61}, "not valid yet"),
        ({"scope": "openid"}, "scope"),
        ({"scope": None}, "scope"),
        ({"sub": ["x"]}, "sub"),
        ({"token_type": "refresh_token"}, "token_type"),
        ({"token_type": "DPoP"}, "token_type"),
        ({"cnf": {"jkt": "x"}}, "bound to a key"),
        ({"email": None}, "no claim"),
        ({"email_verified": False}, "not verified"),
    ],
)
def test_r_auth_5_everything_has_to_be_right(case, changes, reason):
    case.web.told["good"] = told(**changes)
    answer = case.account("good")
    assert answer.startswith("refused: ")
    assert reason in answer


@pytest.mark.parametrize("name", ["iss", "aud", "exp", "scope"])
def test_r_auth_5_what_need_not_be_told_has_to_be_right_where_it_is(name):
    case = Asking(introspection_untold=(UntoldClaim(name),))
    case.web.told["good"] = told(**{name: None})
    assert case.account("good") == "alice@example.test"
    wrong = {"iss": "https://evil.test", "aud": "other", "exp": NOW - 100, "scope": "openid"}
    case.web.told["bad"] = told(**{name: wrong[name]})
    assert case.account("bad").startswith("refused: ")
    for other in {"iss", "aud", "exp", "scope"} - {name}:
        case.web.told[other] = told(**{other: None})
        assert case.account(other).startswith("refused: ")


def test_an_account_by_another_claim():
    case = Asking(account_claim="username")
    case.web.told["good"] = told(username="alice")
    assert case.account("good") == "alice"


@pytest.mark.parametrize(
    "page",
    [
        WebAnswer(401, "application/json", b'{"active": true}'),
        WebAnswer(302, "application/json", b'{"active": true}'),
        WebAnswer(500, "text/html", b""),
        WebAnswer(200, "text/html", b'{"active": true}'),
        WebAnswer(200, "application/token-introspection+jwt", b"x"),
        WebAnswer(200, "application/json", b""),
        WebAnswer(200, "application/json", b"true"),
        WebAnswer(200, "application/json", b"{}"),
        WebAnswer(200, "application/json", b'{"active": "true"}'),
        WebAnswer(200, "application/json", b'{"active": 1}'),
        WebAnswer(200, "application/json", b'{"active": true, "exp": NaN}'),
        WebAnswer(200, "application/json", b"[" * 60_000),
        OSError("refused"),
    ],
)
def test_r_auth_7_an_answer_that_is_none_is_a_temporary_failure_and_not_remembered(case, page):
    case.web.told["good"] = page
    assert isinstance(case.account("good"), Unavailable)
    case.web.told["good"] = told()
    assert case.account("good") == "alice@example.test"


@pytest.mark.parametrize("secret", [None, b"", b"\n", b"two\nlines", b"\xff", b"x" * 5000])
def test_r_auth_7_without_a_secret_nobody_is_asked(case, secret):
    case.web.files = {} if secret is None else {"secret": secret}
    assert isinstance(case.account("good"), Unavailable)
    assert not case.questions


def test_answers_are_remembered_for_a_while(case):
    for _ in range(3):
        assert case.account("good") == "alice@example.test"
    assert case.questions == 1
    assert not case.judge.asks_about("good")
    assert case.judge.asks_about("another")
    case.clock.advance(61)
    case.web.told["good"] = told(active=False)
    assert case.account("good") == "refused: not active"
    assert case.questions == 2


def test_an_answer_is_not_remembered_past_the_end_of_the_token(case):
    case.web.told["good"] = told(exp=NOW + 10)
    assert case.account("good") == "alice@example.test"
    case.clock.advance(9.9)
    case.account("good")
    assert case.questions == 1
    case.clock.advance(0.1)
    # Within the allowance for clocks, but its issuer decides.
    case.account("good")
    assert case.questions == 2


def test_no_memory_where_none_is_wanted():
    case = Asking(introspection_cache_seconds=0.0)
    for _ in range(3):
        case.account("good")
        case.account("bad")
    assert case.questions == 6


def test_a_refusal_is_remembered_for_a_moment(case):
    assert case.account("new") == "refused: not active"
    case.web.told["new"] = told()
    assert case.account("new") == "refused: not active"
    case.clock.advance(11)
    assert case.account("new") == "alice@example.test"


def test_tokens_made_up_displace_no_good_ones():
    cache = AnswerCache(seconds=60, entries=10)
    good = GoodToken("alice", None)
    cache.add(cache.key("good"), good, NOW)
    for number in range(1000):
        cache.add(cache.key(f"bad {number}"), "not active", NOW)
    assert cache.find(cache.key("good"), NOW) == good
    assert len(cache) == 11
    for number in range(1000):
        cache.add(cache.key(f"good {number}"), good, NOW)
    assert len(cache) == 20


def test_r_auth_2_two_tokens_share_no_answer(case):
    assert case.account("good") == "alice@example.test"
    assert case.account("gooD") == "refused: not active"
    assert AnswerCache(seconds=1, entries=1).key("good") != AnswerCache(seconds=1, entries=1).key("good")


def test_one_question_for_many_log_ins_by_one_token(case):
    case.web.held = []
    answers = [case.begin("same") for _ in range(50)]
    assert case.questions == 1
    case.answer()
    assert answers == [["alice@example.test"]] * 50


def test_r_lim_2_so_many_at_a_time_so_many_waiting():
    case = Asking(introspection_requests=2, introspection_queue=3)
    case.web.held = []
    answers = [case.begin(f"token {number}") for number in range(6)]
    assert case.questions == 2
    assert [bool(answer) for answer in answers] == [False] * 5 + [True]
    assert isinstance(answers[5][0], Unavailable)
    for number in range(5):
        case.answer(number)
    assert answers[:5] == [["alice@example.test"]] * 5


def test_r_auth_7_a_hung_issuer_holds_no_log_in_longer_than_the_deadline():
    case = Asking(introspection_requests=2, fetch_seconds=4.0)
    case.web.held = []
    answers = [case.begin(f"token {number}") for number in range(6)]
    case.clock.advance(4)
    assert all(isinstance(answer[0], Unavailable) for answer in answers)
    # The requests end by their own deadline, and those whose log-ins are gone are not made.
    assert case.questions == 2
    case.answer(0)
    assert case.questions == 2
    assert case.account("token 0") == "alice@example.test"


def test_r_auth_7_an_issuer_that_fails_is_left_alone_and_tried_again():
    case = Asking()
    case.web.failure = OSError("refused")
    with capturedLogs() as logged:
        for number in range(50):
            assert isinstance(case.account(f"token {number}"), Unavailable)
    assert case.questions == 3
    assert len(logged) <= 3
    case.clock.advance(15)
    for number in range(50):
        assert isinstance(case.account(f"token {number}"), Unavailable)
    assert case.questions == 4
    case.clock.advance(15)
    case.web.failure = None
    case.web.held = []
    trial = case.begin("good")
    # While one tries the others need not.
    assert isinstance(case.account("other"), Unavailable)
    case.answer()
    assert trial == ["alice@example.test"]
    case.web.held = None
    assert case.account("other") == "refused: not active"


def test_what_waits_is_told_at_once_when_the_issuer_fails():
    case = Asking(introspection_requests=1, introspection_failures=1)
    case.web.held = []
    answers = [case.begin(f"token {number}") for number in range(4)]
    case.web.held[0].errback(OSError("reset"))
    assert [isinstance(answer[0], Unavailable) for answer in answers] == [True] * 4
    assert case.questions == 1


def test_no_token_and_no_secret_is_logged(case):
    with capturedLogs() as logged:
        case.account("good")
        case.account("opaque-and-bad")
        case.web.told["broken"] = WebAnswer(200, "application/json", b'{"token": "broken"}')
        case.account("broken")
        case.web.failure = OSError("down")
        case.account("opaque-and-new")
    text = repr(logged)
    assert logged
    for secret in ("good", "opaque-and", "s&cr", "s%26cr", "broken"):
        assert secret not in text


def test_tokens_are_shown_to_their_own_issuer_alone():
    other, third = "https://other.example.test", "https://third.example.test"
    case = Asking()
    asking = asking_settings(issuer=other, introspection_uri=f"{other}/introspect")
    tables = (oauth_settings(**asking), case.settings, oauth_settings(issuer=third, jwks_uri=f"{third}/jwks"))
    case.web.pages[f"{third}/jwks"] = jwks(NEW_KEY)
    case.judge = TokenJudge(tables, lambda _: case.web, clock=case.clock, seconds=case.clock.seconds)
    token = mint()
    case.web.told[token] = told()
    assert case.account(token) == "alice@example.test"
    assert case.account(mint(iss="https://stranger.test")).startswith("refused: unknown issuer")
    assert case.account(mint(iss=third)).startswith("refused: ")
    assert case.web.count(f"{other}/introspect") == 0
    # What names no issuer may be anybody's.
    assert case.account("good") == "alice@example.test"
    assert case.web.count(f"{other}/introspect") == 1


def test_opaque_tokens_are_nothing_to_an_issuer_with_keys():
    assert JudgeCase().account("opaque").startswith("refused: ")


def test_r_auth_7_one_issuer_down_does_not_hide_another():
    other = "https://other.example.test"
    case = Asking()
    broken = oauth_settings(**asking_settings(issuer=other, client_secret_file="missing"))
    case.judge = TokenJudge((broken, case.settings), lambda _: case.web, clock=case.clock, seconds=case.clock.seconds)
    assert case.account("good") == "alice@example.test"
    assert isinstance(case.account("bad"), Unavailable)
