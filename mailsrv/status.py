"""Enhanced mail system status codes (RFC 3463; registry: RFC 5248).

Codes are values with three numbers. The ones mailsrv uses have names here, so that a reader
sees a meaning and not ``5.1.1``. Nothing in this module depends on a protocol.
"""

from __future__ import annotations

from attrs import frozen


@frozen(order=True)
class EnhancedStatus:
    """``class.subject.detail`` of RFC 3463 section 2; class 2 success, 4 temporary, 5 permanent."""

    kind: int
    subject: int
    detail: int

    def __str__(self) -> str:
        return f"{self.kind}.{self.subject}.{self.detail}"

    @property
    def is_temporary(self) -> bool:
        """Whether the same attempt may succeed later (class 4)."""
        return self.kind == 4

    def as_temporary(self) -> EnhancedStatus:
        """The same subject and detail in class 4."""
        return EnhancedStatus(4, self.subject, self.detail)


# 2.x.x: success
OK = EnhancedStatus(2, 0, 0)
SENDER_OK = EnhancedStatus(2, 1, 0)
RECIPIENT_OK = EnhancedStatus(2, 1, 5)
CANNOT_VERIFY = EnhancedStatus(2, 5, 2)
MESSAGE_ACCEPTED = EnhancedStatus(2, 6, 0)
AUTHENTICATED = EnhancedStatus(2, 7, 0)

# x.1.x: addresses
BAD_MAILBOX = EnhancedStatus(5, 1, 1)
BAD_DOMAIN = EnhancedStatus(5, 1, 2)
BAD_RECIPIENT_SYNTAX = EnhancedStatus(5, 1, 3)
AMBIGUOUS_MAILBOX = EnhancedStatus(5, 1, 4)
BAD_SENDER_SYNTAX = EnhancedStatus(5, 1, 7)
BAD_SENDER = EnhancedStatus(5, 1, 8)

# x.2.x: mailboxes
MAILBOX_FULL = EnhancedStatus(5, 2, 2)
MESSAGE_TOO_LARGE_FOR_MAILBOX = EnhancedStatus(5, 2, 3)

# x.3.x: the mail system
SYSTEM_ERROR = EnhancedStatus(4, 3, 0)
SYSTEM_FULL = EnhancedStatus(4, 3, 1)
SHUTTING_DOWN = EnhancedStatus(4, 3, 2)
MESSAGE_TOO_LARGE = EnhancedStatus(5, 3, 4)
PRIORITY_CHANGED = EnhancedStatus(2, 3, 6)

# x.4.x: routing
ROUTING_LOOP = EnhancedStatus(5, 4, 6)
TIMED_OUT = EnhancedStatus(4, 4, 2)

# x.5.x: protocol
PROTOCOL_ERROR = EnhancedStatus(5, 5, 0)
BAD_SEQUENCE = EnhancedStatus(5, 5, 1)
BAD_SYNTAX = EnhancedStatus(5, 5, 2)
TOO_MANY_RECIPIENTS = EnhancedStatus(4, 5, 3)
BAD_ARGUMENTS = EnhancedStatus(5, 5, 4)
LINE_TOO_LONG = EnhancedStatus(5, 5, 6)

# x.6.x: content
BINARY_NOT_SUPPORTED = EnhancedStatus(5, 6, 3)
NON_ASCII_NOT_SUPPORTED = EnhancedStatus(5, 6, 7)
UTF8_REPLY_NOT_PERMITTED = EnhancedStatus(2, 6, 8)

# x.7.x: security and policy
NOT_AUTHORISED = EnhancedStatus(5, 7, 1)
EXPANSION_PROHIBITED = EnhancedStatus(5, 7, 2)
TEMPORARY_AUTHENTICATION_FAILURE = EnhancedStatus(4, 7, 0)
POLICY_DELAY = EnhancedStatus(4, 7, 1)
AUTHENTICATION_REQUIRED = EnhancedStatus(5, 7, 0)
BAD_CREDENTIALS = EnhancedStatus(5, 7, 8)
ENCRYPTION_NEEDED = EnhancedStatus(5, 7, 10)
ENCRYPTION_REQUIRED = EnhancedStatus(5, 7, 11)
