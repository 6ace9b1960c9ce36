"""Filters: code that is asked at a phase of a mail transaction and answers with a verdict.

A filter sees frozen views, never a transport. It may answer at once or with a Deferred. What
it asks to change is collected and applied atomically at the end (R-FILT-1).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from mailsrv.address import Address
from mailsrv.status import NOT_AUTHORISED, POLICY_DELAY, EnhancedStatus


class Phase(enum.Enum):
    """When a filter is asked, in the order of a session."""

    CONNECT = "connect"
    HELO = "helo"
    MAIL = "mail"
    RCPT = "rcpt"
    HEADERS = "headers"
    MESSAGE = "message"


@frozen
class Accept:
    """No objection; the next filter is asked."""


@frozen
class Reject:
    """Refuse for good: 550 at RCPT and after the data, 554 at connect."""

    text: str = "Refused by policy"
    status: EnhancedStatus = NOT_AUTHORISED


@frozen
class Defer:
    """Refuse for now (4xx)."""

    text: str = "Try again later"
    status: EnhancedStatus = POLICY_DELAY


@frozen
class Discard:
    """Say 250 and deliver to nobody (at RCPT: not to this recipient). ``reason`` goes to the log."""

    reason: str = ""


@frozen
class AddHeader:
    """Put a field above the message's header section. Name and value are checked: no CR, LF, NUL."""

    name: str
    value: str


@frozen
class Redirect:
    """Deliver to these recipients instead (at RCPT: instead of this one)."""

    recipients: tuple[Address, ...]


Verdict = Accept | Reject | Defer | Discard | AddHeader | Redirect
Answer = Verdict | Sequence[Verdict] | None
"""None is Accept; a sequence is for several edits."""


@frozen
class SessionView:
    """What is known of an SMTP or LMTP session."""

    connection_id: str
    service: str
    """``mx``, ``submission`` or ``lmtp``."""
    client_address: str
    """Textual IP address; "" for a Unix socket."""
    client_port: int = 0
    local_address: str = ""
    helo: str = ""
    is_extended: bool = False
    """EHLO (or LHLO), not HELO."""
    tls_version: str = ""
    """"" without TLS, else e.g. ``TLSv1.3``."""
    tls_cipher: str = ""
    account: Address | None = None
    """Who is authenticated."""


@frozen
class TransactionView:
    """A mail transaction so far."""

    transaction_id: str
    reverse_path: Address | None
    """None is the null reverse-path."""
    recipients: tuple[Address, ...] = ()
    """Accepted so far."""
    recipient: Address | None = None
    """The one that is asked about, in phase RCPT."""
    is_smtputf8: bool = False
    is_8bit: bool = False
    size_declared: int | None = None


@frozen
class MessageView:
    """The message: its header section (phase HEADERS), or all of it (phase MESSAGE)."""

    header: bytes = field(repr=False)
    """Header section with the empty line that ends it; cut at the header limit."""
    size_octets: int = 0
    octets: bytes | None = field(default=None, repr=False)
    """The whole message in phase MESSAGE where it is small enough to be in memory."""
    path: str = ""
    """The file it is in otherwise."""


class IFilter(Interface):
    """One filter. A twisted plugin (``twisted/plugins/``) that provides this is found by its ``name``."""

    name: str = Attribute("As ``use`` names it in the configuration.")
    phases: frozenset[Phase] = Attribute("Where it wants to be asked.")

    def ask(
        phase: Phase,
        session: SessionView,
        transaction: TransactionView | None,
        message: MessageView | None,
    ) -> Answer | Deferred[Answer]:
        """The verdict. An exception counts as a lost filter: the policy (defer) applies."""
