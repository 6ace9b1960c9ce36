"""The secrets of rewritten senders: a file in the state folder, made at first use, mode 0600.

Each line is the time a secret was made (seconds since the epoch) and the secret in hexadecimal, the newest first.
A start adds a new one when the newest is old, and forgets those whose addresses have all expired. A secret
signs only when it is an hour old: by then every worker has read it.

Read and written with short waits for the disk; called where the server starts or is reloaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import secrets
from collections.abc import Iterator, Sequence

from attrs import frozen
from twisted.logger import Logger

from mailsrv.delivery.settings import DeliverySettings
from mailsrv.disk import IDisk, RealDisk, give_to_owner, make_directories, opened, write_durably
from mailsrv.routing.srs import SenderRewriting

SECRET_OCTETS = 32
_SETTLED_SECONDS = 3600.0
_DAY_SECONDS = 86400.0
_FILE_OCTETS = 65536
_log = Logger()


@frozen
class _Secret:
    made: float
    octets: bytes


def secret_path(state_dir: str) -> str:
    """The file of a server."""
    return os.path.join(state_dir, "srs.secret")


def open_rewriting(
    settings: DeliverySettings, state_dir: str, now: float, disk: IDisk | None = None
) -> SenderRewriting | None:
    """What turns senders into ours and back; None where the secrets cannot be had (it is logged) or SRS is off.

    Off, with a file there: bounces to what was rewritten before still come back (the settings decide who rewrites).
    """
    path = secret_path(state_dir)
    disk = disk or RealDisk()
    try:
        if not settings.srs and disk.status(path) is None:
            return None
        make_directories(disk, state_dir)
        found = _update(settings, path, now, disk)
    except OSError as error:
        _log.error(
            "{path} cannot be used ({reason}): forwarded mail keeps its sender", path=path, reason=error.strerror
        )
        return None
    return SenderRewriting(_order(found, now), settings.srs_days)


def read_rewriting(settings: DeliverySettings, state_dir: str, now: float) -> SenderRewriting | None:
    """As :func:`open_rewriting`, for looking only: nothing is written, None where there is no file to be read."""
    try:
        found = _read(RealDisk(), secret_path(state_dir))
    except OSError:
        return None
    return SenderRewriting(_order(found, now), settings.srs_days) if found else None


def _order(found: Sequence[_Secret], now: float) -> tuple[bytes, ...]:
    """The signing one first: the newest that is old enough to be known everywhere, else the oldest."""
    settled = [secret for secret in found if secret.made <= now - _SETTLED_SECONDS]
    first = settled[0] if settled else found[-1]
    return (first.octets, *(secret.octets for secret in found if secret is not first))


def _update(settings: DeliverySettings, path: str, now: float, disk: IDisk) -> Sequence[_Secret]:
    """The secrets of the file, after the rotation. One process at a time."""
    with _locked(f"{path}.lock"):
        found = list(_read(disk, path)) if disk.status(path) is not None else []
        kept = found
        if not found or found[0].made < now - settings.srs_rotation_days * _DAY_SECONDS:
            kept = [_Secret(now, secrets.token_bytes(SECRET_OCTETS)), *found]
        # The follower of a secret ends its use; its addresses live for some days after that.
        lifetime = (settings.srs_days + 1) * _DAY_SECONDS + _SETTLED_SECONDS
        kept = [
            kept[0],
            *(secret for newer, secret in itertools.pairwise(kept) if newer.made > now - lifetime),
        ]
        if kept != found:
            lines = "".join(f"{int(secret.made)} {secret.octets.hex()}\n" for secret in kept)
            write_durably(disk, path, lines.encode("ascii"))
            give_to_owner(path, os.path.dirname(path))
    return kept


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        give_to_owner(path, os.path.dirname(path))
        yield
    finally:
        os.close(descriptor)


def _read(disk: IDisk, path: str) -> Sequence[_Secret]:
    with opened(disk.open(path)) as file:
        octets = file.read(0, _FILE_OCTETS)
    found = []
    for line in octets.split(b"\n"):
        made, _, text = line.partition(b" ")
        try:
            secret = _Secret(int(made), bytes.fromhex(text.decode("ascii")))
        except ValueError:
            if line:
                _log.error("{path} has a line that is no secret: it is passed over", path=path)
            continue
        if len(secret.octets) >= SECRET_OCTETS:
            found.append(secret)
    return found
