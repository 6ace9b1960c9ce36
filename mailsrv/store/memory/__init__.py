"""A mail store that lives in memory: the twin of the Maildir store for tests and for trying out.

Everything of :class:`~mailsrv.interfaces.mailbox.IMailStore` is there, and every Deferred it
answers with has fired already. Nothing survives the process. :class:`MemoryApplier` delivers
into it from a journal.
"""

from mailsrv.store.memory.account import MemoryAccount
from mailsrv.store.memory.applier import MemoryApplier
from mailsrv.store.memory.mail_store import MemoryMailStore
from mailsrv.store.memory.mailbox import MemoryMailbox

__all__ = ["MemoryAccount", "MemoryApplier", "MemoryMailStore", "MemoryMailbox"]
