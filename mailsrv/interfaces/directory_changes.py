"""Directories that notice by themselves when something in them changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zope.interface import Interface

from mailsrv.address import Address


class IFollowDirectory(Interface):
    """A directory that can be followed."""

    def follow_changes(changed: Callable[[Sequence[Address] | None], None]) -> Callable[[], None]:
        """Forget from now on what changes, and tell; answers with the function that ends it.

        ``changed`` is told, in the reactor thread, the addresses (canonical ones and others) of users and lists that
        are new, different or gone; None: anything may have changed. A change may be told twice, or missed.
        """
