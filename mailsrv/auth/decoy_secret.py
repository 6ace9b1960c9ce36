"""The secret behind the challenges that unknown users get (R-AUTH-4): a file in the state folder, made at first need.

The same for all workers and after a restart, or a second look would tell who exists.
"""

from __future__ import annotations

import os
import secrets

from twisted.logger import Logger

from mailsrv.disk import IDisk, RealDisk, create_whole, make_directories, opened

SECRET_OCTETS = 32
_log = Logger()


def secret_path(state_dir: str) -> str:
    """The file of a server."""
    return os.path.join(state_dir, "login.secret")


def open_decoy_secret(state_dir: str, disk: IDisk | None = None) -> bytes:
    """Read or make it; waits for the disk. Where it cannot be had it is logged, and one of this process stands in."""
    disk = disk or RealDisk()
    path = secret_path(state_dir)
    try:
        make_directories(disk, state_dir)
        if disk.status(path) is None:
            create_whole(disk, path, secrets.token_bytes(SECRET_OCTETS))
            disk.sync_directory(state_dir)
        with opened(disk.open(path)) as file:
            octets = file.read(0, SECRET_OCTETS)
        if len(octets) == SECRET_OCTETS:
            return octets
        reason = "it is too short"
    except OSError as error:
        reason = error.strerror or "input/output error"
    _log.error("{path} cannot be used ({reason}): who exists could be found out by SCRAM", path=path, reason=reason)
    return secrets.token_bytes(SECRET_OCTETS)
