"""Aliases from a file of lines ``address: target, target``.

A line whose first character is ``#`` is a comment; one that begins with white space goes on with the one before. An
address without a domain is in the default domain. Targets are addresses, here or elsewhere;
pipes, files and includes (``|``, ``/``, ``:include:``) are refused, line by line (R-INJ-1).
``@example.test`` on the left is refused, too: one typing error would take every address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.directory.names import canonical_address, parse_account_name
from mailsrv.directory.peek import IPeekable, Peeked
from mailsrv.directory.watched_file import FileWatching, Parsed, Problem, WatchedFile
from mailsrv.interfaces.directory import DirectoryUser, IDirectory

AliasTable = Mapping[Address, tuple[Address, ...]]


def logical_lines(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """Lines with their continuations joined, and where they begin."""
    pending, started = b"", 0
    for number, raw in enumerate(octets.split(b"\n"), 1):
        line = raw.rstrip(b"\r")
        if not line.strip() or line.lstrip(b" \t").startswith(b"#"):
            continue
        if line[:1] in b" \t" and pending:
            pending += b" " + line.strip()
            continue
        if pending:
            yield started, pending
        pending, started = line, number
    if pending:
        yield started, pending


def _parse_alias(line: str, default_domain: str) -> tuple[Address, tuple[Address, ...]]:
    left, colon, right = line.partition(":")
    if not colon:
        raise ValueError("no colon: expected address: target, target")
    alias = parse_account_name(left.strip(), default_domain)
    targets: list[Address] = []
    for text in right.split(","):
        target = text.strip()
        if not target:
            continue
        if target[0] in '|/:"\\<':
            raise ValueError(f"{target!r} is no address; pipes, files and includes are not supported")
        targets.append(parse_account_name(target, default_domain))
    if not targets:
        raise ValueError(f"{alias} stands for nobody")
    return alias, tuple(dict.fromkeys(targets))


def parse_aliases(octets: bytes, default_domain: str = "") -> Parsed[AliasTable]:
    """All aliases of a file; the first line of an alias counts."""
    aliases: dict[Address, tuple[Address, ...]] = {}
    problems: list[Problem] = []
    for number, raw in logical_lines(octets):
        try:
            alias, targets = _parse_alias(raw.decode("utf-8"), default_domain)
        except UnicodeDecodeError:
            problems.append(Problem(number, "skipped: not UTF-8"))
        except ValueError as error:
            problems.append(Problem(number, f"skipped: {error}"))
        else:
            if alias in aliases:
                problems.append(Problem(number, f"skipped: {alias} stands further up already"))
            else:
                aliases[alias] = targets
    return Parsed(aliases, tuple(problems))


@implementer(IDirectory, IPeekable)
class AliasFile:
    """A directory of aliases without users."""

    def __init__(
        self,
        path: str,
        watching: FileWatching,
        *,
        default_domain: str = "",
    ) -> None:
        self.name = f"alias-file {path}"
        self._file: WatchedFile[AliasTable] = WatchedFile(
            path,
            lambda octets: parse_aliases(octets, default_domain),
            watching,
        )

    def find_user(self, address: Address) -> Deferred[DirectoryUser | None]:
        return succeed(None)

    def check_password(self, user: DirectoryUser | None, password: str) -> Deferred[bool]:
        """Nobody logs in by an alias; the chain asks another directory to spend the time."""
        return succeed(False)

    def find_alias(self, address: Address) -> Deferred[Sequence[Address] | None]:
        key = canonical_address(address)
        return self._file.find(lambda table: table.get(key))

    def peek(self, address: Address, *, is_target: bool = False) -> Peeked | None:
        """See :class:`~mailsrv.directory.peek.IPeekable`."""
        table = self._file.at_hand()
        return None if table is None else (table.get(address), None)

    def list_users(self) -> Deferred[Sequence[DirectoryUser]]:
        return succeed(())
