"""Makes ``twistd mailsrv`` known. This folder belongs to Twisted: it has no ``__init__.py``, on purpose."""

from typing import Any

from twisted.application.service import ServiceMaker

from mailsrv.app.signals import hold_signals


class MailServiceMaker(ServiceMaker):
    """Asked for its options when twistd is told to run mailsrv and nothing else: the first moment that is ours."""

    @property
    def options(self) -> Any:
        """The class of the options; importing it takes most of the time that a start takes."""
        hold_signals()
        return super().options


mailsrv = MailServiceMaker(
    "mailsrv", "mailsrv.tap", "A complete mail server: SMTP, submission, LMTP, IMAP, POP3", "mailsrv"
)
