"""Does this password fit that stored hash?

Stored forms: ``{SCHEME}value``, ``{SCHEME.b64}value``, ``{SCHEME.hex}value`` (Dovecot, RFC 2307),
or a bare crypt(3) hash (``$6$…``, ``$2y$…``, ``$argon2id$…``). Everything is compared in constant
time (R-AUTH-4). Bare values without ``$`` (traditional DES crypt: eight characters count) are not
supported, nor is a scheme that takes part of a password for the whole.

Passwords are octets here, as UTF-8. An empty one, one with a NUL and one of more than
MAX_PASSWORD_OCTETS fits nothing (R-AUTH-1, R-INJ-3).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping

from argon2.exceptions import Argon2Error, InvalidHashError
from argon2.low_level import Type, verify_secret

from mailsrv.directory.passwords.libcrypt import load_crypt
from mailsrv.directory.passwords.sha_crypt import sha_crypt
from mailsrv.sasl.saslprep import prepare_password
from mailsrv.sasl.scram_keys import ScramKeys, derive_keys

MAX_PASSWORD_OCTETS = 4096
BCRYPT_OCTETS = 72
"""bcrypt looks at no more; cut off here, since libraries differ between cutting and raising."""

Verifier = Callable[[str, bytes], bool]

_FORM = re.compile(r"\{([A-Za-z0-9][A-Za-z0-9.-]*)\}(.*)", re.DOTALL | re.ASCII)
_PBKDF2 = re.compile(r"\$1\$([^$]*)\$(\d{1,9})\$([0-9a-fA-F]{40})", re.ASCII)
_LDAP_PBKDF2 = re.compile(r"(\d{1,9})\$([A-Za-z0-9./]+)\$([A-Za-z0-9./]+)", re.ASCII)
_MOST_ROUNDS = 10_000_000
_system_crypt = load_crypt()


def has_system_crypt() -> bool:
    """Whether the system's crypt(3) is used; otherwise only ``$5$``, ``$6$`` (and bcrypt with its extra) are known."""
    return _system_crypt is not None


def verify_password(secret: str, password: str) -> bool:
    """Whether it fits. False for anything that cannot be understood. Takes up to a second: call it in a thread."""
    octets = password_octets(password)
    if octets is None:
        return False
    verifier, value = _choose(secret)
    if verifier is None:
        return False
    try:
        return verifier(value, octets)
    except (ValueError, binascii.Error):
        return False


def is_supported(secret: str) -> bool:
    """Whether the stored form is one whose passwords can be checked here."""
    verifier, value = _choose(secret)
    if verifier is None or not value:
        return False
    if verifier is _verify_crypt:
        return _knows_crypt(value)
    if verifier is _verify_bcrypt:
        return _bcrypt_module() is not None or _system_crypt is not None
    return True


def is_locked(secret: str) -> bool:
    """Whether it says that there is no password (shadow(5)): ``x``, ``*``, a hash behind ``!``."""
    return secret in {"", "x"} or secret[0] in "*!"


def password_octets(password: str) -> bytes | None:
    """The password as it is hashed, or None where it can be nobody's."""
    try:
        octets = password.encode("utf-8")
    except UnicodeEncodeError:
        return None
    if not octets or b"\0" in octets or len(octets) > MAX_PASSWORD_OCTETS:
        return None
    return octets


def cost_class(secret: str) -> str:
    """Hashes of one class take equally long: the scheme with its parameters."""
    match = _FORM.fullmatch(secret)
    scheme, value = (match[1].upper(), match[2]) if match else ("", secret)
    if not value.startswith("$"):
        return scheme
    # $argon2id$v=19$m=…,t=…,p=…$, $2y$10$, $6$rounds=…$: everything but salt and digest.
    kind, *parts = value.split("$")[1:]
    if _is_bcrypt(value):
        return "$".join((kind, *parts[:1]))
    return "$".join((kind, *(part for part in parts if "=" in part)))


