"""How a directory over LDAP is, in words for ``mailsrvctl status``."""

from __future__ import annotations

from collections.abc import Sequence

from mailsrv.directory.ldap.servers import LdapServer
from mailsrv.interfaces.directory_state import DirectoryServerState, DirectoryState


def describe(
    name: str, servers: Sequence[LdapServer], *, answers: int, oldest_answer_seconds: float | None, now: float
) -> DirectoryState:
    """``now`` by the servers' clock. The circuit is open where none of them is up."""
    told = tuple(
        DirectoryServerState(
            server.uri,
            server.is_up,
            0.0 if server.is_up else max(0.0, now - server.down_since),
            "" if server.is_up else server.cause,
        )
        for server in servers
    )
    is_out = not any(server.is_up for server in told)
    return DirectoryState(
        name,
        is_out,
        # It is out since the last of them went down.
        min((server.down_seconds for server in told), default=0.0) if is_out else 0.0,
        ("no server is up" if told else "no server is known") if is_out else "",
        told,
        answers,
        oldest_answer_seconds if is_out else None,
    )
