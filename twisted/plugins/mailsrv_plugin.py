"""Makes ``twistd mailsrv`` known. This folder belongs to Twisted: it has no ``__init__.py``, on purpose."""

from twisted.application.service import ServiceMaker

mailsrv = ServiceMaker(
    "mailsrv", "mailsrv.tap", "A complete mail server: SMTP, submission, LMTP, IMAP, POP3", "mailsrv"
)
