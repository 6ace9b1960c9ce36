"""AUTHENTICATE (RFC 3501 6.2.2) with SASL-IR (RFC 4959)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

from mailsrv.imap.command.login import check_login_allowed, enter, log_in
from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.errors import BadCommand, CommandRefused
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok
from mailsrv.interfaces.account import SaslCredentials
from mailsrv.sasl import (
    Challenge,
    ResponseGiven,
    SaslCancelled,
    SaslError,
    SaslExchange,
    decode_response,
    encode_challenge,
)

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Authenticate:
    """A SASL exchange; ``initial_response`` is still in base64."""

    mechanism: str
    initial_response: bytes | None = field(default=None, repr=False)

    async def run(self, session: Session) -> Ok:
        check_login_allowed(session)
        offered = session.mechanisms()
        if self.mechanism not in offered:
            raise CommandRefused("Unknown mechanism", code=b"CANNOT")
        exchange = SaslExchange(self.mechanism)
        try:
            step = exchange.begin(self.initial_response)
            while isinstance(step, Challenge):
                session.send(b"+ " + encode_challenge(step) + b"\r\n")
                step = exchange.receive(await session.read_line())
            if isinstance(step, ResponseGiven):
                return await enter(session, self._credentials(session, step, offered))
        except SaslCancelled as error:
            # RFC 3501 6.2.2: "*" is answered with a tagged BAD.
            raise BadCommand(error.text) from None
        except SaslError as error:
            raise BadCommand(error.text) from None
        return await log_in(session, step.authcid, step.password, step.authzid)

    def _credentials(self, session: Session, step: ResponseGiven, offered: tuple[str, ...]) -> SaslCredentials:
        async def converse(challenge: bytes) -> bytes:
            session.send(b"+ " + encode_challenge(Challenge(challenge)) + b"\r\n")
            return decode_response(await session.read_line())

        peer = session.peer
        return SaslCredentials(
            self.mechanism,
            step.octets,
            converse,
            peer.client_address,
            "imap",
            connection_id=peer.connection_id,
            offered=offered,
            channel=peer.channel_binding,
            certificate=peer.client_certificate(),
        )


def parse(cursor: Cursor, context: ParseContext) -> Authenticate:
    """``authenticate = "AUTHENTICATE" SP auth-type [SP initial-resp]``"""
    cursor.space()
    mechanism = cursor.atom().upper().decode("ascii")
    if not cursor.skip(b" "):
        return Authenticate(mechanism)
    response = cursor.octets[cursor.position :]
    cursor.position = len(cursor.octets)
    if not response:
        raise BadCommand("Expected an initial response")
    return Authenticate(mechanism, response)
