"""Aliases in the form of ``/etc/aliases`` (aliases(5)), for all local domains or for one.

::

    # a comment
    postmaster: root
    root:       alice, bob@example.org
    "two words": alice,
                bob
    staff:      :include:/etc/mail/staff

Names stand on the left, without a domain; on the right names, addresses and files of addresses
(``:include:``, one file deep, each followed like this one). ``\\alice`` is ``alice``. Nothing is ever run and no
file is written: ``|command`` and ``/file`` are passed over, with a line in the log (R-INJ-1).

An include that cannot be read makes its aliases unavailable: mail for them waits (R-AUTH-7).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from mailsrv.address import Address, AddressError
from mailsrv.coroutines import run_coroutine
from mailsrv.directory.alias_file import logical_lines
from mailsrv.directory.names import canonical_address
from mailsrv.directory.peek import NOBODY, IPeekable, Peeked
from mailsrv.directory.watched_file import FileWatching, Parsed, Problem, WatchedFile
from mailsrv.errors import Unavailable
from mailsrv.interfaces.directory import DirectoryUser, IDirectory

INCLUDE_LIMIT = 100
"""Files that one alias file may include."""
INCLUDE_OCTETS = 1024 * 1024
"""The longest of them."""
_INCLUDE = ":include:"
# A quoted string with its escapes, or what stands up to the next comma or white space.
_WORD = re.compile(r'[\s,]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))(?=[\s,]|$)')
_QUOTED_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")


@frozen
class AliasEntry:
    """What one name stands for."""

    targets: tuple[Address, ...]
    includes: tuple[str, ...] = ()


ClassicTable = Mapping[str, AliasEntry]
"""By local part, canonical."""


class _Refused(ValueError):
    """A target that is passed over; the others of its line count."""


def parse_classic_aliases(octets: bytes, domain: str = "") -> Parsed[ClassicTable]:
    """All aliases of a file; the first line of a name counts. ``domain`` is that of names on the right."""
    table: dict[str, AliasEntry] = {}
    problems: list[Problem] = []
    includes: set[str] = set()
    for number, raw in logical_lines(octets):
        try:
            name, right = _split_line(raw.decode("utf-8"))
            if name in table:
                raise ValueError(f"skipped: {name} stands further up already")
            entry = _parse_targets(right, domain, number, problems, includes)
            if not entry.targets and not entry.includes:
                raise ValueError(f"skipped: {name} stands for nobody")
        except UnicodeDecodeError:
            problems.append(Problem(number, "skipped: not UTF-8"))
        except ValueError as error:
            problems.append(Problem(number, str(error)))
        else:
            table[name] = entry
    return Parsed(table, tuple(problems))


def _split_line(line: str) -> tuple[str, str]:
    """The canonical name, and what stands behind its colon."""
    if line.startswith('"'):
        match = _QUOTED_NAME.match(line)
        if match is None:
            raise ValueError("skipped: the quotes are not closed")
        name, rest = _ESCAPE.sub(r"\1", match[1]), line[match.end() :].lstrip()
        colon, right = rest[:1], rest[1:]
    else:
        name, colon, right = line.partition(":")
        name = name.strip()
    if colon != ":":
        raise ValueError("skipped: no colon: expected name: target, target")
    if "@" in name:
        raise ValueError(f"skipped: {name!r} has a domain; names stand here without one")
    try:
        # Any domain does: only the local part is kept.
        return canonical_address(Address(name, "localhost")).local_part, right
    except AddressError as error:
        raise ValueError(f"skipped: {name!r} is no name: {error.text}") from error


def _parse_targets(text: str, domain: str, number: int, problems: list[Problem], includes: set[str]) -> AliasEntry:
    targets: dict[Address, None] = {}
    own_includes: dict[str, None] = {}
    for target in _words(text):
        try:
            if target.lower().startswith(_INCLUDE):
                path = target[len(_INCLUDE) :].strip()
                _check_include(path, includes)
                includes.add(path)
                own_includes[path] = None
            else:
                targets[_parse_target(target, domain)] = None
        except _Refused as error:
            problems.append(Problem(number, f"passed over: {error}"))
    return AliasEntry(tuple(targets), tuple(own_includes))


def _words(text: str) -> Iterator[str]:
    """Targets, unquoted; ``:include:"path"`` and the like as one. Raises ValueError for open quotes."""
    position, end = 0, len(text.rstrip(" \t\r,"))
    while position < end:
        match = _WORD.match(text, position)
        if match is None:
            raise ValueError("skipped: quotes that are not closed, or within a word")
        yield match[2] if match[1] is None else _ESCAPE.sub(r"\1", match[1])
        position = match.end()


def _check_include(path: str, includes: set[str]) -> None:
    if not path.startswith("/") or "\0" in path:
        raise _Refused("an include needs an absolute path")
    if path not in includes and len(includes) >= INCLUDE_LIMIT:
        raise _Refused(f"more than {INCLUDE_LIMIT} included files")


def _parse_target(target: str, domain: str) -> Address:
    if target[:1] in ("|", "/"):
        raise _Refused(f"{target!r}: commands and files get no mail")
    name = target.removeprefix("\\")
    local_part, at, host = name.rpartition("@")
    if not at:
        local_part, host = name, domain
    if not host:
        raise _Refused(f"{target!r} has no domain, and no default domain is set")
    try:
        return canonical_address(Address(local_part, host))
    except AddressError as error:
        raise _Refused(f"{target!r} is no address: {error.text}") from error


def parse_include(octets: bytes, domain: str = "") -> Parsed[tuple[Address, ...]]:
    """A file of addresses, any number on a line; includes in it are passed over."""
    targets: dict[Address, None] = {}
    problems: list[Problem] = []
    for number, raw in enumerate(octets.split(b"\n"), 1):
        try:
            line = raw.decode("utf-8").strip()
            if not line or line.startswith("#"):
                continue
            for word in _words(line):
                if word.startswith(":"):
                    problems.append(Problem(number, "passed over: an included file includes no other"))
                    continue
                try:
                    targets[_parse_target(word, domain)] = None
                except _Refused as error:
                    problems.append(Problem(number, f"passed over: {error}"))
        except UnicodeDecodeError:
            problems.append(Problem(number, "skipped: not UTF-8"))
        except ValueError as error:
            problems.append(Problem(number, str(error)))
    return Parsed(tuple(targets), tuple(problems))


@implementer(IDirectory, IPeekable)
class ClassicAliases:
    """A directory of aliases without users. ``domain`` "": of every domain the resolver asks about."""

    def __init__(
        self,
        path: str,
        watching: FileWatching,
        *,
        domain: str = "",
        default_domain: str = "",
    ) -> None:
        self.name = f"aliases {path}" + (f" for {domain}" if domain else "")
        self._domain = domain
        self._target_domain = domain or default_domain
        self._watching = evolve(watching, max_octets=INCLUDE_OCTETS)
        self._file: WatchedFile[ClassicTable] = WatchedFile(
            path,
            lambda octets: parse_classic_aliases(octets, self._target_domain),
            watching,
        )
        self._includes: dict[str, WatchedFile[tuple[Address, ...]]] = {}

    def find_user(self, address: Address) -> Deferred[DirectoryUser | None]:
        return succeed(None)

    def check_password(self, user: DirectoryUser | None, password: str) -> Deferred[bool]:
        """Nobody logs in by an alias; the chain asks another directory to spend the time."""
        return succeed(False)

    def find_alias(self, address: Address) -> Deferred[Sequence[Address] | None]:
        if self._domain and address.domain != self._domain:
            return succeed(None)
        key = canonical_address(address).local_part
        return run_coroutine(self._find_alias(key))

    async def _find_alias(self, key: str) -> Sequence[Address] | None:
        entry = await self._file.find(lambda table: table.get(key))
        if entry is None:
            return None
        if not entry.includes:
            return entry.targets
        targets = dict.fromkeys(entry.targets)
        for path in entry.includes:
            targets.update(dict.fromkeys(await self._include(path).contents()))
        if not targets:
            # Empty files: as long as that lasts, mail waits rather than being refused.
            raise Unavailable(cause=f"alias {key} includes only empty files")
        return tuple(targets)

    def _include(self, path: str) -> WatchedFile[tuple[Address, ...]]:
        file = self._includes.get(path)
        if file is None:
            if len(self._includes) >= INCLUDE_LIMIT:
                # Those of earlier contents of the alias file.
                self._includes.clear()
            file = self._includes[path] = WatchedFile(
                path,
                lambda octets: parse_include(octets, self._target_domain),
                self._watching,
            )
        return file

    def peek(self, address: Address, *, is_target: bool = False) -> Peeked | None:
        """See :class:`~mailsrv.directory.peek.IPeekable`."""
        if self._domain and address.domain != self._domain:
            return NOBODY
        table = self._file.at_hand()
        if table is None:
            return None
        entry = table.get(address.local_part)
        if entry is None:
            return NOBODY
        return None if entry.includes else (entry.targets, None)

    def list_users(self) -> Deferred[Sequence[DirectoryUser]]:
        return succeed(())
