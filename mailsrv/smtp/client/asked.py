"""The commands a server owes a reply to, and how long it may take for it."""

from __future__ import annotations

import enum

from mailsrv.smtp.client.events import Phase


class Asked(enum.Enum):
    """A command whose reply is owed."""

    # Looked up for every reply; the hash of an Enum is computed from its name, in Python.
    __hash__ = object.__hash__

    GREETING = "greeting"
    EHLO = "EHLO"
    HELO = "HELO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    RSET = "RSET"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CHUNK = "BDAT"
    LAST_CHUNK = "BDAT LAST"
    END = "end of data"
    EMPTY_END = "end of no data"
    QUIT = "QUIT"


INTERMEDIATE = frozenset({(Asked.AUTH, 334), (Asked.DATA, 354)})

PHASES: dict[Asked, Phase] = {
    **dict.fromkeys(Asked, Phase.COMMAND),
    Asked.GREETING: Phase.GREETING,
    Asked.DATA: Phase.DATA_START,
    Asked.CHUNK: Phase.DATA_END,
    Asked.LAST_CHUNK: Phase.DATA_END,
    Asked.END: Phase.DATA_END,
    Asked.EMPTY_END: Phase.DATA_END,
    Asked.QUIT: Phase.QUIT,
}
