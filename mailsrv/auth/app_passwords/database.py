"""The file of the app passwords, shared by all workers and the commands: SQLite with a write-ahead log.

It is made by the first command that adds one; where there is none, nobody has any. A connection looks at the file's
identity before each use: one that was put in its place (a restored backup) is used from then on. Everything here waits
for the disk, and is for one thread at a time.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from collections.abc import Iterator, Sequence

import apsw
from attrs import frozen

from mailsrv.auth.app_passwords.form import digest_of, make_secret, read_secret
from mailsrv.auth.app_passwords.record import AppPassword, Scope, check_name
from mailsrv.disk import give_to_owner, sync_directory
from mailsrv.disk.database_file import empty_database
from mailsrv.errors import Unavailable

FILE = "app-passwords.db"
APPLICATION_ID = 0x6D737061
VERSION = 1
BUSY_SECONDS = 5.0
_LOWEST_SQLITE = (3, 51, 3)
"""Before, a WAL database with several writing processes can be corrupted."""
_COLUMNS = "id, account, name, scopes, created_at, expires_at, used_at, used_service, used_network"
_CREATE = """
CREATE TABLE app_password(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  account TEXT NOT NULL,
  name TEXT NOT NULL COLLATE NOCASE,
  digest BLOB NOT NULL,
  scopes TEXT NOT NULL,
  created_at REAL NOT NULL,
  expires_at REAL,
  used_at REAL,
  used_service TEXT NOT NULL DEFAULT '',
  used_network TEXT NOT NULL DEFAULT '',
  UNIQUE(account, name)) STRICT;
