"""What a peer is told of an error of the disk."""

from __future__ import annotations

import errno

from mailsrv.errors import InsufficientStorage, MailError, Unavailable


def storage_error(error: OSError) -> MailError:
    """452 where there is no room (R-DUR-5), otherwise a temporary failure; the reason is for our log."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return InsufficientStorage(cause=str(error))
    return Unavailable(cause=str(error))
