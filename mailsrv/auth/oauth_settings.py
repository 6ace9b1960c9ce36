"""``[[oauth]]``: whose tokens are taken for a log-in."""

from __future__ import annotations

import enum
import importlib.util
from typing import Any

from attrs import Attribute, frozen, validators

from mailsrv.address.setting_check import are_domains
from mailsrv.setting import required, setting

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
"""Those whose keys can be public. What signs with a shared secret, or not at all, is none of them."""


class UntoldClaim(enum.Enum):
    """What an issuer that is asked about a token need not tell of it (RFC 7662 2.2)."""

    ISSUER = "iss"
    AUDIENCE = "aud"
    EXPIRY = "exp"
    SCOPE = "scope"


def _can_be_checked(_record: object, attribute: Attribute[Any], value: str) -> None:
    if not value:
        raise ValueError("expected the issuer", attribute)
    if importlib.util.find_spec("joserfc") is None:
        raise ValueError("tokens need the extra of this name: pip install mailsrv[oauth]", attribute)


def _are_known(_record: object, attribute: Attribute[Any], value: tuple[str, ...]) -> None:
    unknown = [name for name in value if name not in ALGORITHMS]
    if unknown or not value:
        raise ValueError(f"expected some of {', '.join(ALGORITHMS)}", attribute)


def is_https(uri: str) -> bool:
    """Whether it can be asked: https, and letters that can stand in a request."""
    return uri.startswith("https://") and uri.isascii() and uri.isprintable() and " " not in uri


def _is_https(_record: object, attribute: Attribute[Any], value: str) -> None:
    if value and not is_https(value):
        raise ValueError("expected a URL with https", attribute)


def _has_words(_record: object, attribute: Attribute[Any], value: str) -> None:
    if not value.split():
        raise ValueError("expected at least one word", attribute)


@frozen
class OAuthSettings:
    """One ``[[oauth]]``: an issuer of access tokens for OAUTHBEARER and XOAUTH2 under TLS.

    They are checked by its public keys (JWTs), or, with a ``client_id``, by asking it (RFC 7662).
    """

    issuer: str = required(
        "The claim iss of its tokens, to the letter.", check=_can_be_checked, example="https://login.example.test"
    )
    audience: tuple[str, ...] = required(
        "One of these has to be in the claim aud.",
        check=validators.and_(validators.min_len(1), validators.deep_iterable(validators.min_len(1))),
        example=["mail"],
    )
    scope: str = required("Words that all have to be in the claim scope (or scp).", check=_has_words, example="mail")
    jwks_uri: str = setting(
        "",
        "Where its public keys are (RFC 7517). Without it, jwks_file and client_id: where its discovery document says.",
        check=_is_https,
        example="https://login.example.test/jwks",
    )
    jwks_file: str = setting("", "A file with its public keys, instead of jwks_uri.")
    ca_file: str = setting(
        "", "PEM file of the authorities its certificate comes from; empty: as in tls_client.ca_file."
    )
    client_id: str = setting(
        "",
        "Who we are for the issuer. With it no signature is looked at: the issuer is asked about each "
        "token (RFC 7662), which need not be a JWT.",
    )
    client_secret_file: str = setting("", "A file with our secret there, and nothing else (client_secret_basic).")
    introspection_uri: str = setting(
        "", "Where it is asked; without it where its discovery document says.", check=_is_https
    )
    introspection_untold: tuple[UntoldClaim, ...] = setting(
        (),
        "What its answers need not tell: iss, aud, exp, scope. What they tell has to be right in any case, "
        "and without exp sessions last.",
    )
    introspection_cache_seconds: float = setting(
        60.0,
        "How long its answer is remembered, though not past the token's end: so late a token that was "
        "taken back may still let somebody in; 0: not.",
        at_least=0,
        at_most=3600,
        unit="s",
    )
    introspection_cache_entries: int = setting(10_000, "How many answers are remembered, in each worker.", at_least=1)
    introspection_requests: int = setting(16, "Requests to it at a time, in each worker.", at_least=1)
    introspection_queue: int = setting(
        256, "Log-ins that may wait for one; past it the answer is a temporary failure.", at_least=0
    )
    introspection_failures: int = setting(
        3, "After so many failed requests in a row it is left alone for a while.", at_least=1
    )
    introspection_pause_seconds: float = setting(
        15.0, "For so long; log-ins are temporary failures at once. Then one request tries.", above=0, unit="s"
    )
    algorithms: tuple[str, ...] = setting(
        ("RS256", "PS256", "ES256"), "How its tokens may be signed.", check=_are_known
    )
    account_claim: str = setting(
        "email",
        "The claim that names the account, an address or a user name. email counts unless the token says "
        "that it is not verified.",
        check=validators.min_len(1),
    )
    domains: tuple[str, ...] = setting(
        (),
        "It vouches for accounts that it names with one of these domains, and no others; empty: for all. "
        "Needed where several organisations share this server.",
        check=are_domains,
        example=["example.test"],
    )
    openid_configuration: str = setting(
        "",
        "Its discovery document, of which clients are told when their token is refused (RFC 7628). Where "
        "it is needed and not given: /.well-known/openid-configuration below the issuer.",
        check=_is_https,
    )
    end_sessions: bool = setting(
        True, "Whether a session ends when the token that began it does; its client may come back with a new one."
    )
    clock_skew_seconds: float = setting(
        60.0, "By how much its clock and ours may differ.", at_least=0, at_most=600, unit="s"
    )
    keys_seconds: float = setting(
        3600.0,
        "How long its keys and its discovery document are used before they are fetched again.",
        above=0,
        unit="s",
    )
    keys_stale_seconds: float = setting(
        86_400.0, "How long they may be used where they cannot be fetched.", above=0, unit="s"
    )
    fetch_seconds: float = setting(10.0, "How long it may take to answer.", above=0, unit="s")

    def __attrs_post_init__(self) -> None:
        if bool(self.client_id) is not bool(self.client_secret_file):
            raise ValueError("oauth: client_id and client_secret_file go together")
        if self.introspection_uri and not self.client_id:
            raise ValueError("oauth: introspection_uri needs client_id and client_secret_file")
        if len([way for way in (self.jwks_uri, self.jwks_file, self.client_id) if way]) > 1:
            raise ValueError("oauth: only one of jwks_uri, jwks_file and client_id is possible")
        if self.needs_discovery and not is_https(self.discovery_uri):
            raise ValueError("oauth: an issuer without https needs openid_configuration, jwks_uri or jwks_file")

    @property
    def needs_discovery(self) -> bool:
        """Whether the issuer has to say itself where something is."""
        return not (self.jwks_uri or self.jwks_file or self.introspection_uri)

    @property
    def discovery_uri(self) -> str:
        """OpenID Connect Discovery 1.0, 4: below the issuer, whose own final slash goes."""
        return self.openid_configuration or f"{self.issuer.removesuffix('/')}/.well-known/openid-configuration"

    @property
    def told_configuration(self) -> str:
        """What a refused client is told; "" where nobody has said that there is such a document."""
        return self.discovery_uri if self.needs_discovery else self.openid_configuration
