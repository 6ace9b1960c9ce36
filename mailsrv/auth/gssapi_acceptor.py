"""The acceptor's side of a Kerberos security context (RFC 4121), by the library ``gssapi`` over MIT's or Heimdal's.

Everything here may wait (keytab and replay cache are files): call it in a thread. One context is used by one thread at
a time. No host name is looked up: the key is chosen by service, and the host in the ticket is compared.
"""

from __future__ import annotations

import re

import gssapi
from gssapi.exceptions import GSSError, InvalidTokenError
from gssapi.raw import ChannelBindings

from mailsrv.auth.gssapi_settings import ChannelBinding, GssapiSettings
from mailsrv.auth.principals import is_ours
from mailsrv.auth.tickets import Accepted, KeytabUnusable, TicketRefused
from mailsrv.sasl.errors import SaslError

_STATUS = re.compile(r"Major \(\d+\): (.*), Minor \(\d+\): (.*)", re.DOTALL)
_SAYS_NOTHING = ("Success", "Unspecified GSS failure")


class TicketAcceptor:
    """An :class:`~mailsrv.auth.tickets.Acceptor`. ``end_point``: the data of tls-server-end-point, if there are any."""

    def __init__(self, settings: GssapiSettings, service: str, end_point: bytes | None) -> None:
        self._settings = settings
        self._service = service
        self._end_point = end_point
        self._context: gssapi.SecurityContext | None = None

    def accept(self, token: bytes) -> Accepted:
        context = self._context
        if context is None:
            context = self._context = self._open()
        try:
            answer = context.step(token) or b""
            if not context.complete:
                return Accepted(answer)
            return Accepted(answer, self._check(context))
        except InvalidTokenError as error:
            raise SaslError(cause=describe(error)) from None
        except GSSError as error:
            raise TicketRefused(describe(error)) from None

    def wrap(self, octets: bytes) -> bytes:
        wrapped: bytes = self._established().wrap(octets, False).message
        return wrapped

    def unwrap(self, octets: bytes) -> bytes:
        try:
            unwrapped: bytes = self._established().unwrap(octets).message
        except GSSError as error:
            raise SaslError(cause=describe(error)) from None
        return unwrapped

    def _open(self) -> gssapi.SecurityContext:
        bindings = None
        if self._settings.channel_binding is not ChannelBinding.OFF and self._end_point is not None:
            # RFC 5929 4 and RFC 5056 2.1: the name of the type is part of the data.
            bindings = ChannelBindings(application_data=b"tls-server-end-point:" + self._end_point)
        return gssapi.SecurityContext(
            creds=acquire(self._settings, self._service), usage="accept", channel_bindings=bindings
        )

    def _established(self) -> gssapi.SecurityContext:
        if self._context is None or not self._context.complete:
            raise SaslError
        return self._context

    def _check(self, context: gssapi.SecurityContext) -> str:
        """The principal of a context that is complete."""
        target = str(context.target_name)
        if not is_ours(target, self._settings):
            raise TicketRefused(f"a ticket for {target[:200]!a}")
        if self._settings.channel_binding is ChannelBinding.REQUIRE and not (
            context.actual_flags & gssapi.RequirementFlag.channel_bound
        ):
            raise TicketRefused("not bound to the TLS connection")
        return str(context.initiator_name)


def acquire(settings: GssapiSettings, service: str) -> gssapi.Credentials:
    """The keys of a service (``imap``, ``pop3``, ``submission``), of whichever host. Raises KeytabUnusable."""
    name = settings.service_name(service)
    try:
        return gssapi.Credentials(
            name=gssapi.Name(name, gssapi.NameType.hostbased_service),
            usage="accept",
            store={"keytab": f"FILE:{settings.keytab_file}"},
            mechs=[gssapi.MechType.kerberos],
        )
    except GSSError as error:
        raise KeytabUnusable(f"gssapi.keytab_file: {settings.keytab_file}: {describe(error)}") from None


def describe(error: GSSError) -> str:
    """What the library says, as one line of printable characters, without its numbers and what says nothing."""
    said = _STATUS.fullmatch(str(error))
    parts = [str(error)] if said is None else [part for part in said.groups() if not part.startswith(_SAYS_NOTHING)]
    return ascii(": ".join(parts))[1:-1][:400]
