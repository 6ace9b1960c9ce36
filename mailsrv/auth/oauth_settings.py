"""``[[oauth]]``: whose tokens are taken for a log-in."""

from __future__ import annotations

import enum
import importlib.util
from typing import Any

from attrs import Attribute, field, frozen, validators

from mailsrv.address import Address, AddressError

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


def _are_domains(_record: object, attribute: Attribute[Any], value: tuple[str, ...]) -> None:
    for name in value:
        try:
            Address("x", name)
        except AddressError as error:
            raise ValueError("expected names of domains", attribute) from error


def _has_words(_record: object, attribute: Attribute[Any], value: str) -> None:
    if not value.split():
        raise ValueError("expected at least one word", attribute)


@frozen
class OAuthSettings:
    """One ``[[oauth]]``: an issuer of access tokens for OAUTHBEARER and XOAUTH2 under TLS.

    They are checked by its public keys (JWTs), or, with a ``client_id``, by asking it (RFC 7662).
    """

    issuer: str = field(
        validator=_can_be_checked,
        metadata={"help": "The claim iss of its tokens, to the letter.", "example": "https://login.example.test"},
    )
    audience: tuple[str, ...] = field(
        validator=validators.and_(validators.min_len(1), validators.deep_iterable(validators.min_len(1))),
        metadata={"help": "One of these has to be in the claim aud.", "example": ["mail"]},
    )
    scope: str = field(
        validator=_has_words,
        metadata={"help": "Words that all have to be in the claim scope (or scp).", "example": "mail"},
    )
    jwks_uri: str = field(
        default="",
        validator=_is_https,
        metadata={
            "help": "Where its public keys are (RFC 7517). Without it, jwks_file and client_id: where its discovery "
            "document says.",
            "example": "https://login.example.test/jwks",
        },
    )
    jwks_file: str = field(default="", metadata={"help": "A file with its public keys, instead of jwks_uri."})
    ca_file: str = field(
        default="",
        metadata={"help": "PEM file of the authorities its certificate comes from; empty: as in tls_client.ca_file."},
    )
    client_id: str = field(
        default="",
        metadata={
            "help": "Who we are for the issuer. With it no signature is looked at: the issuer is asked about each "
            "token (RFC 7662), which need not be a JWT."
        },
    )
    client_secret_file: str = field(
        default="", metadata={"help": "A file with our secret there, and nothing else (client_secret_basic)."}
    )
    introspection_uri: str = field(
        default="",
        validator=_is_https,
        metadata={"help": "Where it is asked; without it where its discovery document says."},
    )
    introspection_untold: tuple[UntoldClaim, ...] = field(
        default=(),
        metadata={
            "help": "What its answers need not tell: iss, aud, exp, scope. What they tell has to be right in any case, "
            "and without exp sessions last."
        },
    )
    introspection_cache_seconds: float = field(
        default=60.0,
        validator=validators.and_(validators.ge(0), validators.le(3600)),
        metadata={
            "help": "How long its answer is remembered, though not past the token's end: so late a token that was "
            "taken back may still let somebody in; 0: not.",
            "unit": "s",
        },
    )
    introspection_cache_entries: int = field(
        default=10_000,
        validator=validators.ge(1),
        metadata={"help": "How many answers are remembered, in each worker."},
    )
    introspection_requests: int = field(
        default=16, validator=validators.ge(1), metadata={"help": "Requests to it at a time, in each worker."}
    )
    introspection_queue: int = field(
        default=256,
        validator=validators.ge(0),
        metadata={"help": "Log-ins that may wait for one; past it the answer is a temporary failure."},
    )
    introspection_failures: int = field(
        default=3,
        validator=validators.ge(1),
        metadata={"help": "After so many failed requests in a row it is left alone for a while."},
    )
    introspection_pause_seconds: float = field(
        default=15.0,
        validator=validators.gt(0),
        metadata={"help": "For so long; log-ins are temporary failures at once. Then one request tries.", "unit": "s"},
    )
    algorithms: tuple[str, ...] = field(
        default=("RS256", "PS256", "ES256"),
        validator=_are_known,
        metadata={"help": "How its tokens may be signed."},
    )
    account_claim: str = field(
        default="email",
        validator=validators.min_len(1),
        metadata={
            "help": "The claim that names the account, an address or a user name. email counts unless the token says "
            "that it is not verified."
        },
    )
    domains: tuple[str, ...] = field(
        default=(),
        validator=_are_domains,
        metadata={
            "help": "It vouches for accounts that it names with one of these domains, and no others; empty: for all. "
            "Needed where several organisations share this server.",
            "example": ["example.test"],
        },
    )
    openid_configuration: str = field(
        default="",
        validator=_is_https,
        metadata={
            "help": "Its discovery document, of which clients are told when their token is refused (RFC 7628). Where "
            "it is needed and not given: /.well-known/openid-configuration below the issuer."
        },
    )
    end_sessions: bool = field(
        default=True,
        metadata={
            "help": "Whether a session ends when the token that began it does; its client may come back with a new one."
        },
    )
    clock_skew_seconds: float = field(
        default=60.0,
        validator=validators.and_(validators.ge(0), validators.le(600)),
        metadata={"help": "By how much its clock and ours may differ.", "unit": "s"},
    )
    keys_seconds: float = field(
        default=3600.0,
        validator=validators.gt(0),
        metadata={
            "help": "How long its keys and its discovery document are used before they are fetched again.",
            "unit": "s",
        },
    )
    keys_stale_seconds: float = field(
        default=86_400.0,
        validator=validators.gt(0),
        metadata={"help": "How long they may be used where they cannot be fetched.", "unit": "s"},
    )
    fetch_seconds: float = field(
        default=10.0, validator=validators.gt(0), metadata={"help": "How long it may take to answer.", "unit": "s"}
    )

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