"""


class AppPasswordRefused(Exception):
    """It cannot be added; the text says why."""


@frozen
class Fresh:
    """One just added. The secret is nowhere else."""

    password: AppPassword
    secret: str

    def __repr__(self) -> str:
        return f"Fresh({self.password!r})"


def database_path(state_dir: str) -> str:
    """The file of a server."""
    return os.path.join(state_dir, FILE)


class AppPasswordDatabase:
    """Methods raise :class:`~mailsrv.errors.Unavailable` where the file cannot be used."""

    def __init__(self, path: str) -> None:
        """Nothing is opened yet."""
        self._path = path
        self._connection: apsw.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def close(self) -> None:
        """Safe to call twice; the next use opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # -- for log-ins ------------------------------------------------------------------

    def find(self, account: str, secret: str) -> AppPassword | None:
        """Whose secret it is among the account's.

        All of them are compared in constant time, whichever it is; an account without any costs the same search.
        """
        digest = digest_of(account, secret)
        found: AppPassword | None = None
        with self._reading() as connection:
            if connection is not None:
                query = f"SELECT digest, {_COLUMNS} FROM app_password WHERE account=?"  # noqa: S608 - constants
                for stored, *rest in connection.execute(query, (account,)):
                    if hmac.compare_digest(stored, digest):
                        found = _password(rest)
        return found

    def get(self, number: int) -> AppPassword | None:
        """The one with this id; None if it was revoked."""
        found = self._select("WHERE id=?", (number,))
        return found[0] if found else None

    def is_empty(self) -> bool:
        """Whether nobody has any."""
        with self._reading() as connection:
            return connection is None or connection.execute("SELECT 1 FROM app_password LIMIT 1").fetchone() is None

    def note_use(self, number: int, now: float, service: str, network: str) -> None:
        """Remember the last use. Not synced: a power cut may forget some minutes of it."""
        with self._writing(is_durable=False) as connection:
            if connection is not None:
                sql = "UPDATE app_password SET used_at=?, used_service=?, used_network=? WHERE id=?"
                connection.execute(sql, (now, service, network, number))

    # -- for administrators -----------------------------------------------------------

    def add(
        self,
        account: str,
        name: str,
        scopes: frozenset[Scope],
        *,
        now: float,
        expires_at: float | None,
        limit: int,
    ) -> Fresh:
        """A new one; durable before it is answered. Raises AppPasswordRefused, and ValueError for an unfit name."""
        name = check_name(name)
        if not scopes:
            raise ValueError("an app password has to be for something")
        self._make()
        secret = make_secret()
        with self._writing(is_durable=True) as connection:
            if connection is None:
                raise Unavailable(cause=f"{self._path} is gone")
            count = connection.execute("SELECT count(*) FROM app_password WHERE account=?", (account,)).get
            if count >= limit:
                raise AppPasswordRefused(f"{account} has {count} app passwords, and no more than {limit} are allowed")
            taken = connection.execute("SELECT 1 FROM app_password WHERE account=? AND name=?", (account, name))
            if taken.fetchone() is not None:
                raise AppPasswordRefused(f"{account} has an app password {name!r} already; revoke it first")
            sql = (
                "INSERT INTO app_password(account, name, digest, scopes, created_at, expires_at) "
                "VALUES(?, ?, ?, ?, ?, ?) RETURNING id"
            )
            digest = digest_of(account, read_secret(secret) or "")
            number = connection.execute(sql, (account, name, digest, _text(scopes), now, expires_at)).get
        return Fresh(AppPassword(number, account, name, scopes, now, expires_at), secret)

    def list(self, account: str | None = None) -> Sequence[AppPassword]:
        """An account's, or everybody's; by account, the oldest first."""
        if account is None:
            return self._select("ORDER BY account, id", ())
        return self._select("WHERE account=? ORDER BY id", (account,))

    def revoke(self, account: str, name: str | None = None) -> Sequence[AppPassword]:
        """Take one of an account's back, by name or, if there is none of that name, by number; without: all of them.

        Answers with what was taken back; durable.
        """
        known = self.list(account)
        if name is not None:
            chosen = [one for one in known if one.name.lower() == name.strip().lower()]
            known = chosen or [one for one in known if str(one.id) == name]
        if known:
            with self._writing(is_durable=True) as connection:
                if connection is not None:
                    connection.executemany("DELETE FROM app_password WHERE id=?", [(one.id,) for one in known])
        return tuple(known)

    # -- the file ---------------------------------------------------------------------

    def _select(self, rest: str, arguments: tuple[str | int, ...]) -> Sequence[AppPassword]:
        with self._reading() as connection:
            if connection is None:
                return ()
            query = f"SELECT {_COLUMNS} FROM app_password {rest}"  # noqa: S608 - constants
            return tuple(_password(row) for row in connection.execute(query, arguments))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[apsw.Connection | None]:
        """The connection; None where there is no file."""
        try:
            yield self._current()
        except (apsw.Error, OSError) as error:
            self.close()
            raise Unavailable(cause=f"{self._path}: {error!r}") from error

    @contextlib.contextmanager
    def _writing(self, *, is_durable: bool) -> Iterator[apsw.Connection | None]:
        with self._reading() as connection:
            if connection is None:
                yield None
                return
            connection.execute(f"PRAGMA synchronous={'FULL' if is_durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                # A full disk may have rolled it back already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _current(self) -> apsw.Connection | None:
        try:
            status = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            self.close()
            return None
        identity = (status.st_dev, status.st_ino)
        if self._connection is None or identity != self._identity:
            self._turn()
            self._identity = identity
        return self._connection

    def _turn(self) -> None:
        if self._connection is not None:
            # The last connection to a file must not tidy up after it by a name that another file has now.
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self.close()
        if tuple(map(int, apsw.sqlite_lib_version().split("."))) < _LOWEST_SQLITE:
            raise Unavailable(cause=f"SQLite {apsw.sqlite_lib_version()} is too old for app passwords")
        folder, name = os.path.split(self._path)
        connection = apsw.Connection(
            # SQLite refuses symbolic links anywhere in a path; only the file itself must be none.
            os.path.join(os.path.realpath(folder), name),
            flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW,
        )
        try:
            connection.set_busy_timeout(int(BUSY_SECONDS * 1000))
            is_ours = connection.pragma("application_id") == APPLICATION_ID
            if not is_ours or connection.pragma("user_version") != VERSION:
                raise Unavailable(cause=f"{self._path} is no file of app passwords, or a later version's")
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _make(self) -> None:
        """The file, unless there is one. Its octets are synced before it has its name.

        What root makes belongs to the owner of the folder, as what SQLite puts beside it does: the server reads it.
        """
        if os.path.lexists(self._path):
            return
        folder = os.path.dirname(self._path)
        if not os.path.isdir(folder):
            # Made by root it would not be the server's.
            raise Unavailable(cause=f"{folder} is not there; the server makes it when it starts")
        temporary = f"{self._path}.{secrets.token_hex(6)}.new"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                give_to_owner(descriptor, folder)
                os.write(descriptor, empty_database(_prepare))
                os.fsync(descriptor)
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, self._path)
            finally:
                os.close(descriptor)
                os.unlink(temporary)
            sync_directory(folder)
        except OSError as error:
            raise Unavailable(cause=f"{self._path}: {error.strerror}") from error


def _prepare(connection: apsw.Connection) -> None:
    connection.execute(_CREATE)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={VERSION}")


def _text(scopes: frozenset[Scope]) -> str:
    return " ".join(sorted(scope.value for scope in scopes))


def _password(row: Sequence[object]) -> AppPassword:
    number, account, name, scopes, created_at, expires_at, used_at, used_service, used_network = row
    # A scope of a later version is none that this one could grant.
    known = frozenset(scope for scope in Scope if scope.value in str(scopes).split())
    return AppPassword(
        int(str(number)),
        str(account),
        str(name),
        known,
        float(str(created_at)),
        None if expires_at is None else float(str(expires_at)),
        None if used_at is None else float(str(used_at)),
        str(used_service),
        str(used_network),
    )
