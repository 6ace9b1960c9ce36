"""Signing keys on disk: ``<folder>/<domain>/<selector>.pem``, and ``states.json`` beside them.

A key is *published* (its record is to be put into the DNS; nothing is signed with it yet),
*active* (it signs) or *retired* (it signs no more; its record stays until mail on its way has
arrived). A key file that states.json does not name was put there by hand and is active.

Key files may be read by their owner alone, or are refused. Files are written beside, synced and
renamed; what root makes belongs to the owner of the folder above, so that the server can read it.
Everything here waits for the disk: for threads, the start, and commands. Problems are
:class:`KeyStoreError`.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from mailsrv.address import AddressError, parse_domain
from mailsrv.disk import give_to_owner, replace_file, sync_directory
from mailsrv.mailauth.keys import (
    Algorithm,
    KeyProblem,
    SigningKey,
    format_private_key,
    is_selector,
    new_private_key,
    parse_private_key,
)
from mailsrv.mailauth.settings import DkimSettings

STATES_FILE = "states.json"
_SUFFIX = ".pem"
_MAX_OCTETS = 65_536
_MAX_KEYS = 1_000
"""Of a domain."""
_BESIDE = re.compile(r"\..*")


class KeyStoreError(Exception):
    """The text is a sentence for the administrator."""


class KeyState(enum.Enum):
    """Where a key is in its life."""

    PUBLISHED = "published"
    ACTIVE = "active"
    RETIRED = "retired"


SigningKeys = Mapping[str, tuple[SigningKey, ...]]
"""The active keys of each domain, in the order their signatures get: RSA first, which every verifier knows."""


@frozen
class StoredKey:
    """A key with what is known of it."""

    key: SigningKey
    state: KeyState
    created: int
    """Seconds since the epoch; 0: not known."""


def key_folder(settings: DkimSettings, state_dir: str) -> str:
    """Where the keys are."""
    return settings.key_dir or os.path.join(state_dir, "dkim")


def load_signing_keys(settings: DkimSettings, state_dir: str) -> SigningKeys:
    """The active keys of all domains. Raises KeyStoreError where one cannot be used."""
    store = KeyStore(key_folder(settings, state_dir))
    found: dict[str, tuple[SigningKey, ...]] = {}
    for domain in store.domains():
        active = [stored.key for stored in store.keys(domain) if stored.state is KeyState.ACTIVE]
        if active:
            found[domain] = tuple(sorted(active, key=lambda key: (key.algorithm is not Algorithm.RSA, key.selector)))
    return found


class KeyStore:
    """The keys in a folder, which need not exist."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def domains(self) -> tuple[str, ...]:
        """Those with a folder of their own."""
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise KeyStoreError(f"{self.folder} cannot be read: {error.strerror}") from error
        return tuple(name for name in names if _is_domain(name) and os.path.isdir(os.path.join(self.folder, name)))

    def path(self, domain: str, selector: str) -> str:
        """Of a key's file."""
        return os.path.join(self.folder, domain, selector + _SUFFIX)

    def keys(self, domain: str) -> tuple[StoredKey, ...]:
        """All keys of a domain, oldest first."""
        folder = os.path.join(self.folder, domain)
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise KeyStoreError(f"{folder} cannot be read: {error.strerror}") from error
        states = self._states(domain)
        found = []
        for name in names:
            selector = name.removesuffix(_SUFFIX)
            if selector == name or _BESIDE.match(name):
                continue
            if not is_selector(selector):
                raise KeyStoreError(f"{os.path.join(folder, name)}: {selector!r} cannot be a selector")
            state, created = states.get(selector, (KeyState.ACTIVE, 0))
            found.append(StoredKey(SigningKey(domain, selector, self._read_key(domain, selector)), state, created))
        if len(found) > _MAX_KEYS:
            raise KeyStoreError(f"{folder} has more than {_MAX_KEYS} keys")
        return tuple(sorted(found, key=lambda stored: (stored.created, stored.key.selector)))

    def new(
        self, domain: str, selector: str, algorithm: Algorithm, *, bits: int, state: KeyState, seconds: int
    ) -> StoredKey:
        """Make a key. ``domain`` is canonical, ``selector`` is one."""
        private = new_private_key(algorithm, bits)
        self._make_folder(domain)
        with self._locked(domain):
            path = self.path(domain, selector)
            states = self._states(domain)
            if os.path.lexists(path) or selector in states:
                raise KeyStoreError(f"{domain} has a key with the selector {selector} already")
            # The state first: a key file alone would count as active.
            states[selector] = (state, seconds)
            self._write_states(domain, states)
            try:
                self._write(path, format_private_key(private))
            except KeyStoreError:
                del states[selector]
                self._write_states(domain, states)
                raise
        return StoredKey(SigningKey(domain, selector, private), state, seconds)

    def set_state(self, domain: str, selector: str, state: KeyState) -> None:
        """Of a key that is there."""
        with self._locked(domain):
            states = self._states(domain)
            _, created = states.get(selector, (KeyState.ACTIVE, 0))
            states[selector] = (state, created)
            self._write_states(domain, states)

    # Files

    def _read_key(self, domain: str, selector: str) -> Any:
        path = self.path(domain, selector)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
                if mode & 0o077:
                    raise KeyStoreError(f"{path} may be read by others (mode {mode:04o}); chmod 600 it")
                octets = file.read(_MAX_OCTETS)
        except OSError as error:
            raise KeyStoreError(f"{path} cannot be read: {error.strerror}") from error
        try:
            return parse_private_key(octets)
        except KeyProblem as problem:
            raise KeyStoreError(f"{path} {problem}") from problem

    def _states(self, domain: str) -> dict[str, tuple[KeyState, int]]:
        path = os.path.join(self.folder, domain, STATES_FILE)
        try:
            with open(path, encoding="utf-8") as file:
                table = json.loads(file.read(_MAX_OCTETS * 4))
            return {
                selector: (KeyState(entry["state"]), int(entry.get("created", 0))) for selector, entry in table.items()
            }
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise KeyStoreError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise KeyStoreError(f"{path} does not say the states of keys") from error

    def _write_states(self, domain: str, states: Mapping[str, tuple[KeyState, int]]) -> None:
        table = {selector: {"state": state.value, "created": created} for selector, (state, created) in states.items()}
        text = json.dumps(table, indent=2, sort_keys=True) + "\n"
        self._write(os.path.join(self.folder, domain, STATES_FILE), text.encode("ascii"))

    def _make_folder(self, domain: str) -> None:
        folder = os.path.join(self.folder, domain)
        missing = []
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        try:
            for each in reversed(missing):
                os.mkdir(each, 0o700)
                give_to_owner(each, os.path.dirname(each))
                sync_directory(os.path.dirname(each))
        except OSError as error:
            raise KeyStoreError(f"{missing[0]} cannot be made: {error.strerror}") from error

    def _write(self, path: str, octets: bytes) -> None:
        folder = os.path.dirname(path)
        try:
            replace_file(path, octets, prepare=lambda descriptor: give_to_owner(descriptor, folder))
        except OSError as error:
            raise KeyStoreError(f"{path} cannot be written: {error.strerror}") from error

    @contextlib.contextmanager
    def _locked(self, domain: str) -> Iterator[None]:
        """One command at a time: the folder itself is locked."""
        folder = os.path.join(self.folder, domain)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise KeyStoreError(f"{folder} cannot be read: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _is_domain(name: str) -> bool:
    try:
        return parse_domain(name) == name
    except AddressError:
        return False
