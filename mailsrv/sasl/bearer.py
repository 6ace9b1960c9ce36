"""OAUTHBEARER (RFC 7628) and XOAUTH2 (Google's, what many clients know): a token in place of a password."""

from __future__ import annotations

import json
import re

from attrs import field, frozen

from mailsrv.sasl.errors import SaslError
from mailsrv.sasl.mechanisms import FIELD_LIMIT_OCTETS

BEARER_MECHANISMS = ("OAUTHBEARER", "XOAUTH2")

# RFC 7628 3.1:  gs2-header kvsep *kvpair kvsep; no channel binding is defined for it.
# RFC 5801 4:  saslname = 1*(UTF8-char-safe / "=2C" / "=3D"); some clients have an empty one.
_GS2 = re.compile(r"[ny],(?:a=(?P<authzid>(?:[^,=]|=2C|=3D)*))?,")
_PAIR = re.compile(r"(?P<key>[A-Za-z]+)=(?P<value>[\x20-\x7e\t\r\n\x80-\U0010ffff]*)")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
# RFC 6750 2.1:  b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
_BEARER = re.compile(r"bearer +(?P<token>[A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)


@frozen
class TokenGiven:
    """A token, and whose account the client says it is for ("" for nobody's)."""

    name: str
    token: str = field(repr=False)


def parse_bearer(mechanism: str, message: bytes) -> TokenGiven:
    """The client's only message of content; raises SaslError."""
    try:
        header, *parts = message.decode("utf-8").split("\x01")
    except UnicodeDecodeError:
        raise SaslError from None
    # Either form ends with two separators.
    if len(parts) < 3 - (mechanism == "XOAUTH2") or parts[-1] or parts[-2]:
        raise SaslError
    pairs: dict[str, str] = {}
    for part in parts[:-2]:
        pair = _PAIR.fullmatch(part)
        if pair is None or pair["key"] in pairs:
            raise SaslError
        pairs[pair["key"]] = pair["value"]
    if mechanism == "XOAUTH2":
        key, equals, name = header.partition("=")
        if key != "user" or not equals:
            raise SaslError
    else:
        gs2 = _GS2.fullmatch(header)
        if gs2 is None:
            raise SaslError
        name = (gs2["authzid"] or "").replace("=2C", ",").replace("=3D", "=")
    bearer = _BEARER.fullmatch(pairs.get("auth", "").strip())
    if bearer is None or len(name.encode("utf-8")) > FIELD_LIMIT_OCTETS or _CONTROLS.search(name):
        raise SaslError
    return TokenGiven(name, bearer["token"])


def refusal(mechanism: str, *, scope: str, openid_configuration: str = "") -> bytes:
    """What a client is told of a token that is not good (RFC 7628 3.2.2); it answers once more, and then has failed."""
    if mechanism == "XOAUTH2":
        return json.dumps({"status": "401", "schemes": "bearer", "scope": scope}).encode("ascii")
    told = {"status": "invalid_token", "scope": scope, "openid-configuration": openid_configuration}
    return json.dumps({key: value for key, value in told.items() if value}).encode("ascii")
