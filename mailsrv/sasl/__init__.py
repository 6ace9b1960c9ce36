"""Server side of SASL (RFC 4422) for SMTP, IMAP and POP3: the exchanges and the mechanisms, as engines without I/O."""

from mailsrv.sasl.conversation import Conversation, Conversations, ResponseOffered
from mailsrv.sasl.errors import SaslCancelled, SaslError
from mailsrv.sasl.exchange import (
    ALL_MECHANISMS,
    MECHANISM_NAMES,
    OfferedMechanisms,
    SaslExchange,
    ServerMechanisms,
    Step,
    decode_base64,
    decode_response,
    encode_challenge,
    password_mechanisms,
)
from mailsrv.sasl.mechanisms import Challenge, PasswordGiven, ResponseGiven

__all__ = [
    "ALL_MECHANISMS",
    "MECHANISM_NAMES",
    "Challenge",
    "Conversation",
    "Conversations",
    "OfferedMechanisms",
    "PasswordGiven",
    "ResponseGiven",
    "ResponseOffered",
    "SaslCancelled",
    "SaslError",
    "SaslExchange",
    "ServerMechanisms",
    "Step",
    "decode_base64",
    "decode_response",
    "encode_challenge",
    "password_mechanisms",
]
