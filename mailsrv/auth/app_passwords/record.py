"""What is kept of an app password: everything but the secret."""

from __future__ import annotations

import enum

from attrs import frozen

NAME_CHARACTERS = 64


class Scope(enum.Enum):
    """What an app password is good for."""

    IMAP = "imap"
    POP3 = "pop3"
    SMTP = "smtp"
    """Sending."""


SCOPE_OF_SERVICE = {"imap": Scope.IMAP, "pop3": Scope.POP3, "submission": Scope.SMTP}
"""By the service of the credentials."""


@frozen
class AppPassword:
    """One of an account's. Times are in seconds since 1970."""

    id: int
    account: str
    """The canonical address."""
    name: str
    """Given by who asked for it: the program or the device."""
    scopes: frozenset[Scope]
    created_at: float
    expires_at: float | None = None
    used_at: float | None = None
    """The last time, to about a minute."""
    used_service: str = ""
    used_network: str = ""

    def objection(self, scope: Scope | None, now: float) -> str:
        """Why it is no good for this, for the log; "" if it is."""
        if self.expires_at is not None and now >= self.expires_at:
            return f"the app password {self.name!r} has expired"
        if scope not in self.scopes:
            return f"the app password {self.name!r} is not for this service"
        return ""


def check_name(name: str) -> str:
    """The name without blanks around it. Raises ValueError with a sentence for the administrator."""
    name = name.strip()
    if not name:
        raise ValueError("an app password needs a name, such as that of the device it is for")
    if len(name) > NAME_CHARACTERS:
        raise ValueError(f"the name has more than {NAME_CHARACTERS} characters")
    if not name.isprintable():
        raise ValueError("the name has characters that cannot be printed")
    return name
