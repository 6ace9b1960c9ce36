"""What is asked of a directory: one search (RFC 4511 4.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from mailsrv.directory.ldap.filters import Filter, present


@frozen
class Search:
    """Entries below (or at) ``base`` that fit a filter."""

    base: str
    what: Filter
    attributes: Sequence[str]
    """Those that are wanted of each."""
    limit: int
    """At most so many entries are answered."""
    whole_tree: bool = True
    """False: the entry at ``base`` alone."""
    controls: tuple[bytes, ...] = ()
    """Encoded."""
    is_paged: bool = False
    """There are many, of which few are wanted: page by page (RFC 2696). Samba does not heed the limit of a search."""


def entry_at(dn: str, attributes: Sequence[str], what: Filter | None = None) -> Search:
    """The entry of this name, if it fits; "" is the root entry, which tells of the server (RFC 4512 5.1)."""
    return Search(dn, what or present("objectClass"), attributes, limit=1, whole_tree=False)
