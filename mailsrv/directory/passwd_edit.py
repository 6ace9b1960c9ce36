"""Changing a passwd-file, for the administrator's command.

The file is rewritten as a whole: written beside, synced, renamed over the old one, the folder
synced; mode and owner stay, and so does every line that is not the one changed, comments
included. A lock file (``NAME.lock``, flock) keeps two commands from losing each other's change.
A running server sees the new file at its next look; it never sees half of one. Everything here
waits for the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence

from mailsrv.address import Address
from mailsrv.directory.names import canonical_address
from mailsrv.directory.passwd_line import SCRAM_FIELDS, is_entry, parse_line
from mailsrv.disk import replace_file
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.sasl.scram_keys import find_keys

LOCK_SECONDS = 10.0
"""How long a command waits for another one."""


class EditError(Exception):
    """The file was not changed; the text is a sentence for the administrator."""


class PasswdEditor:
    """Adds, changes and removes lines. Each change is durable when the method returns."""

    def __init__(self, path: str, *, default_domain: str = "", lock_seconds: float = LOCK_SECONDS) -> None:
        self._path = os.path.realpath(path)
        self._default_domain = default_domain
        self._lock_seconds = lock_seconds

    def users(self) -> tuple[DirectoryUser, ...]:
        """All users, by address; lines that cannot be read are left out."""
        users = (self._user_of(line) for line in self._read())
        found: dict[Address, DirectoryUser] = {}
        for user in users:
            if user is not None:
                found.setdefault(user.address, user)
        return tuple(found[address] for address in sorted(found, key=str))

    def add(self, address: Address, secret: str, *, display_name: str = "", extra: str = "") -> None:
        """Add a user. EditError where there is one already."""
        address = canonical_address(address)
        for text in (secret, display_name):
            if any(character in ":\r\n\0" for character in text):
                raise EditError("a field may have no colon, line end or NUL")
        if any(character in "\r\n\0" for character in extra):
            raise EditError("a field may have no line end or NUL")
        entry = f"{address}:{secret}:::{display_name}:::{extra}".encode()
        with self._locked():
            lines = self._read(missing_is_empty=True)
            if self._find(lines, address) is not None:
                raise EditError(f"{address} exists already")
            if lines and not lines[-1]:
                lines[-1:] = [entry, b""]
            else:
                lines += [entry, b""]
            self._write(lines)

    def set_secret(self, address: Address, secret: str, verifiers: Sequence[str] = ()) -> None:
        """Give a user another password hash, and keys for SCRAM (``{SCRAM-SHA-256}…``) in place of the old password's.

        EditError where there is no such user.
        """
        if any(character in ":\r\n\0" for character in secret):
            raise EditError("a field may have no colon, line end or NUL")
        new_fields = scram_fields(verifiers).encode()
        with self._locked():
            lines = self._read()
            index = self._require(lines, address)
            line = lines[index].removesuffix(b"\r")
            ending = lines[index][len(line) :]
            fields = line.split(b":", 7)
            fields[1] = secret.encode()
            if len(fields) > 7:
                # The keys of the old password would let it in.
                kept = [extra for extra in fields[7].split() if not _is_scram_field(extra)]
                if len(kept) < len(fields[7].split()):
                    fields[7] = b" ".join(kept)
            if new_fields:
                fields += [b""] * (8 - len(fields))
                fields[7] = b" ".join(part for part in (fields[7], new_fields) if part)
            lines[index] = b":".join(fields) + ending
            self._write(lines)

    def delete(self, address: Address) -> None:
        """Remove a user's lines, also repeated ones. EditError where there is no such user."""
        with self._locked():
            lines = self._read()
            index: int | None = self._require(lines, address)
            while index is not None:
                del lines[index]
                index = self._find(lines, address)
            self._write(lines)

    def _user_of(self, octets: bytes) -> DirectoryUser | None:
        try:
            line = octets.rstrip(b"\r").decode("utf-8")
            return parse_line(line, self._default_domain).user if is_entry(line) else None
        except ValueError:
            return None

    def _find(self, lines: list[bytes], address: Address) -> int | None:
        for index, line in enumerate(lines):
            user = self._user_of(line)
            if user is not None and user.address == address:
                return index
        return None

    def _require(self, lines: list[bytes], address: Address) -> int:
        index = self._find(lines, canonical_address(address))
        if index is None:
            raise EditError(f"{address} does not exist in {self._path}")
        return index

    def _read(self, *, missing_is_empty: bool = False) -> list[bytes]:
        try:
            with open(self._path, "rb") as file:
                return file.read().split(b"\n")
        except FileNotFoundError:
            if missing_is_empty:
                return []
            raise EditError(f"{self._path} does not exist") from None
        except OSError as error:
            raise EditError(f"{self._path} cannot be read: {error.strerror}") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            descriptor = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise EditError(f"{self._path}.lock cannot be opened: {error.strerror}") from error
        # The lock file stays: removing it would let two commands hold locks on two files.
        try:
            self._wait_for_lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _wait_for_lock(self, descriptor: int) -> None:
        deadline = time.monotonic() + self._lock_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise EditError(f"another command is changing {self._path}") from None
                time.sleep(0.05)
            else:
                return

    def _write(self, lines: list[bytes]) -> None:
        try:
            replace_file(self._path, b"\n".join(lines), prepare=self._keep_owner_and_mode)
        except OSError as error:
            raise EditError(f"{self._path} cannot be written: {error.strerror}") from error

    def _keep_owner_and_mode(self, descriptor: int) -> None:
        """As the old file; a new one is readable by its owner alone, who is the folder's owner if root makes it.

        Where the folder is root's own, with the group of the server (``/etc/mailsrv``), that group may read it.
        """
        try:
            old = os.stat(self._path)
        except FileNotFoundError:
            if os.geteuid() == 0:
                folder = os.stat(os.path.dirname(self._path))
                os.fchown(descriptor, folder.st_uid, folder.st_gid)
                if folder.st_uid == 0 and folder.st_gid != 0:
                    os.fchmod(descriptor, 0o640)
            return
        new = os.fstat(descriptor)
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
            os.fchown(descriptor, old.st_uid, old.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def scram_fields(verifiers: Sequence[str]) -> str:
    """Stored forms (``{SCRAM-SHA-256}…``) as extra fields of a line. EditError for any other."""
    fields = []
    for verifier in verifiers:
        scheme, _, value = verifier.removeprefix("{").partition("}")
        name = next((name for name, mechanism in SCRAM_FIELDS.items() if mechanism == scheme), "")
        if not name or find_keys(scheme, (verifier,)) is None:
            raise EditError("no keys for SCRAM")
        fields.append(f"{name}={value}")
    return " ".join(fields)


def _is_scram_field(extra: bytes) -> bool:
    return extra.partition(b"=")[0].removeprefix(b"userdb_").decode("ascii", "replace") in SCRAM_FIELDS
