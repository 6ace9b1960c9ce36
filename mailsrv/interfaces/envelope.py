"""What an SMTP envelope says beyond its addresses: the parameters that travel with a message.

They come with MAIL and RCPT, are journaled with the message, and go out again with the next MAIL
and RCPT where the next hop offers the extension.
"""

from __future__ import annotations

import enum

from attrs import frozen


class BodyType(enum.Enum):
    """What the content is made of (RFC 6152, RFC 3030)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT = "8BITMIME"
    BINARY = "BINARYMIME"
    """Any octets; only BDAT carries it, and lines need not end with CRLF."""


class Notify(enum.IntFlag):
    """NOTIFY of RCPT (RFC 3461 4.1). NOTIFY_UNSAID: not given, which means failures and, if we like, delays."""

    SUCCESS = 1
    FAILURE = 2
    DELAY = 4
    NEVER = 8
    """Alone."""


NOTIFY_UNSAID = Notify(0)


class ReturnContent(enum.Enum):
    """RET of MAIL (RFC 3461 4.3): what of the message a failure notice brings back."""

    FULL = "FULL"
    HEADERS = "HDRS"


@frozen
class DeliverBy:
    """BY of MAIL (RFC 2852), with the time as an instant."""

    deadline: int
    """Seconds since the epoch."""
    must_return: bool = False
    """Mode R: past the deadline the message goes back. Else (N) only a delay notice is sent and it travels on."""
    is_traced: bool = False


@frozen
class RecipientParameters:
    """Of RCPT."""

    notify: Notify = NOTIFY_UNSAID
    original_recipient: str = ""
    """ORCPT, decoded from xtext (RFC 3461 4.2): ``rfc822;alice@example.org``; "" where none was given."""


@frozen
class EnvelopeParameters:
    """Of MAIL: what has to be known for as long as the message travels."""

    body: BodyType = BodyType.SEVEN_BIT
    is_smtputf8: bool = False
    return_content: ReturnContent | None = None
    envelope_id: str = ""
    """ENVID, decoded from xtext (RFC 3461 4.4)."""
    requires_tls: bool = False
    """REQUIRETLS (RFC 8689): only over verified TLS, only to servers that offer it too."""
    priority: int = 0
    """MT-PRIORITY (RFC 6710): -9 to 9."""
    deliver_by: DeliverBy | None = None
    hold_until: int | None = None
    """FUTURERELEASE (RFC 4865): not before this second since the epoch."""
