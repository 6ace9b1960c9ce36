"""VRFY, EXPN and HELP: commands that ask and change nothing (RFC 5321 3.5, 4.1.1.8).

Where ``smtp.verify`` and ``smtp.expand`` do not name the client, VRFY says 252 and EXPN 502.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailsrv.address import Address
from mailsrv.smtp import replies
from mailsrv.smtp.commands import Query
from mailsrv.smtp.events import AddressQueried
from mailsrv.smtp.extensions import help_reply
from mailsrv.smtp.replies import Reply, make_text_reply
from mailsrv.smtp.state import Owed, SessionState
from mailsrv.status import RECIPIENT_OK

_ADDRESSES_LIMIT = 1000
"""No longer list is told."""


class QuerySteps(SessionState):
    """The part of the engine that answers questions."""

    def _do_query(self, query: Query) -> None:
        if ("EXPN" if query.is_expansion else "VRFY") not in self._offer.keywords:
            if query.is_expansion:
                self._reject(replies.NOT_IMPLEMENTED)
            else:
                self._send(replies.CANNOT_VERIFY)
        elif not query.is_ascii and not query.is_smtputf8:
            self._reject(replies.NEEDS_SMTPUTF8)
        elif query.is_smtputf8 and "SMTPUTF8" not in self._offer.keywords:
            self._reject(replies.UNKNOWN_PARAMETER)
        elif query.address is None:
            self._reject(replies.AMBIGUOUS_NAME)
        else:
            self._ask(Owed.QUERY, AddressQueried(query.address, query.is_expansion, query.is_smtputf8))

    def _answer_query(self, answers: tuple[Reply, ...]) -> None:
        self._refuse(answers[0] if answers else replies.CANNOT_VERIFY)

    def _do_help(self) -> None:
        if "HELP" in self._offer.keywords:
            self._send(help_reply(self.service, self._offer.keywords))
        else:
            self._reject(replies.NOT_IMPLEMENTED)


def leads_elsewhere(query: AddressQueried, found: Sequence[Address]) -> bool:
    """Whether VRFY found one address in another domain, which may be one of ours or not."""
    return (
        not query.is_expansion
        and len(found) == 1
        and bool(query.address.domain)
        and found[0].domain != query.address.domain
    )


def query_reply(query: AddressQueried, found: Sequence[Address], *, is_local: bool = True) -> Reply:
    """The reply to VRFY and EXPN from what the address stands for.

    VRFY of a list is answered with the list itself: who is on it is a question for EXPN. An address that
    stands for one that is not ours is 251 (RFC 5321 3.4).
    """
    addresses = tuple(found[:_ADDRESSES_LIMIT]) or (query.address,)
    code, template = 250, "<{}>"
    if not query.is_expansion:
        if len(addresses) > 1:
            addresses = (query.address,)
        elif not is_local:
            code, template = 251, "User not local; will forward to <{}>"
    if not query.is_utf8 and not all(address.is_ascii for address in addresses):
        return replies.UTF8_REPLY_NEEDED  # RFC 6531 3.7.4.2
    return make_text_reply(code, RECIPIENT_OK, *(template.format(address) for address in addresses))
