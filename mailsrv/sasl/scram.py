"""The server's side of SCRAM (RFC 5802, RFC 7677), with channel binding (``-PLUS``): messages in, messages out.

::

    scram = ScramServer("SCRAM-SHA-256", is_plus=False, offers_plus=True)
    first = scram.receive_first(octets)            # who it is; look the keys up
    octets = scram.challenge(keys)
    if scram.receive_final(octets, bindings): …    # the proof is right
    octets = scram.signature                       # the server's own proof, last word

Malformed messages, and channel binding that does not fit, raise SaslError. A wrong proof is an answer, not an error.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable

from attrs import frozen

from mailsrv.sasl.errors import SaslError
from mailsrv.sasl.mechanisms import FIELD_LIMIT_OCTETS
from mailsrv.sasl.scram_keys import DIGESTS, ScramKeys

PLUS = "-PLUS"
ChannelBindings = Callable[[str], bytes | None]
"""The data of a channel binding type (RFC 5929, RFC 9266) of this connection; None where there is none."""

_NONCE_OCTETS = 18
# RFC 5802 7:  gs2-header = gs2-cbind-flag "," [ authzid ] ","
_GS2 = re.compile(r"(?P<flag>[ny]|p=(?P<type>[A-Za-z0-9.-]{1,64})),(?:a=(?P<authzid>[^,\x00]+))?,", re.ASCII)
# client-first-message-bare = [reserved-mext ","] username "," nonce ["," extensions]; reserved-mext is refused.
_BARE = re.compile(r"n=(?P<name>[^,\x00]+),r=(?P<nonce>[!-+\--~]{1,256})(?:,[A-Za-z]=[^,\x00]+)*")
# client-final-message-without-proof = channel-binding "," nonce ["," extensions]
_FINAL = re.compile(
    r"(?P<unproven>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>[!-+\--~]{1,512})(?:,[A-Za-oq-z]=[^,\x00]+)*)"
    r",p=(?P<proof>[A-Za-z0-9+/=]+)"
)


@frozen
class ScramFirst:
    """What the client begins with."""

    authcid: str
    authzid: str = ""


class ScramServer:
    """One exchange; each method once, in the order of the head of this file."""

    def __init__(self, mechanism: str, *, is_plus: bool, offers_plus: bool, nonce: str = "") -> None:
        """``mechanism`` without ``-PLUS``. ``offers_plus``: it was offered with channel binding in this session."""
        self.mechanism = mechanism
        self._digest = DIGESTS[mechanism]
        self._is_plus = is_plus
        self._offers_plus = offers_plus
        self._own_nonce = nonce or base64.b64encode(secrets.token_bytes(_NONCE_OCTETS)).decode("ascii")
        self._nonce = ""
        self._gs2_header = b""
        self._binding_type = ""
        self._bare = ""
        self._challenge = ""
        self._keys: ScramKeys | None = None
        self.signature = b""
        """``server-final-message``, where the proof was right."""

    def receive_first(self, message: bytes) -> ScramFirst:
        """``client-first-message`` (RFC 5802 5.1, 6)."""
        text = _decode(message)
        header = _GS2.match(text)
        if header is None:
            raise SaslError
        bare = _BARE.fullmatch(text, header.end())
        if bare is None:
            raise SaslError
        flag = header["flag"]
        if self._is_plus is not (header["type"] is not None):
            raise SaslError(cause="channel binding was asked for by flag or by mechanism alone")
        if flag == "y" and self._offers_plus:
            # RFC 5802 6: somebody took the -PLUS out of our list.
            raise SaslError("Channel binding is supported here", cause="a downgrade: the client did not see -PLUS")
        self._gs2_header = header[0].encode("utf-8")
        self._binding_type = header["type"] or ""
        self._bare = bare[0]
        self._nonce = bare["nonce"] + self._own_nonce
        return ScramFirst(_decode_name(bare["name"]), _decode_name(header["authzid"] or ""))

    def challenge(self, keys: ScramKeys) -> bytes:
        """``server-first-message``, for keys of this mechanism."""
        self._keys = keys
        salt = base64.b64encode(keys.salt).decode("ascii")
        self._challenge = f"r={self._nonce},s={salt},i={keys.iterations}"
        return self._challenge.encode("ascii")

    def receive_final(self, message: bytes, bindings: ChannelBindings) -> bool:
        """``client-final-message``: whether it proves the password."""
        keys = self._keys
        final = _FINAL.fullmatch(_decode(message))
        if keys is None or final is None:
            raise SaslError
        binding = b""
        if self._is_plus:
            known = bindings(self._binding_type)
            if known is None:
                raise SaslError("Unsupported type of channel binding")
            binding = known
        # Another channel is no malformed message: it is what somebody in the middle would bring.
        is_bound = hmac.compare_digest(_base64(final["binding"]), self._gs2_header + binding)
        is_fresh = hmac.compare_digest(final["nonce"].encode("ascii"), self._nonce.encode("ascii"))
        proof = _base64(final["proof"])
        if len(proof) != len(keys.stored_key):
            raise SaslError
        auth_message = f"{self._bare},{self._challenge},{final['unproven']}".encode()
        signature = hmac.digest(keys.stored_key, auth_message, self._digest)
        client_key = bytes(left ^ right for left, right in zip(proof, signature, strict=True))
        is_proven = hmac.compare_digest(hashlib.new(self._digest, client_key).digest(), keys.stored_key)
        self.signature = b"v=" + base64.b64encode(hmac.digest(keys.server_key, auth_message, self._digest))
        return is_bound and is_fresh and is_proven


def _decode(message: bytes) -> str:
    if len(message) > 4 * FIELD_LIMIT_OCTETS:
        raise SaslError
    try:
        return message.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslError from None


def _decode_name(name: str) -> str:
    """``saslname``: ``=2C`` is a comma, ``=3D`` an equals sign, and no other ``=`` may stand (RFC 5802 5.1)."""
    if "=" in name.replace("=2C", "").replace("=3D", "") or len(name.encode("utf-8")) > FIELD_LIMIT_OCTETS:
        raise SaslError
    name = name.replace("=2C", ",").replace("=3D", "=")
    if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in name):
        raise SaslError
    return name


def _base64(text: str) -> bytes:
    try:
        octets = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SaslError from None
    if base64.b64encode(octets).decode("ascii") != text:
        raise SaslError
    return octets
