"""SHA-256 and SHA-512 crypt (``$5$``, ``$6$``), after the public specification "Unix crypt using SHA-256 and SHA-512".

Used where the system's libcrypt cannot be (``libcrypt.py``). Step numbers are those of the specification.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

_SETTING = re.compile(
    r"\$(?P<kind>[56])\$(?:rounds=(?P<rounds>\d{1,10})\$)?(?P<salt>[^$:\n]{0,16})[^$:\n]*(?:\$.*)?", re.DOTALL
)
_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
DEFAULT_ROUNDS, MIN_ROUNDS, MAX_ROUNDS = 5000, 1000, 999_999_999

# The order in which the digest's octets are written, three at a time (step 22).
_ORDER_256 = (
    (0, 10, 20), (21, 1, 11), (12, 22, 2), (3, 13, 23), (24, 4, 14),
    (15, 25, 5), (6, 16, 26), (27, 7, 17), (18, 28, 8), (9, 19, 29),
)  # fmt: skip
_ORDER_512 = (
    (0, 21, 42), (22, 43, 1), (44, 2, 23), (3, 24, 45), (25, 46, 4), (47, 5, 26), (6, 27, 48),
    (28, 49, 7), (50, 8, 29), (9, 30, 51), (31, 52, 10), (53, 11, 32), (12, 33, 54), (34, 55, 13),
    (56, 14, 35), (15, 36, 57), (37, 58, 16), (59, 17, 38), (18, 39, 60), (40, 61, 19), (62, 20, 41),
)  # fmt: skip


def sha_crypt(password: bytes, setting: str) -> str:
    """The hash of a password under ``$6$salt``, ``$5$rounds=…$salt$…`` or a complete hash. Raises ValueError."""
    match = _SETTING.fullmatch(setting)
    if match is None:
        raise ValueError("no SHA-crypt setting")
    is_512 = match["kind"] == "6"
    rounds = DEFAULT_ROUNDS
    prefix = f"${match['kind']}$"
    if match["rounds"] is not None:
        rounds = min(max(int(match["rounds"]), MIN_ROUNDS), MAX_ROUNDS)
        prefix += f"rounds={rounds}$"
    salt = match["salt"]
    digest = _digest(password, salt.encode(), rounds, hashlib.sha512 if is_512 else hashlib.sha256)
    return f"{prefix}{salt}${_encode_512(digest) if is_512 else _encode_256(digest)}"


def _digest(password: bytes, salt: bytes, rounds: int, new: Callable[[bytes], hashlib._Hash]) -> bytes:
    size = len(password)
    b = new(password + salt + password).digest()  # steps 4-8
    a = new(password + salt + _cycle(b, size))  # steps 1-3, 9-10
    bits = size
    while bits:  # step 11
        a.update(b if bits & 1 else password)
        bits >>= 1
    final = a.digest()  # step 12
    p = _cycle(new(password * size).digest(), size)  # steps 13-16
    s = _cycle(new(salt * (16 + final[0])).digest(), len(salt))  # steps 17-20
    for number in range(rounds):  # step 21
        middle = (s if number % 3 else b"") + (p if number % 7 else b"")
        final = new(p + middle + final if number & 1 else final + middle + p).digest()
    return final


def _cycle(digest: bytes, size: int) -> bytes:
    """``size`` octets of the digest repeated."""
    return (digest * (size // len(digest) + 1))[:size]


def _base64(value: int, characters: int) -> str:
    """The least significant six bits first."""
    return "".join(_ALPHABET[value >> (6 * position) & 63] for position in range(characters))


def _encode(digest: bytes, order: tuple[tuple[int, int, int], ...]) -> str:
    return "".join(_base64(digest[x] << 16 | digest[y] << 8 | digest[z], 4) for x, y, z in order)


def _encode_256(digest: bytes) -> str:
    return _encode(digest, _ORDER_256) + _base64(digest[31] << 8 | digest[30], 3)


def _encode_512(digest: bytes) -> str:
    return _encode(digest, _ORDER_512) + _base64(digest[63], 2)
