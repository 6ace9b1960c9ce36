"""Where mail goes: one rule of the file's ``[[route]]`` tables."""

from __future__ import annotations

from attrs import field, frozen


@frozen
class RouteSettings:
    """One transport rule; the first that matches wins."""

    via: str = field(
        metadata={
            "help": "local, mx, smtp:HOST:PORT, lmtp:ENDPOINT, discard or reject.",
            "example": "smtp:mail.example.net:587",
        },
    )
    to: str = field(
        default="*",
        metadata={"help": "Recipients it is for: an address, a domain, *.domain for those below it, or * for all."},
    )
