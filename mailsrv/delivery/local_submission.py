"""Who local programs are when they submit mail: the system says it, no password does.

A connection over a Unix socket of service ``submission``, and a file in the drop folder, belong to a user of this
machine (SO_PEERCRED; the file's owner). That user is ``name@default-domain``, whether or not a directory knows
the name, and may send as that address and as all that lead to it. Trusted users (root, the server's own, those of
``[sendmail] trusted_users``) may send under any name. No mailbox can be opened that way.
"""

from __future__ import annotations

import functools
import os
import pwd
import socket
import struct
from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from mailsrv.address import Address, AddressError
from mailsrv.delivery.settings import SendmailSettings
from mailsrv.errors import MailError
from mailsrv.interfaces.account import IAccount
from mailsrv.interfaces.mailbox import IAccountMailboxes
from mailsrv.status import NOT_AUTHORISED
from mailsrv.wire.networks import NetworkSet

MaySendAs = Callable[[Address, Address], Deferred[bool]]
"""(account, address) → whether mail to the address reaches the account."""

_CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7): process, user, group."""


@implementer(IAccount)
class LocalAccount:
    """A user of this machine."""

    __slots__ = ("_may_send_as", "address", "display_name", "is_trusted")
    administrator = None

    def __init__(self, address: Address, display_name: str, may_send_as: MaySendAs, *, is_trusted: bool) -> None:
        self.address = address
        self.display_name = display_name
        self.is_trusted = is_trusted
        self._may_send_as = may_send_as

    def open_mailboxes(self) -> Deferred[IAccountMailboxes]:
        return fail(MailError(NOT_AUTHORISED, "Only mail can be sent without a log-in"))

    def may_send_as(self, address: Address) -> Deferred[bool]:
        if self.is_trusted or address == self.address:
            return succeed(True)
        return self._may_send_as(self.address, address)


class LocalPeers:
    """``domain`` is that of users' addresses, ``may_send_as`` the resolver's."""

    def __init__(self, settings: SendmailSettings, *, domain: str, may_send_as: MaySendAs) -> None:
        self._trusted = frozenset(settings.trusted_users)
        self._own_uid = os.geteuid()
        self._domain = domain
        self._may_send_as = may_send_as

    def account_of_uid(self, uid: int) -> LocalAccount | None:
        """None for a user whose name cannot be part of an address."""
        name, display_name = _names_of(uid)
        try:
            address = Address(name.lower(), self._domain)
        except AddressError:
            return None
        is_trusted = uid in (0, self._own_uid) or name in self._trusted
        return LocalAccount(address, display_name, self._may_send_as, is_trusted=is_trusted)

    def account_of_transport(self, transport: object) -> LocalAccount | None:
        """The user at the other end of a Unix socket; None for any other transport."""
        get_handle = getattr(transport, "getHandle", None)
        handle = get_handle() if get_handle is not None else None
        if not isinstance(handle, socket.socket) or handle.family != socket.AF_UNIX:
            return None
        try:
            octets = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return None
        process, uid, _group = _CREDENTIALS.unpack(octets)
        # Of a process of another namespace the kernel says 0 for the process and the overflow user.
        return self.account_of_uid(uid) if process > 0 and uid >= 0 else None


@functools.lru_cache(maxsize=1024)
def _names_of(uid: int) -> tuple[str, str]:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return f"uid-{uid}", ""
    return entry.pw_name, entry.pw_gecos.partition(",")[0]


class Admission:
    """Who may submit without a log-in; what :class:`~mailsrv.smtp.factory.SmtpServerFactory` asks."""

    def __init__(self, peers: LocalPeers | None, relay_networks: NetworkSet) -> None:
        self._peers = peers
        self._relay_networks = relay_networks

    def __call__(self, transport: object, client_address: str) -> IAccount | bool:
        """The account of a peer on this machine, True for a client of a network that may relay, else False."""
        if client_address:
            return client_address in self._relay_networks
        account = self._peers.account_of_transport(transport) if self._peers is not None else None
        return account or False

    @property
    def behind_proxy(self) -> Admission:
        """For a listener behind a proxy: at the other end of its Unix socket is the proxy, whoever it speaks for."""
        return Admission(None, self._relay_networks)
