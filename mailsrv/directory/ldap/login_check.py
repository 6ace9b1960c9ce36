"""How passwords of users in LDAP are checked, by the settings; see ``password_check.py``."""

from __future__ import annotations

import enum


class LoginCheck(enum.Enum):
    """By the server, or by us."""

    BIND = "bind"
    COMPARE = "compare"
