"""What a peer is told of an error of the disk, or of SQLite on it."""

from __future__ import annotations

import errno

import apsw

from mailsrv.errors import InsufficientStorage, MailError, Unavailable

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def as_mail_error(error: Exception) -> MailError:
    """452 where there is no room (R-DUR-5), otherwise a temporary failure; the reason is for our log."""
    if isinstance(error, MailError):
        return error
    if isinstance(error, apsw.FullError) or (isinstance(error, OSError) and error.errno in _NO_ROOM):
        return InsufficientStorage(cause=repr(error))
    return Unavailable(cause=repr(error))
