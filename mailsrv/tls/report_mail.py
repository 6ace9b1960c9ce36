"""A TLS report as a message (RFC 8460 5.3): multipart/report with the gzipped JSON. No I/O."""

from __future__ import annotations

import gzip
from datetime import datetime
from email.message import EmailMessage, MIMEPart
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from typing import Any

from mailsrv.address import Address
from mailsrv.tls.reports import Report


def compress(report: Report) -> bytes:
    """As ``application/tlsrpt+gzip``."""
    return gzip.compress(report.content, mtime=0)


def make_message(report: Report, submitter: str, contact: Address, recipient: Address, now: datetime) -> bytes:
    """The whole message, with CRLF. ``submitter`` is the domain that sends the report."""
    message = EmailMessage(policy=SMTP)
    message["From"] = str(contact)
    message["To"] = str(recipient)
    message["Date"] = format_datetime(now)
    message["Message-ID"] = make_msgid(domain=submitter)
    message["Subject"] = f"Report Domain: {report.domain} Submitter: {submitter} Report-ID: <{report.report_id}>"
    message["TLS-Report-Domain"] = report.domain
    message["TLS-Report-Submitter"] = submitter
    # RFC 8460 5.3, RFC 8689 5: the report about broken TLS has to arrive in spite of it.
    message["TLS-Required"] = "No"
    message["Auto-Submitted"] = "auto-generated"
    message.add_header("Content-Type", "multipart/report", **{"report-type": "tlsrpt"})
    text: Any = MIMEPart(policy=SMTP)
    text.set_content(
        f"This is an aggregate TLS report of {submitter} about {report.domain}.\n", charset="utf-8", cte="7bit"
    )
    attached: Any = MIMEPart(policy=SMTP)
    attached.set_content(
        compress(report),
        maintype="application",
        subtype="tlsrpt+gzip",
        disposition="attachment",
        filename=f"{submitter}!{report.domain}!{report.begin}!{report.end}!{report.report_id}.json.gz",
    )
    message.attach(text)
    message.attach(attached)
    return message.as_bytes()
