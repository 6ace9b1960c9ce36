"""What every protocol's factory promises the composition: an orderly end."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import Interface


class IDrainable(Interface):
    """A factory whose sessions can be told that the server stops (R-STOP-1)."""

    def drain() -> Deferred[None]:
        """Take no new session, let each finish what is in flight, tell it (421, BYE, -ERR) and close it.

        Fires when the last session is gone; fires at once where there is none. Calling it again
        answers with a Deferred that fires at the same moment. Sets no deadline of its own: the
        caller does, with :meth:`abort_all`.
        """

    def abort_all() -> None:
        """Close every session at once, without waiting for what is in flight or for slow peers."""
