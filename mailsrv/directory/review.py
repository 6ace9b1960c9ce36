"""Looking at users again whose sessions are open (:class:`~mailsrv.interfaces.sessions.IReviewDirectory`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred

from mailsrv.address import Address
from mailsrv.coroutines import run_coroutine
from mailsrv.errors import MailError
from mailsrv.interfaces.directory import DirectoryUser, IDirectory
from mailsrv.interfaces.sessions import IReviewDirectory


def review_users(
    directory: IDirectory, addresses: Sequence[Address]
) -> Deferred[Mapping[Address, DirectoryUser | None]]:
    """As the directory's own ``review``, or one question after the other where it has none."""
    if IReviewDirectory.providedBy(directory):
        return IReviewDirectory(directory).review(addresses)
    return run_coroutine(_one_by_one(directory, addresses))


async def _one_by_one(directory: IDirectory, addresses: Sequence[Address]) -> Mapping[Address, DirectoryUser | None]:
    found: dict[Address, DirectoryUser | None] = {}
    for address in addresses:
        try:
            found[address] = await directory.find_user(address)
        except MailError:
            # A file that cannot be read: there is no use in asking for the others.
            break
    return found