def _choose(secret: str) -> tuple[Verifier | None, str]:
    match = _FORM.fullmatch(secret)
    if match is None:
        return (_verify_crypt, secret) if secret.startswith("$") else (None, "")
    name, value = match[1].upper(), match[2]
    scheme, _, encoding = name.partition(".")
    if encoding in {"B64", "BASE64"} and scheme in _DIGESTS:
        return _DIGESTS[scheme].with_encoding(_from_base64), value
    if encoding == "HEX" and scheme in _DIGESTS:
        return _DIGESTS[scheme].with_encoding(bytes.fromhex), value
    if encoding:
        # Other values are text: the suffix says how the text is written.
        try:
            octets = bytes.fromhex(value) if encoding == "HEX" else _from_base64(value)
            value = octets.decode("utf-8")
        except ValueError:
            return None, ""
    if scheme == "MD5":
        # Dovecot's name for MD5-CRYPT, OpenLDAP's for a plain digest.
        scheme = "MD5-CRYPT" if value.startswith("$1$") else "LDAP-MD5"
    return _SCHEMES.get(scheme), value


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _from_base64_or_hex(text: str, digest_size: int) -> bytes:
    """Dovecot takes either for unsalted digests; their lengths differ."""
    return bytes.fromhex(text) if len(text) == 2 * digest_size else _from_base64(text)


class _Digest:
    """One round of a digest, perhaps salted: the value is digest and salt, in base64."""

    def __init__(
        self,
        algorithm: str,
        *,
        is_salted: bool = False,
        decode: Callable[[str], bytes] | None = None,
    ) -> None:
        self._algorithm = algorithm
        self._is_salted = is_salted
        self._size = hashlib.new(algorithm, usedforsecurity=False).digest_size
        self._decode = decode

    def with_encoding(self, decode: Callable[[str], bytes]) -> _Digest:
        return _Digest(self._algorithm, is_salted=self._is_salted, decode=decode)

    def __call__(self, value: str, password: bytes) -> bool:
        if self._decode is not None:
            stored = self._decode(value)
        elif self._is_salted:
            stored = _from_base64(value)
        else:
            stored = _from_base64_or_hex(value, self._size)
        expected, salt = stored[: self._size], stored[self._size :]
        if len(expected) != self._size or bool(salt) != self._is_salted:
            return False
        found = hashlib.new(self._algorithm, password + salt, usedforsecurity=False).digest()
        return hmac.compare_digest(expected, found)


def _verify_plain(value: str, password: bytes) -> bool:
    return hmac.compare_digest(value.encode(), password)


def _verify_argon2(value: str, password: bytes) -> bool:
    kind = {"argon2id": Type.ID, "argon2i": Type.I}.get(value.split("$", 2)[1] if value.startswith("$") else "")
    if kind is None:
        return False
    try:
        return verify_secret(value.encode("ascii"), password, kind)
    except (Argon2Error, InvalidHashError):
        return False


def _bcrypt_module() -> Callable[[bytes, bytes], bytes] | None:
    try:
        import bcrypt
    except ImportError:
        return None
    hash_password: Callable[[bytes, bytes], bytes] = bcrypt.hashpw
    return hash_password


def _verify_bcrypt(value: str, password: bytes) -> bool:
    password = password[:BCRYPT_OCTETS]
    hash_password = _bcrypt_module()
    if hash_password is None:
        return _verify_by_system(value, password)
    return hmac.compare_digest(hash_password(password, value.encode("ascii")), value.encode("ascii"))


def _verify_by_system(value: str, password: bytes) -> bool:
    found = _system_crypt(password, value) if _system_crypt is not None else None
    return found is not None and hmac.compare_digest(found.encode(), value.encode())


def _is_bcrypt(value: str) -> bool:
    return value.startswith(("$2a$", "$2b$", "$2y$"))


def _knows_crypt(value: str) -> bool:
    if value.startswith(("$5$", "$6$", "$argon2id$", "$argon2i$")):
        return True
    if _is_bcrypt(value):
        return _bcrypt_module() is not None or _system_crypt is not None
    return value.startswith("$") and _system_crypt is not None and _system_crypt(b"-", value) is not None


