"""After twistd's ``--uid``/``--gid``: make sure that root is really gone (RELIABILITY 8.1).

twistd binds as root (``privilegedStartService``), then gives up its user id. What could go wrong is
silent: a saved user id, supplementary groups, capabilities kept by ``--euid``. So it is tried here.
"""

from __future__ import annotations

import os
import pwd

from twisted.logger import Logger

from mailsrv.app.server import CannotStart

_log = Logger()


class PrivilegesRemain(CannotStart):
    """The process was to give up root and has not. It must not serve."""


class Privileges:
    """Those the process began with. To be made before any are given up."""

    def __init__(self, run_as: tuple[int, int] | None) -> None:
        """``run_as``: a user and a group that twistd cannot become."""
        self._run_as = run_as
        self._started_as_root = os.geteuid() == 0

    def give_up(self) -> None:
        """Raises :class:`PrivilegesRemain` where some are left."""
        if self._run_as is not None:
            become(*self._run_as)
        check_dropped(self._started_as_root)


def may_use(folder: str, run_as: tuple[int, int] | None) -> bool:
    """Whether the user the server is going to run as (None: the present one) can read and write there.

    Tried by a child process that becomes this user: folders above, groups and access lists count.
    """
    wanted = os.R_OK | os.W_OK | os.X_OK
    if run_as is None:
        return os.access(folder, wanted, effective_ids=True)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            become(*run_as)
            status = 0 if os.access(folder, wanted) else 1
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def become(uid: int, gid: int) -> None:
    """Become this user for good: with all of its groups, or none where it has no passwd entry (containers)."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        os.setgroups([])
    else:
        os.initgroups(name, gid)
    os.setgid(gid)
    os.setuid(uid)


def check_dropped(started_as_root: bool) -> None:
    """Raise :class:`PrivilegesRemain` if a process that is no longer root could become it again."""
    if os.geteuid() == 0:
        if os.getuid() == 0:
            _log.warn("running as root: use systemd's sockets, or twistd --uid and --gid")
            return
        raise PrivilegesRemain("the effective user is still root; do not use twistd --euid")
    if not started_as_root:
        return
    try:
        os.setuid(0)
    except PermissionError:
        groups = set(os.getgroups()) - {os.getgid()}
        if 0 in groups:
            raise PrivilegesRemain("the process is still in group root") from None
        return
    raise PrivilegesRemain("the process can become root again; do not use twistd --euid")
