"""AUTHENTICATE (RFC 3501 6.2.2) with SASL-IR (RFC 4959)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

from mailsrv.imap.command.login import check_login_allowed, log_in
from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.errors import BadCommand, CommandRefused
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok
from mailsrv.sasl import MECHANISM_NAMES, Challenge, SaslCancelled, SaslError, SaslExchange, encode_challenge

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Authenticate:
    """A SASL exchange; ``initial_response`` is still in base64."""

    mechanism: str
    initial_response: bytes | None = field(default=None, repr=False)

    async def run(self, session: Session) -> Ok:
        check_login_allowed(session)
        if self.mechanism not in MECHANISM_NAMES:
            raise CommandRefused("Unknown mechanism", code=b"CANNOT")
        exchange = SaslExchange(self.mechanism)
        try:
            step = exchange.begin(self.initial_response)
            while isinstance(step, Challenge):
                session.send(b"+ " + encode_challenge(step) + b"\r\n")
                step = exchange.receive(await session.read_line())
        except SaslCancelled as error:
            # RFC 3501 6.2.2: "*" is answered with a tagged BAD.
            raise BadCommand(error.text) from None
        except SaslError as error:
            raise BadCommand(error.text) from None
        return await log_in(session, step.authcid, step.password, step.authzid)


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
