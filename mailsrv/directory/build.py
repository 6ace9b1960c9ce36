"""Directories from their settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime

from mailsrv.address import parse_domain
from mailsrv.directory.alias_file import AliasFile
from mailsrv.directory.chain import DirectoryChain
from mailsrv.directory.classic_aliases import ClassicAliases
from mailsrv.directory.passwd_file import PasswdFile
from mailsrv.directory.passwords.hashing import HashingPool
from mailsrv.directory.settings import DirectorySettings, DirectoryType
from mailsrv.directory.watched_file import FileWatching
from mailsrv.interfaces.directory import IDirectory
from mailsrv.interfaces.resolver import IResolver
from mailsrv.threads import RunInThread


def make_directory(
    settings: Sequence[DirectorySettings],
    *,
    hashing: HashingPool,
    clock: IReactorTime,
    run_in_thread: RunInThread,
    default_domain: str = "",
    tells_groups: bool = False,
    resolver: Callable[[], IResolver] | None = None,
) -> IDirectory:
    """All configured directories as one, asked in their order. Reads nothing yet.

    ``tells_groups``: users who log in come with their groups, also where that costs a question of its own.
    ``resolver``: whom to ask for servers that the DNS names.
    """
    directories: list[IDirectory] = []
    # The first of them spends the time that an unknown user's log-in takes.
    with_users: list[IDirectory] = []
    for one in settings:
        watching = FileWatching(clock, run_in_thread, one.check_seconds, one.deadline_seconds, one.max_octets)
        if one.type is DirectoryType.ALIAS_FILE:
            directories.append(AliasFile(one.path, watching, default_domain=default_domain))
            continue
        if one.type is DirectoryType.ALIASES:
            domain = parse_domain(one.domain) if one.domain else ""
            directories.append(ClassicAliases(one.path, watching, domain=domain, default_domain=default_domain))
            continue
        if one.type is DirectoryType.LDAP:
            # With ldap3, which takes those time and memory who have no such directory.
            from mailsrv.directory.ldap.build import make_ldap_directory

            ldap = make_ldap_directory(
                one,
                clock=clock,
                default_domain=default_domain,
                tells_groups=tells_groups,
                resolver=resolver,
                hashing=hashing,
            ).directory
            directories.append(ldap)
            with_users.append(ldap)
            continue
        passwd_file = PasswdFile(one.path, watching, hashing=hashing, default_domain=default_domain)
        directories.append(passwd_file)
        with_users.append(passwd_file)
    return DirectoryChain(directories, for_unknown=with_users[0] if with_users else None, with_users=with_users)
