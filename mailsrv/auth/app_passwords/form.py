"""What an app password looks like, so that it is told from every other password without asking anybody.

``app-xxxx-xxxx-xxxx-xxxx-xxxx``: 18 random characters of 31 that are hard to mistake for each other (89 bits), and two
that check them. 31 is a prime: any one or two wrong characters, and any two that changed places, are found. It may be
typed in capitals, with blanks in place of the dashes, or without them.

What has this form is never a directory's password to us, not even when it is wrong or mistyped: the directory must not
see it, nor count it as a failure of its own user.
"""

from __future__ import annotations

import hashlib
import re
import secrets

ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_PREFIX = "app"
_RANDOM = 18
_GROUP = 4
_EXACT = re.compile(rf"{_PREFIX}(?:[- ]?[{ALPHABET}]{{{_GROUP}}}){{5}}")
_LIKE_ONE = re.compile(rf"{_PREFIX}(?:-[a-z0-9]{{3,5}}){{5}}")
"""A slip of the finger in one that is written with its dashes."""
_LONGEST = 40


def make_secret() -> str:
    """A new one, as it is shown to its user."""
    body = "".join(secrets.choice(ALPHABET) for _ in range(_RANDOM))
    body += _check(body)
    return "-".join([_PREFIX, *(body[start : start + _GROUP] for start in range(0, len(body), _GROUP))])


def read_secret(text: str) -> str | None:
    """What was typed, in the one form that is hashed; "" if it is mistyped; None if it is no app password at all."""
    text = text.strip()
    if len(text) > _LONGEST or not text.isascii():
        return None
    text = text.lower()
    if _EXACT.fullmatch(text):
        body = text.removeprefix(_PREFIX).replace("-", "").replace(" ", "")
        return body if _check(body[:_RANDOM]) == body[_RANDOM:] else ""
    return "" if _LIKE_ONE.fullmatch(text) else None


def digest_of(account: str, secret: str) -> bytes:
    """What is stored. ``secret`` as :func:`read_secret` answers. The account is in it: no two users can share one."""
    name = account.encode("utf-8", "surrogatepass")
    return hashlib.sha256(
        b"mailsrv app password 1\0" + len(name).to_bytes(4, "big") + name + secret.encode("ascii")
    ).digest()


def _check(body: str) -> str:
    """The sum of the values, and the sum of each times its place."""
    values = [ALPHABET.index(character) for character in body]
    total = sum(values)
    weighted = sum(place * value for place, value in enumerate(values, 1))
    return ALPHABET[total % len(ALPHABET)] + ALPHABET[weighted % len(ALPHABET)]
