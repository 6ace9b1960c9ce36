"""The system's libxcrypt, called through ctypes: crypt(3) for every scheme it knows.

Preferred over ``sha_crypt.py`` because a call lets go of the interpreter lock and takes a quarter
of the time; and it knows ``$1$``, ``$2y$``, ``$y$`` besides. The library is used only if it gives
the right answer to a known question when it is loaded. ``crypt_rn`` is told how much room it has
and keeps its state in it, so that threads do not meet.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

_NAMES = ("libcrypt.so.1", "libcrypt.so.2")
_DATA_OCTETS = 32768
"""``sizeof (struct crypt_data)`` of libxcrypt; one that wants more answers with an error."""

_KNOWN_SETTING = "$5$saltstring"
_KNOWN_HASH = "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"

Crypt = Callable[[bytes, str], str | None]


def load_crypt() -> Crypt | None:
    """A function ``(password, setting) -> hash``, None where it cannot; or None without a usable library."""
    for name in _NAMES:
        try:
            function = ctypes.CDLL(name).crypt_rn
        except (OSError, AttributeError):
            continue
        function.restype = ctypes.c_char_p
        function.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int)

        def crypt(password: bytes, setting: str, function: Callable[..., bytes | None] = function) -> str | None:
            # C strings end at NUL: what follows would be ignored, so it is refused.
            if b"\0" in password or "\0" in setting or not setting.isascii():
                return None
            data = ctypes.create_string_buffer(_DATA_OCTETS)
            answer = function(password, setting.encode("ascii"), data, _DATA_OCTETS)
            ctypes.memset(data, 0, _DATA_OCTETS)
            if answer is None or answer.startswith(b"*"):
                return None
            return answer.decode("ascii")

        if crypt(b"Hello world!", _KNOWN_SETTING) == _KNOWN_HASH:
            return crypt
    return None
