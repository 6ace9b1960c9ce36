"""An issuer of tokens in memory: keys, tokens as it would give and as an attacker would make them, and its answers."""

from __future__ import annotations

import base64
import json
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from mailsrv.auth.issuer_web import WebAnswer
from mailsrv.auth.oauth_settings import OAuthSettings
from mailsrv.auth.tokens import TokenJudge
from mailsrv.errors import Unavailable

ISSUER = "https://login.example.test"
NOW = 1_000_000.0
RSA_KEY = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"})
EC_KEY = ECKey.generate_key("P-256", {"kid": "ec"})
NEW_KEY = ECKey.generate_key("P-256", {"kid": "new"})
CLAIMS = {
    "iss": ISSUER,
    "aud": ["other", "mail"],
    "exp": NOW + 300,
    "iat": NOW - 5,
    "scope": "openid mail",
    "email": "alice@example.test",
}
JWKS_URI = f"{ISSUER}/jwks"
INTROSPECTION_URI = f"{ISSUER}/introspect"
DISCOVERY_URI = f"{ISSUER}/.well-known/openid-configuration"


def jwks(*keys: Any) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """Good ones but for the changes; None takes one away."""
    return {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}


def mint(key: Any = EC_KEY, algorithm: str = "ES256", kid: str | None = "", **changes: Any) -> str:
    header = {"alg": algorithm}
    if kid is not None:
        header["kid"] = kid or key.kid
    return jwt.encode(header, claims(**changes), key, algorithms=[algorithm])


def segment(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def sign(header: Any, payload: bytes, key: Any = EC_KEY, algorithm: str = "ES256") -> str:
    """Whatever stands in the header; the signature over it is good."""
    text = f"{segment(json.dumps(header).encode())}.{segment(payload)}"
    return f"{text}.{segment(JWSRegistry.algorithms[algorithm].sign(text.encode(), key))}"


class MemoryIssuer:
    """An ``IssuerWeb``. ``pages`` by URI and ``told`` by token: WebAnswer, octets of JSON, exception, Deferred."""

    def __init__(self) -> None:
        self.pages: dict[str, Any] = {
            JWKS_URI: jwks(RSA_KEY, EC_KEY),
            DISCOVERY_URI: json.dumps(
                {"issuer": ISSUER, "jwks_uri": JWKS_URI, "introspection_endpoint": INTROSPECTION_URI}
            ).encode(),
        }
        self.files: dict[str, bytes] = {"secret": b"s&cr t\n"}
        self.told: dict[str, Any] = {}
        self.asked: list[str] = []
        self.forms: list[tuple[str, str]] = []
        self.failure: Any = None
        """Answered in place of everything."""
        self.held: list[Deferred[WebAnswer]] | None = None
        """Set to a list: POSTs are answered when the test says so."""

    def read_file(self, path: str) -> Deferred[bytes]:
        self.asked.append(path)
        return succeed(self.files[path]) if path in self.files else fail(FileNotFoundError(path))

    def get(self, uri: str, *, seconds: float) -> Deferred[WebAnswer]:
        self.asked.append(uri)
        return self._answer(self.pages.get(uri, WebAnswer(404, "text/html", b"")))

    def post_form(self, uri: str, form: str, *, authorization: str, seconds: float) -> Deferred[WebAnswer]:
        self.asked.append(uri)
        self.forms.append((form, authorization))
        if self.held is not None:
            self.held.append(Deferred())
            return self.held[-1]
        token = form.partition("token=")[2].partition("&")[0]
        told = self.told.get(token, {"active": False})
        return self._answer(json.dumps(told).encode() if isinstance(told, dict) else told)

    def _answer(self, page: Any) -> Deferred[WebAnswer]:
        page = page if self.failure is None else self.failure
        if isinstance(page, Deferred):
            return page
        if isinstance(page, Exception):
            return fail(page)
        return succeed(page if isinstance(page, WebAnswer) else WebAnswer(200, "application/json", page))

    def count(self, uri: str) -> int:
        return self.asked.count(uri)


class JudgeCase:
    """A judge of one table's tokens, at a time of the test's."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.web = MemoryIssuer()
        self.settings = oauth_settings(**settings)
        self.judge = TokenJudge((self.settings,), lambda _: self.web, clock=self.clock, seconds=self.clock.seconds)

    def begin(self, token: str) -> list[Any]:
        """Holds the answer once there is one: an account, Unavailable, or "refused: why"."""
        answers: list[Any] = []

        def note(result: Any) -> None:
            value = getattr(result, "value", result)
            if isinstance(value, tuple):
                answers.append(value[0].account)
            else:
                answers.append(value if isinstance(value, Unavailable) else f"refused: {value}")

        Deferred.fromCoroutine(self.judge.judge(token)).addBoth(note)
        return answers

    def account(self, token: str) -> Any:
        """The account, or what speaks against it."""
        [answer] = self.begin(token)
        return answer


def oauth_settings(**changes: Any) -> OAuthSettings:
    values = {"issuer": ISSUER, "audience": ("mail",), "scope": "mail", "jwks_uri": JWKS_URI, **changes}
    return OAuthSettings(**values)


def asking_settings(**changes: Any) -> dict[str, Any]:
    """Of a table whose issuer is asked about tokens."""
    return {
        "jwks_uri": "",
        "client_id": "mail server",
        "client_secret_file": "secret",
        "introspection_uri": INTROSPECTION_URI,
        **changes,
    }
