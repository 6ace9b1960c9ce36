"""The directories as commands ask them: in place, for no time passes and no thread is needed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import execute
from twisted.internet.task import Clock

from mailsrv.config.schema import Settings
from mailsrv.directory.build import make_directory
from mailsrv.directory.passwords.hashing import HashingPool
from mailsrv.dns.blocking import make_blocking_resolver
from mailsrv.interfaces.directory import IDirectory


def make_directory_in_place(
    settings: Settings, *, tells_groups: bool = False, clock: Clock | None = None
) -> IDirectory:
    """All that are configured. What they answer with has fired when they return; each question waits.

    ``tells_groups`` as of :func:`~mailsrv.directory.build.make_directory`; ``clock`` where a command tells the time.
    """
    time: Any = clock if clock is not None else Clock()
    return make_directory(
        settings.directory,
        hashing=HashingPool(settings.passwords, reactor=time, run_in_thread=execute),
        clock=time,
        run_in_thread=execute,
        default_domain=settings.auth.default_domain,
        tells_groups=tells_groups,
        resolver=make_blocking_resolver(settings.dns),
    )
