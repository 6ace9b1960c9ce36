"""A small OpenID Connect provider: a real HTTPS server on loopback, with an authority of its own, that can misbehave.

Discovery, keys that change, a token endpoint (refresh_token, client_credentials), introspection with
client_secret_basic. It runs in threads of the test's process, for servers in this process and in others::

    with OidcProvider(folder) as provider:
        provider.mint("alice@example.test")        # a JWT
        provider.give("alice@example.test")        # an opaque token
        provider.faults["/jwks"] = Fault.HUNG
"""

from __future__ import annotations

import base64
import enum
import json
import secrets
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.jwk import ECKey

from tests.tls.authority import Issued, issue_for_host

CLIENT_ID = "mail server"
CLIENT_SECRET = "tea & crème: 100%"
REFRESH_TOKEN = "refresh-me"
SLOW_SECONDS = 0.5

CONFIGURATION = "/.well-known/openid-configuration"
JWKS = "/jwks"
TOKEN = "/token"
INTROSPECTION = "/introspect"


class Fault(enum.Enum):
    """What is wrong with a place."""

    SLOW = "slow"
    HUNG = "hung"
    ERROR = "500"
    HUGE = "huge"
    WRONG_TYPE = "wrong type"
    NO_JSON = "no JSON"
    CUT_OFF = "cut off"
    ELSEWHERE = "elsewhere"


class OidcProvider:
    """``faults`` by path, ``requests`` the paths in their order."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca_path = folder / "ca.pem"
        self.secret_path = folder / "client.secret"
        self.secret_path.write_text(f"{CLIENT_SECRET}\n")
        authority = issue_for_host("authority.example.test", is_ca=True)
        self.ca_path.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
        self.keys = [ECKey.generate_key("P-256", {"kid": "first", "use": "sig", "alg": "ES256"})]
        self.given: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, Fault] = {}
        self.requests: list[str] = []
        self.ended = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self, _context(issue_for_host("localhost", authority), folder))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.issuer = f"https://localhost:{self._server.server_address[1]}"

    def __enter__(self) -> OidcProvider:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    # Tokens

    def claims(self, address: str, seconds: float = 300, **more: Any) -> dict[str, Any]:
        now = int(time.time())
        return {
            "iss": self.issuer,
            "aud": "mail",
            "iat": now,
            "exp": int(now + seconds),
            "scope": "openid mail",
            "sub": address.partition("@")[0],
            "email": address,
            **more,
        }

    def mint(self, address: str, seconds: float = 300, *, key: ECKey | None = None, **more: Any) -> str:
        """A JWT, signed by the newest key."""
        key = key or self.keys[-1]
        header = {"alg": "ES256", "kid": key.kid, "typ": "at+jwt"}
        return jwt.encode(header, self.claims(address, seconds, **more), key)

    def give(self, address: str, seconds: float = 300, **more: Any) -> str:
        """A token that says nothing."""
        token = secrets.token_urlsafe(24)
        self.given[token] = {"active": True, "token_type": "Bearer", **self.claims(address, seconds, **more)}
        return token

    def revoke(self, token: str) -> None:
        self.given[token] = {"active": False}

    def rotate(self, *, keep: int = 1) -> None:
        """A new key, and only so many of the old ones."""
        key = ECKey.generate_key("P-256", {"kid": secrets.token_hex(4), "use": "sig", "alg": "ES256"})
        self.keys = [*(self.keys[-keep:] if keep else []), key]

    # Pages

    def page(self, path: str, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON."""
        if path == CONFIGURATION:
            return 200, {
                "issuer": self.issuer,
                "jwks_uri": f"{self.issuer}{JWKS}",
                "token_endpoint": f"{self.issuer}{TOKEN}",
                "introspection_endpoint": f"{self.issuer}{INTROSPECTION}",
                "response_types_supported": ["code"],
            }
        if path == JWKS:
            return 200, {"keys": [key.as_dict(private=False) for key in self.keys]}
        if path == TOKEN:
            return self._grant(form, authorization)
        if path == INTROSPECTION:
            if not _is_client(authorization):
                return 401, {"error": "invalid_client"}
            return 200, self.given.get(form.get("token", ""), {"active": False})
        return 404, {}

    def _grant(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """RFC 6749 4.4 and 6; clients may give their secret either way (2.3.1)."""
        by_form = (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
        if not (by_form or _is_client(authorization)):
            return 401, {"error": "invalid_client"}
        if form.get("grant_type") not in {"refresh_token", "client_credentials"}:
            return 400, {"error": "unsupported_grant_type"}
        if form["grant_type"] == "refresh_token" and form.get("refresh_token") != REFRESH_TOKEN:
            return 400, {"error": "invalid_grant"}
        token = self.mint("alice@example.test")
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": 300}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], provider: OidcProvider, context: ssl.SSLContext) -> None:
        self.provider = provider
        super().__init__(address, _Handler)
        self.context = context

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the thread of the connection: a handshake that takes long holds up nobody else.
        with suppress(OSError), self.context.wrap_socket(request, server_side=True) as wrapped:
            wrapped.settimeout(30)
            super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are expected."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        provider = self.server.provider
        self.close_connection = True
        provider.requests.append(self.path)
        octets = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        form = {name: values[0] for name, values in parse_qs(octets.decode()).items()}
        status, answer = provider.page(self.path, form, self.headers.get("Authorization", ""))
        fault = provider.faults.get(self.path)
        _MISBEHAVIOUR.get(fault, _Handler.send)(self, status, json.dumps(answer).encode())

    def send(self, status: int, body: bytes, media_type: str = "application/json; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def hang(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:10])
        self.wfile.flush()
        self.server.provider.ended.wait(60)

    def be_slow(self, status: int, body: bytes) -> None:
        self.server.provider.ended.wait(SLOW_SECONDS)
        self.send(status, body)

    def never_end(self, status: int, _body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        while not self.server.provider.ended.is_set():
            self.wfile.write(b" " * 65536)

    def cut_off(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + 10))
        self.end_headers()
        self.wfile.write(body)

    def redirect(self, _status: int, _body: bytes) -> None:
        self.send_response(307)
        self.send_header("Location", f"{self.server.provider.issuer}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        """Nothing."""


_MISBEHAVIOUR: dict[Fault | None, Callable[[_Handler, int, bytes], None]] = {
    Fault.SLOW: _Handler.be_slow,
    Fault.HUNG: _Handler.hang,
    Fault.ERROR: lambda handler, _status, _body: handler.send(500, b"{}"),
    Fault.HUGE: _Handler.never_end,
    Fault.WRONG_TYPE: lambda handler, status, body: handler.send(status, body, "text/html"),
    Fault.NO_JSON: lambda handler, status, _body: handler.send(status, b"<html>Welcome</html>"),
    Fault.CUT_OFF: _Handler.cut_off,
    Fault.ELSEWHERE: _Handler.redirect,
}


def _is_client(authorization: str) -> bool:
    kind, _, pair = authorization.partition(" ")
    name, _, secret = base64.b64decode(pair).decode().partition(":")
    return kind == "Basic" and (unquote_plus(name), unquote_plus(secret)) == (CLIENT_ID, CLIENT_SECRET)


def _context(leaf: Issued, folder: Path) -> ssl.SSLContext:
    path = folder / "server.pem"
    key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(leaf.certificate.public_bytes(Encoding.PEM) + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