def _verify_crypt(value: str, password: bytes) -> bool:
    if value.startswith("$argon2"):
        return _verify_argon2(value, password)
    if _is_bcrypt(value):
        return _verify_bcrypt(value, password)
    if not value.startswith("$"):
        return False
    # The system refuses passwords over its own bound (512 octets in libxcrypt); ours does not.
    if value.startswith(("$5$", "$6$")) and (_system_crypt is None or len(password) > 511):
        return hmac.compare_digest(sha_crypt(password, value).encode(), value.encode())
    return _verify_by_system(value, password)


def _verify_pbkdf2(value: str, password: bytes) -> bool:
    """Dovecot's: ``$1$salt$rounds$hex``, PBKDF2-HMAC-SHA-1 over the salt as it is written."""
    match = _PBKDF2.fullmatch(value)
    if match is None or int(match[2]) < 1:
        return False
    found = hashlib.pbkdf2_hmac("sha1", password, match[1].encode(), int(match[2]))
    return hmac.compare_digest(found, bytes.fromhex(match[3]))


def _verify_ldap_pbkdf2(algorithm: str) -> Verifier:
    """OpenLDAP's: ``rounds$salt$digest``, both in base64 with dots for plus signs and no padding."""

    def verify(value: str, password: bytes) -> bool:
        match = _LDAP_PBKDF2.fullmatch(value)
        if match is None or not 0 < int(match[1]) <= _MOST_ROUNDS:
            return False
        salt, expected = (_from_base64(text.replace(".", "+") + "=" * (-len(text) % 4)) for text in match.groups()[1:])
        found = hashlib.pbkdf2_hmac(algorithm, password, salt, int(match[1]))
        return hmac.compare_digest(found, expected)

    return verify


def _verify_scram(mechanism: str) -> Verifier:
    """What SCRAM keeps of a password suffices to check against it."""

    def verify(value: str, password: bytes) -> bool:
        keys = ScramKeys.parse(mechanism, value)
        text = password.decode("utf-8")
        # Prepared as SCRAM wants it; and as it is, for keys that were made without that.
        forms = dict.fromkeys((prepare_password(text), password))
        return any(
            hmac.compare_digest(derive_keys(mechanism, form, keys.iterations, keys.salt)[0], keys.stored_key)
            for form in forms
        )

    return verify


_DIGESTS: Mapping[str, _Digest] = {
    "SHA": _Digest("sha1"),
    "SHA1": _Digest("sha1"),
    "SHA256": _Digest("sha256"),
    "SHA512": _Digest("sha512"),
    "SSHA": _Digest("sha1", is_salted=True),
    "SSHA256": _Digest("sha256", is_salted=True),
    "SSHA512": _Digest("sha512", is_salted=True),
    "PLAIN-MD5": _Digest("md5"),
    "LDAP-MD5": _Digest("md5"),
    "SMD5": _Digest("md5", is_salted=True),
}

_SCHEMES: Mapping[str, Verifier] = {
    **_DIGESTS,
    "ARGON2ID": _verify_argon2,
    "ARGON2I": _verify_argon2,
    "ARGON2": _verify_argon2,
    "BLF-CRYPT": _verify_bcrypt,
    "CRYPT": _verify_crypt,
    "SHA256-CRYPT": _verify_crypt,
    "SHA512-CRYPT": _verify_crypt,
    "MD5-CRYPT": _verify_crypt,
    "PBKDF2": _verify_pbkdf2,
    **{f"PBKDF2-{name}": _verify_ldap_pbkdf2(name.lower()) for name in ("SHA1", "SHA256", "SHA512")},
    "SCRAM-SHA-1": _verify_scram("SCRAM-SHA-1"),
    "SCRAM-SHA-256": _verify_scram("SCRAM-SHA-256"),
    "PLAIN": _verify_plain,
    "CLEAR": _verify_plain,
    "CLEARTEXT": _verify_plain,
}
