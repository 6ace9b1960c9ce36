"""Users from a file in Dovecot's passwd-file format (the line: ``passwd_line.py``).

The file is read when somebody asks and it has changed; a broken line is logged with its number
and skipped. Passwords are checked in the hashing pool, never in the reactor thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.directory.names import canonical_address
from mailsrv.directory.passwd_line import is_entry, parse_line
from mailsrv.directory.passwords.hashing import HashingPool
from mailsrv.directory.passwords.verifiers import cost_class
from mailsrv.directory.peek import IPeekable, Peeked
from mailsrv.directory.scram import ScramCensus
from mailsrv.directory.watched_file import FileWatching, Parsed, Problem, WatchedFile
from mailsrv.interfaces.directory import DirectoryUser, IDirectory, IScramDirectory, ScramStanding
from mailsrv.interfaces.directory_state import DirectoryState, IReportsState


@frozen
class PasswdTable:
    """A parsed file. ``typical_secret`` is one of those hashes that cost what most of them cost."""

    users: Mapping[Address, DirectoryUser]
    typical_secret: str = ""
    scram: Sequence[ScramStanding] = ()


def parse_passwd(octets: bytes, default_domain: str = "", directory: str = "") -> Parsed[PasswdTable]:
    """All entries of a file, as of the directory so named; the first line of a user counts."""
    users: dict[Address, DirectoryUser] = {}
    problems: list[Problem] = []
    classes: Counter[str] = Counter()
    examples: dict[str, str] = {}
    census = ScramCensus()
    for number, raw in enumerate(octets.split(b"\n"), 1):
        try:
            line = raw.rstrip(b"\r").decode("utf-8")
        except UnicodeDecodeError:
            problems.append(Problem(number, "skipped: not UTF-8"))
            continue
        if not is_entry(line):
            continue
        try:
            entry = parse_line(line, default_domain)
        except ValueError as error:
            problems.append(Problem(number, f"skipped: {error}"))
            continue
        address = entry.user.address
        if address in users:
            problems.append(Problem(number, f"skipped: {address} stands further up already"))
            continue
        users[address] = evolve(entry.user, directory=directory)
        problems += [Problem(number, warning) for warning in entry.warnings]
        if entry.user.may_log_in:
            kind = cost_class(entry.user.secret)
            classes[kind] += 1
            examples.setdefault(kind, entry.user.secret)
            census.count(entry.user)
    typical = examples[classes.most_common(1)[0][0]] if classes else ""
    return Parsed(PasswdTable(users, typical, census.standings()), tuple(problems))


@implementer(IDirectory, IPeekable, IReportsState, IScramDirectory)
class PasswdFile:
    """A passwd-file as a directory. Needs no start; ``list_users`` at start-up shows whether it can be read."""

    def __init__(
        self,
        path: str,
        watching: FileWatching,
        *,
        hashing: HashingPool,
        default_domain: str = "",
    ) -> None:
        self.name = f"passwd-file {path}"
        self._hashing = hashing
        self._file: WatchedFile[PasswdTable] = WatchedFile(
            path,
            lambda octets: parse_passwd(octets, default_domain, self.name),
            watching,
        )

    def find_user(self, address: Address) -> Deferred[DirectoryUser | None]:
        key = canonical_address(address)
        return self._file.find(lambda table: table.users.get(key))

    def peek(self, address: Address, *, is_target: bool = False) -> Peeked | None:
        """See :class:`~mailsrv.directory.peek.IPeekable`."""
        table = self._file.at_hand()
        return None if table is None else (None, table.users.get(address))

    def states(self) -> Sequence[DirectoryState]:
        """As of the last look at the file."""
        trouble = self._file.trouble
        return (DirectoryState(self.name, bool(trouble), trouble=trouble),)

    def check_password(self, user: DirectoryUser | None, password: str) -> Deferred[bool]:
        """The stored hash decides.

        An unknown user costs what most users of this file cost, not what a new hash would: in a
        file full of old, cheap hashes the difference would tell who exists (R-AUTH-4).
        """
        if user is not None and user.secret:
            return self._hashing.verify(user.secret, password)

        def spend(table: PasswdTable) -> Deferred[bool]:
            return self._hashing.spend(table.typical_secret, password)

        return self._file.contents().addCallback(spend)

    def scram_standings(self) -> Sequence[ScramStanding]:
        """By what was read last."""
        table = self._file.last_known()
        return () if table is None else table.scram

    def find_alias(self, address: Address) -> Deferred[Sequence[Address] | None]:
        return succeed(None)

    def list_users(self) -> Deferred[Sequence[DirectoryUser]]:
        def in_order(table: PasswdTable) -> Sequence[DirectoryUser]:
            return tuple(table.users[address] for address in sorted(table.users, key=str))

        return self._file.contents().addCallback(in_order)
