"""What an issuer tells of itself, and how long it is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from mailsrv.auth.issuer_metadata import IssuerMetadata, understand_metadata
from mailsrv.auth.issuer_web import IssuerFailed, WebAnswer
from mailsrv.errors import Unavailable
from tests.auth.token_issuer import (
    DISCOVERY_URI,
    EC_KEY,
    ISSUER,
    JWKS_URI,
    NEW_KEY,
    JudgeCase,
    asking_settings,
    claims,
    jwks,
    mint,
    oauth_settings,
)


def metadata(**changes: Any) -> bytes:
    return json.dumps({"issuer": ISSUER, "jwks_uri": JWKS_URI, **changes}).encode()


def test_keys_are_found_by_discovery_and_kept():
    case = JudgeCase(jwks_uri="")
    assert case.account(mint()) == "alice@example.test"
    assert case.account(mint()) == "alice@example.test"
    assert case.web.asked == [DISCOVERY_URI, JWKS_URI]


def test_questions_are_asked_where_discovery_says():
    case = JudgeCase(**asking_settings(introspection_uri=""))
    case.web.told["opaque"] = {"active": True, **claims()}
    assert case.account("opaque") == "alice@example.test"
    assert case.web.count(DISCOVERY_URI) == 1


def test_metadata_without_an_address_for_questions():
    case = JudgeCase(**asking_settings(introspection_uri=""))
    case.web.pages[DISCOVERY_URI] = metadata()
    assert isinstance(case.account("opaque"), Unavailable)
    assert case.web.asked == ["secret", DISCOVERY_URI]


@pytest.mark.parametrize(
    ("issuer", "given", "asked"),
    [
        (ISSUER, "", DISCOVERY_URI),
        (f"{ISSUER}/", "", DISCOVERY_URI),
        (f"{ISSUER}/realms/x", "", f"{ISSUER}/realms/x/.well-known/openid-configuration"),
        (ISSUER, "https://other.test/conf", "https://other.test/conf"),
    ],
)
def test_where_the_document_is(issuer, given, asked):
    assert oauth_settings(issuer=issuer, openid_configuration=given).discovery_uri == asked


def test_only_a_document_that_is_needed_or_named_is_told_of():
    assert oauth_settings().told_configuration == ""
    assert oauth_settings(jwks_uri="").told_configuration == DISCOVERY_URI
    assert oauth_settings(openid_configuration="https://x.test/c").told_configuration == "https://x.test/c"


@pytest.mark.parametrize(
    "page",
    [
        metadata(issuer=f"{ISSUER}/"),
        metadata(issuer=ISSUER.upper()),
        metadata(issuer=None),
        metadata(jwks_uri="http://login.example.test/jwks"),
        metadata(jwks_uri="file:///etc/passwd"),
        metadata(jwks_uri="https://login.example.test/jwks\r\nX: y"),
        metadata(jwks_uri=["https://login.example.test/jwks"]),
        metadata(jwks_uri="https://" + "x" * 3000),
        metadata(jwks_uri=None),
        b"[]",
        b"<html>",
        b"",
        WebAnswer(200, "text/html", metadata()),
        WebAnswer(302, "application/json", metadata()),
        WebAnswer(500, "application/json", metadata()),
        OSError("no route"),
    ],
)
def test_r_auth_7_a_document_that_cannot_be_used_is_a_temporary_failure(page):
    case = JudgeCase(jwks_uri="")
    case.web.pages[DISCOVERY_URI] = page
    assert isinstance(case.account(mint()), Unavailable)
    # And is put right without anybody's help.
    case.web.pages[DISCOVERY_URI] = metadata()
    case.clock.advance(61)
    assert case.account(mint()) == "alice@example.test"


def test_what_it_need_not_have():
    assert understand_metadata({"issuer": ISSUER}, ISSUER) == IssuerMetadata("", "")
    with pytest.raises(IssuerFailed):
        understand_metadata({"issuer": ISSUER, "introspection_endpoint": "http://x.test/"}, ISSUER)


def test_after_a_failure_it_is_asked_again_soon_and_then_less_often():
    case = JudgeCase()
    case.web.failure = OSError()
    for _ in range(120):
        assert isinstance(case.account(mint()), Unavailable)
        case.clock.advance(1)
    # At 0, 5, 15, 35, 75 seconds.
    assert case.web.count(JWKS_URI) == 5


def test_known_keys_serve_while_new_ones_are_fetched():
    case = JudgeCase(keys_seconds=100.0, keys_stale_seconds=1000.0)
    assert case.account(mint()) == "alice@example.test"
    case.clock.advance(120)
    waiting: Deferred[WebAnswer] = Deferred()
    case.web.pages[JWKS_URI] = waiting
    assert case.account(mint()) == "alice@example.test"
    waiting.callback(WebAnswer(200, "application/json", jwks(NEW_KEY)))
    assert case.account(mint()) == "refused: unknown key"
    assert case.web.count(JWKS_URI) == 2


def test_r_auth_5_a_key_withdrawn_long_ago_is_not_believed_once_more():
    case = JudgeCase(keys_seconds=100.0, keys_stale_seconds=1000.0)
    case.account(mint())
    case.web.pages[JWKS_URI] = jwks(NEW_KEY)
    case.clock.advance(201)
    assert case.account(mint()) == "refused: unknown key"


def test_who_hangs_up_takes_the_fetching_not_along():
    case = JudgeCase()
    waiting: Deferred[WebAnswer] = Deferred()
    case.web.pages[JWKS_URI] = waiting
    gone = Deferred.fromCoroutine(case.judge.judge(mint()))
    stays = case.begin(mint())
    gone.addErrback(lambda failure: failure.trap(CancelledError))
    gone.cancel()
    waiting.callback(WebAnswer(200, "application/jwk-set+json", jwks(EC_KEY)))
    assert stays == ["alice@example.test"]
