"""``[[oauth]]``: whose tokens are taken for a log-in."""

from __future__ import annotations

import importlib.util
from typing import Any

from attrs import Attribute, field, frozen, validators

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
"""Those whose keys can be public. What signs with a shared secret, or not at all, is none of them."""


def _can_be_checked(_record: object, attribute: Attribute[Any], value: str) -> None:
    if not value:
        raise ValueError("expected the issuer", attribute)
    if importlib.util.find_spec("joserfc") is None:
        raise ValueError("tokens need the extra of this name: pip install mailsrv[oauth]", attribute)


def _are_known(_record: object, attribute: Attribute[Any], value: tuple[str, ...]) -> None:
    unknown = [name for name in value if name not in ALGORITHMS]
    if unknown or not value:
        raise ValueError(f"expected some of {', '.join(ALGORITHMS)}", attribute)


def _is_https(_record: object, attribute: Attribute[Any], value: str) -> None:
    if value and not value.startswith("https://"):
        raise ValueError("expected a URL with https", attribute)


@frozen
class OAuthSettings:
    """One ``[[oauth]]``: an issuer of access tokens that are JWTs, for OAUTHBEARER and XOAUTH2 under TLS."""

    issuer: str = field(
        validator=_can_be_checked,
        metadata={"help": "The claim iss of its tokens, to the letter.", "example": "https://login.example.test"},
    )
    audience: tuple[str, ...] = field(
        validator=validators.min_len(1),
        metadata={"help": "One of these has to be in the claim aud.", "example": ["mail"]},
    )
    scope: str = field(
        validator=validators.min_len(1),
        metadata={"help": "Words that all have to be in the claim scope (or scp).", "example": "mail"},
    )
    jwks_uri: str = field(
        default="",
        validator=_is_https,
        metadata={"help": "Where its public keys are (RFC 7517).", "example": "https://login.example.test/jwks"},
    )
    jwks_file: str = field(default="", metadata={"help": "A file with its public keys, instead of jwks_uri."})
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
    openid_configuration: str = field(
        default="",
        validator=_is_https,
        metadata={"help": "The discovery document clients are told of when their token is refused (RFC 7628)."},
    )
    clock_skew_seconds: float = field(
        default=60.0,
        validator=validators.and_(validators.ge(0), validators.le(600)),
        metadata={"help": "By how much its clock and ours may differ.", "unit": "s"},
    )
    keys_seconds: float = field(
        default=3600.0,
        validator=validators.gt(0),
        metadata={"help": "How long its keys are used before they are fetched again.", "unit": "s"},
    )
    keys_stale_seconds: float = field(
        default=86_400.0,
        validator=validators.gt(0),
        metadata={"help": "How long they may be used where they cannot be fetched.", "unit": "s"},
    )
    fetch_seconds: float = field(
        default=10.0, validator=validators.gt(0), metadata={"help": "How long fetching may take.", "unit": "s"}
    )

    def __attrs_post_init__(self) -> None:
        if bool(self.jwks_uri) is bool(self.jwks_file):
            raise ValueError("oauth: one of jwks_uri and jwks_file is needed")
