"""The last list of domains that each directory told, on disk: ``state_dir/directory-domains/KEY.json``.

So a server that starts while its directory is down serves the domains it served before. Shared by all workers: a file
is written beside and renamed, so a reader sees an old list or a new one. Everything here waits for the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Sequence

from attrs import frozen

from mailsrv.address import AddressError, parse_domain
from mailsrv.disk import make_private_directory, replace_file
from mailsrv.interfaces.domain_source import SuppliedDomain

_VERSION = 1
_OCTETS_EACH = 2048
"""A domain takes less: two names and where it stands, which is cut."""
ORIGIN_CHARACTERS = 300
_KEY = re.compile(r"[0-9a-f]{8,64}")
_SUFFIX = ".json"


def kept_folder(state_dir: str) -> str:
    """Where the lists of a server are."""
    return os.path.join(state_dir, "directory-domains")


@frozen
class KeptList:
    """What was told, and when (seconds of the epoch)."""

    domains: tuple[SuppliedDomain, ...]
    heard_at: float


class KeptDomains:
    """The lists in one folder; ``is_read_only``: nothing is written, whatever is told."""

    def __init__(self, folder: str, *, is_read_only: bool = False) -> None:
        self._folder = folder
        self._is_read_only = is_read_only

    def read(self, key: str, limit: int) -> KeptList | None:
        """The list of a source, at most ``limit`` domains; None where there is none. Raises OSError, and ValueError for
        a file that is none of ours.
        """
        try:
            descriptor = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        most = (limit + 1) * _OCTETS_EACH
        with open(descriptor, "rb") as file:
            octets = file.read(most + 1)
            heard_at = os.fstat(file.fileno()).st_mtime
        if len(octets) > most:
            raise ValueError("it is too large")
        return KeptList(_parse(octets, limit), heard_at)

    def write(self, key: str, directory: str, domains: Sequence[SuppliedDomain]) -> None:
        """Keep this list from now on; it is there after a power cut. Raises OSError."""
        if self._is_read_only:
            return
        rows = [[each.name, each.main, each.origin[:ORIGIN_CHARACTERS]] for each in domains]
        table = {"version": _VERSION, "directory": directory[:ORIGIN_CHARACTERS], "domains": rows}
        # Not as escapes, which are longer than what is read.
        octets = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
        make_private_directory(self._folder)
        replace_file(self._path(key), octets)

    def touch(self, key: str) -> None:
        """The list was told again. Raises OSError."""
        if self._is_read_only:
            return
        os.utime(self._path(key))

    def clear_others(self, keys: Collection[str]) -> None:
        """Remove what settings of former days have left, as far as that can be done."""
        if self._is_read_only:
            return
        mine = {key + _SUFFIX for key in keys}
        with contextlib.suppress(OSError):
            for name in os.listdir(self._folder):
                if name.endswith(_SUFFIX) and name not in mine:
                    with contextlib.suppress(OSError):
                        os.unlink(os.path.join(self._folder, name))

    def _path(self, key: str) -> str:
        if _KEY.fullmatch(key) is None:
            raise ValueError(f"{key!r} names no list")
        return os.path.join(self._folder, key + _SUFFIX)


def _parse(octets: bytes, limit: int) -> tuple[SuppliedDomain, ...]:
    """Raises ValueError for anything but a list as it is written."""
    try:
        table = json.loads(octets)
        if table["version"] != _VERSION:
            raise ValueError("it is of another version")
        rows = table["domains"]
        if not isinstance(rows, list) or len(rows) > limit:
            raise ValueError("it has too many domains")
        return tuple(_parse_row(*row) for row in rows)
    except (KeyError, TypeError, RecursionError, AddressError) as error:
        raise ValueError(f"it is no list of domains: {error}") from error


def _parse_row(name: object, main: object, origin: object) -> SuppliedDomain:
    if not isinstance(name, str) or not isinstance(main, str) or not isinstance(origin, str):
        raise TypeError("expected three texts")
    if parse_domain(name) != name or parse_domain(main) != main:
        raise ValueError(f"{name!r} is not written as it should be")
    return SuppliedDomain(name, main, origin[:ORIGIN_CHARACTERS])
