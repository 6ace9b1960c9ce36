"""The change bus: a hint that a mailbox has something newer, never the news itself.

Readers ask the index for what is newer than the mod-sequence they know; a lost notice is caught
by the next command and by a slow poll. So notices may coalesce and may arrive twice.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from zope.interface import Interface


@frozen
class ChangeNotice:
    """Something in ``account`` changed: a mailbox up to ``mod_seq``, or (``mailbox_id`` 0) the list of mailboxes."""

    account: str
    mailbox_id: int
    mod_seq: int


class IChangeBus(Interface):
    """Tells the sessions of this process, and through them the other workers. Reactor thread only."""

    def publish(notice: ChangeNotice) -> None:
        """Tell everybody else: listeners here at once, other workers as soon as their sockets take it."""

    def listen(account: str, listener: Callable[[ChangeNotice], None]) -> Callable[[], None]:
        """Call ``listener`` for each notice about ``account``; answers with the function that ends it."""
