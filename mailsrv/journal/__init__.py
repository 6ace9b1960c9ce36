"""The delivery journal: group commit, replay, apply, checkpoint, and the spool of large messages.

What is promised stands in :mod:`mailsrv.interfaces.journal` and :mod:`mailsrv.interfaces.content`;
:class:`Journal` keeps it. Order of reading: ``octets``, ``delivery``, ``format`` and ``segment`` (octets),
``live_list`` and ``slot`` (files), ``commit``, ``apply``, ``keeper`` (the three stages), ``replay`` and
``recovery``, ``answers`` and ``journal``, ``ending``.
"""

from mailsrv.journal.journal import Journal
from mailsrv.journal.octets import FormatError
from mailsrv.journal.recovery import Recovery, recover_all_slots
from mailsrv.journal.retry import RetriedDelivery
from mailsrv.journal.settings import JournalSettings
from mailsrv.journal.status import JournalStatus
from mailsrv.journal.stuck import StuckDelivery

__all__ = [
    "FormatError",
    "Journal",
    "JournalSettings",
    "JournalStatus",
    "Recovery",
    "RetriedDelivery",
    "StuckDelivery",
    "recover_all_slots",
]
