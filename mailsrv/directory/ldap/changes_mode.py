"""Ways to notice changes, as the settings name them."""

from __future__ import annotations

import enum


class ChangesMode(enum.Enum):
    """How changes in an LDAP directory are noticed."""

    CACHE = "cache"
    POLL = "poll"
    SYNC = "sync"
    PERSISTENT_SEARCH = "persistent-search"
    AUTO = "auto"
