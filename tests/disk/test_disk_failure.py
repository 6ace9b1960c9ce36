"""What a peer is told of an error of the disk."""

from __future__ import annotations

import errno

import apsw
import pytest

from mailsrv.disk.failure import as_mail_error
from mailsrv.errors import InsufficientStorage, MailError, Unavailable


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "full"), InsufficientStorage),
        (OSError(errno.EDQUOT, "full"), InsufficientStorage),
        (OSError(errno.EFBIG, "full"), InsufficientStorage),
        (apsw.FullError("full"), InsufficientStorage),
        (OSError(errno.EIO, "secret"), Unavailable),
        (apsw.BusyError("secret"), Unavailable),
        (ValueError("secret"), Unavailable),
    ],
)
def test_r_dur_5_no_room_is_told_as_such_and_the_reason_to_nobody(error: Exception, expected: type[MailError]) -> None:
    told = as_mail_error(error)
    assert type(told) is expected
    assert told.cause == repr(error)
    assert told.status.is_temporary
    assert "secret" not in told.text


def test_what_has_an_answer_keeps_it() -> None:
    error = Unavailable(cause="x")
    assert as_mail_error(error) is error
