"""Who a forward-path is: the recipients each service takes, and those it refuses.

No service relays: what is not of our own domains is refused at RCPT, so there is no open relay
to be had by any spelling of a local part (the resolver knows no routes in local parts). A
directory that does not answer is Unavailable (451 4.3.0), never an unknown user (R-AUTH-7).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from attrs import frozen
from twisted.logger import Logger

from mailsrv.address import Address
from mailsrv.directory.resolve import AddressResolver, ForeignDomain, LocalRecipient, UnknownRecipient
from mailsrv.errors import MailError, Unavailable
from mailsrv.status import BAD_DOMAIN, BAD_MAILBOX, NOT_AUTHORISED


class Service(enum.Enum):
    """Which kind of listener a message came by."""

    MX = "mx"
    SUBMISSION = "submission"
    LMTP = "lmtp"


_FOREIGN = {
    Service.MX: (NOT_AUTHORISED, "Relaying denied"),
    # Until there is a queue that could carry it onwards.
    Service.SUBMISSION: (NOT_AUTHORISED, "This server sends no mail to other domains"),
    Service.LMTP: (BAD_DOMAIN, "Not a domain of this server"),
}


@frozen
class Recipient:
    """An accepted forward-path with the accounts it stands for; none where a filter discards it."""

    forward_path: Address
    targets: tuple[LocalRecipient, ...]


class RecipientPolicy:
    """Says who is a recipient for one service."""

    _log = Logger()

    def __init__(self, service: Service, resolver: AddressResolver) -> None:
        self._service = service
        self._resolver = resolver

    async def find(self, forward_path: Address) -> tuple[LocalRecipient, ...]:
        """The accounts behind it; raises the MailError that RCPT answers with."""
        resolution = await self._resolver.resolve(forward_path)
        if isinstance(resolution, ForeignDomain):
            status, text = _FOREIGN[self._service]
            raise MailError(status, text)
        if isinstance(resolution, UnknownRecipient):
            raise MailError(BAD_MAILBOX, "No such user here")
        if resolution.forwards:
            # Delivering to the local part of a group alone would lose mail without a word.
            forwards = [str(forward.address) for forward in resolution.forwards]
            self._log.error(
                "Alias {alias} names addresses elsewhere ({forwards}): mail for it is refused, as nothing is relayed",
                alias=str(forward_path),
                forwards=", ".join(forwards[:10]),
            )
            raise MailError(NOT_AUTHORISED, "Mail for this address is not forwarded", cause="alias to another domain")
        return resolution.accounts

    async def stands_for(self, address: Address) -> tuple[Address, ...]:
        """The addresses behind one of ours, for VRFY and EXPN; raises MailError where it is nobody's."""
        resolution = await self._resolver.resolve(address)
        if isinstance(resolution, ForeignDomain):
            raise MailError(BAD_DOMAIN, "Not a domain of this server")
        if isinstance(resolution, UnknownRecipient):
            raise MailError(BAD_MAILBOX, "No such user here")
        return (
            *(recipient.account for recipient in resolution.accounts),
            *(forward.address for forward in resolution.forwards),
        )

    async def find_all(self, redirected: Sequence[Address]) -> tuple[LocalRecipient, ...]:
        """The accounts a filter redirects to, each once.

        A filter that names nobody is a mistake of ours, not of the peer's: Unavailable.
        """
        found: dict[Address, LocalRecipient] = {}
        for address in redirected:
            try:
                for target in await self.find(address):
                    found.setdefault(target.account, target)
            except MailError as error:
                raise Unavailable(cause=f"a filter redirects to {address}: {error}") from error
        return tuple(found.values())
