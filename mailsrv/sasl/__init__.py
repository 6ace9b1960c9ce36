"""Server side of SASL (RFC 4422) for SMTP, IMAP and POP3: PLAIN and LOGIN as small engines without I/O."""

from mailsrv.sasl.errors import SaslCancelled, SaslError
from mailsrv.sasl.exchange import MECHANISM_NAMES, SaslExchange, decode_base64, encode_challenge
from mailsrv.sasl.mechanisms import Challenge, PasswordGiven

__all__ = [
    "MECHANISM_NAMES",
    "Challenge",
    "PasswordGiven",
    "SaslCancelled",
    "SaslError",
    "SaslExchange",
    "decode_base64",
    "encode_challenge",
]
