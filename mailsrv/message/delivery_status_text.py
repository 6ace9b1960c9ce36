"""The part of a delivery status notification that people read: what happened, to whom, why, and what to do."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Sequence

from mailsrv.message.dates import format_date
from mailsrv.status import EnhancedStatus

_WIDTH = 72
_LISTED_RECIPIENTS = 100
"""More are only counted; the part for programs has them all."""

Told = tuple[str, str, EnhancedStatus, str, str, int | None]
"""Action, address, status, reply, who said it ("" for us), tried until."""

_OPENINGS = {
    "failed": "Your message could not be delivered to the recipients below. It will not be tried again.",
    "delayed": "Your message could not be delivered to the recipients below yet. It is still being tried; you need "
    "not send it again. You will hear from us if it fails for good.",
    "delivered": "Your message has been delivered to the recipients below.",
    "relayed": "Your message has been handed on to the mail servers of the recipients below. Those servers do not "
    "report deliveries, so this is the last you will hear about it, unless it fails.",
    "expanded": "Your message has reached the addresses below, each of which stands for several recipients. It was "
    "sent on to them; what becomes of it there is not reported.",
}

_CLOSING = (
    "Below stand the same facts for programs, and your message or its beginning. If you ask your postmaster about it, "
    "name the message:"
)

# By subject and detail of the status (RFC 3463): why, and what the sender can do.
_CAUSES: dict[tuple[int, int], tuple[str, str]] = {
    (1, 1): ("The address does not exist there.", "Check the address for typing errors, or ask the recipient for it."),
    (1, 2): (
        "The domain of the address does not exist or takes no mail.",
        "Check the part of the address after the @ sign for typing errors.",
    ),
    (1, 3): ("The address is not a valid one.", "Check the address for typing errors."),
    (1, 6): ("The recipient has moved.", "Ask the recipient for the new address."),
    (1, 8): ("The other server does not accept your address as sender.", "Ask your postmaster for help."),
    (1, 10): ("The domain of the address takes no mail.", "Check the part of the address after the @ sign."),
    (2, 1): ("The mailbox is disabled.", "Reach the recipient in another way."),
    (2, 2): ("The recipient's mailbox is full.", "Try again later, or reach the recipient in another way."),
    (2, 3): ("The message is too large for the mailbox.", "Send a smaller message, or the files in another way."),
    (3, 4): ("The message is too large for the other server.", "Send a smaller message, or the files in another way."),
    (4, 1): ("The other server did not answer.", "Try again later, or tell the recipient's postmaster."),
    (4, 2): ("The connection to the other server was lost.", "Try again later."),
    (4, 3): ("The domain name system gave no answer for the recipient's domain.", "Try again later."),
    (4, 4): ("No mail server could be found for the recipient's domain.", "Check the part after the @ sign."),
    (4, 6): ("The message goes in circles.", "Tell the recipient's postmaster: two servers send it to each other."),
    (4, 7): ("The time for delivering it is over.", "Try again later, or reach the recipient in another way."),
    (5, 3): ("The message has too many recipients.", "Send it to fewer recipients at a time."),
    (6, 7): (
        "The other server cannot take addresses with letters beyond ASCII.",
        "Ask the recipient for another address.",
    ),
    (7, 1): ("The other server refused the message by its rules.", "Read its answer above, and ask the recipient."),
    (7, 10): (
        "The message asks for encryption that the other server does not offer.",
        "Send it without that wish, or reach the recipient in another way.",
    ),
    (7, 30): (
        "The message asks for encryption (REQUIRETLS) that the other server does not offer.",
        "Send it without that wish, or reach the recipient in another way.",
    ),
}
_SUBJECTS: dict[int, tuple[str, str]] = {
    1: ("Something is wrong with an address.", "Check the address for typing errors."),
    2: ("Something is wrong with the recipient's mailbox.", "Reach the recipient in another way."),
    3: ("The other server cannot take this message.", "Try again later, or ask the recipient's postmaster."),
    4: ("The other server could not be reached.", "Try again later."),
    5: ("The two servers did not understand each other.", "Tell your postmaster."),
    6: ("The other server cannot take a message of this kind.", "Send it in a simpler form."),
    7: ("The other server refused the message by its rules.", "Read its answer above, and ask the recipient."),
}


def explain(note: str, host: str, transaction_id: str, recipients: Sequence[Told]) -> str:
    """The text, lines ended by LF. What is quoted has to be on one line each."""
    paragraphs = [f"This is the mail server {host}."]
    if note:
        paragraphs.append(_filled(note))
    for action, opening in _OPENINGS.items():
        told = [recipient for recipient in recipients if recipient[0] == action]
        if not told:
            continue
        paragraphs.append(_filled(opening))
        paragraphs.extend(_about(recipient) for recipient in told[:_LISTED_RECIPIENTS])
        if len(told) > _LISTED_RECIPIENTS:
            paragraphs.append(f"And {len(told) - _LISTED_RECIPIENTS} more recipients.")
    paragraphs.append(f"{_filled(_CLOSING)}\n    {transaction_id}")
    return "\n\n".join(paragraphs) + "\n"


def _about(told: Told) -> str:
    action, address, status, reply, host, until = told
    lines = [f"<{address}>"]
    if action in {"failed", "delayed"}:
        if reply:
            lines.append(f"    The server {host} answered:" if host else "    What happened:")
            lines.extend(_quoted(reply))
        why, what = _CAUSES.get((status.subject, status.detail)) or _SUBJECTS.get(status.subject) or ("", "")
        if why:
            lines.extend(_indented(f"{why} ({status})"))
        if action == "failed" and what:
            lines.extend(_indented(f"What you can do: {what}"))
        if action == "delayed" and until is not None:
            lines.extend(_indented(f"It is tried until {format_date(until).decode('ascii')}."))
    elif host:
        lines.extend(_indented(f"Taken by the server {host}."))
    return "\n".join(lines)


@functools.lru_cache(maxsize=128)
def _quoted(text: str) -> tuple[str, ...]:
    return tuple(textwrap.wrap(text, _WIDTH, initial_indent="    | ", subsequent_indent="    | "))


# The texts of this page are few; wrapping them anew would be half the cost of a notice.
@functools.lru_cache(maxsize=128)
def _filled(text: str) -> str:
    return textwrap.fill(text, _WIDTH)


@functools.lru_cache(maxsize=512)
def _indented(text: str) -> tuple[str, ...]:
    return tuple(textwrap.wrap(text, _WIDTH, initial_indent="    ", subsequent_indent="    "))
