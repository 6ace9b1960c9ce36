"""MTA-STS policies on disk: one file for each domain under ``<state_dir>/mta-sts``, shared by all workers.

Everything here waits for the disk: call it in a thread. Files are written beside and renamed, so a
reader sees an old policy or a new one. What cannot be read counts as not there: a policy can be
fetched again. Nothing is synced for the same reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import re

from attrs import frozen

from mailsrv.disk import replace_file
from mailsrv.tls.mta_sts import StsError, StsPolicy, format_policy, parse_policy

_MAX_OCTETS = 262_144
_PRUNE_EVERY = 50
SHORTEST_MAX_AGE = 300
"""A policy that says it is over at once is not fetched for every message."""
# A file is named after its domain: never a name that leads elsewhere, and never one of ours.
_DOMAIN = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,252}\Z")


@frozen
class StoredPolicy:
    """A policy with the id of the TXT record it was fetched for; ``fetched`` in seconds since 1970."""

    policy: StsPolicy
    policy_id: str
    fetched: float

    def is_valid(self, now: float, max_age: int) -> bool:
        """Whether it still counts; ``max_age`` bounds what it says itself."""
        age = max(SHORTEST_MAX_AGE, min(self.policy.max_age, max_age))
        # One that was fetched in the future was fetched before the clock was put right.
        return self.fetched <= now + 86_400 and now < self.fetched + age

    def needs_refresh(self, now: float, max_age: int) -> bool:
        """Whether the better part of its life is over (RFC 8461 10.2)."""
        return now > self.fetched + min(self.policy.max_age, max_age) / 2


class StsFiles:
    """``limit`` policies are kept; those fetched longest ago go first."""

    def __init__(self, folder: str, limit: int) -> None:
        self.folder = folder
        self._limit = limit
        self._stored = 0

    def read(self, domain: str) -> StoredPolicy | None:
        """What is kept for the domain, valid or not."""
        if not _DOMAIN.match(domain):
            return None
        try:
            with open(os.path.join(self.folder, domain), "rb") as file:
                table = json.loads(file.read(_MAX_OCTETS))
            policy = parse_policy(table["policy"].encode())
            return StoredPolicy(policy, str(table["id"]), float(table["fetched"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, StsError):
            return None

    def write(self, domain: str, stored: StoredPolicy) -> None:
        """Keep it. Raises OSError."""
        if not _DOMAIN.match(domain):
            return
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        lines = format_policy(stored.policy)
        text = json.dumps({"id": stored.policy_id, "fetched": stored.fetched, "policy": "\n".join(lines) + "\n"})
        replace_file(os.path.join(self.folder, domain), text.encode(), is_durable=False)
        self._stored += 1
        if self._stored % _PRUNE_EVERY == 1:
            self._prune()

    def _prune(self) -> None:
        with os.scandir(self.folder) as entries:
            known = sorted((entry.stat(follow_symlinks=False).st_mtime, entry.path) for entry in entries)
        for _, path in known[: max(0, len(known) - self._limit)]:
            with contextlib.suppress(OSError):
                os.unlink(path)
