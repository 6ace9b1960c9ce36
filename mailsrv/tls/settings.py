"""Everything adjustable about TLS."""

from __future__ import annotations

import enum

from attrs import field, frozen

from mailsrv.setting import setting


class TlsVersion(enum.Enum):
    """Protocol versions that may be the lowest (RFC 8996: nothing older)."""

    TLS_1_2 = "TLSv1.2"
    TLS_1_3 = "TLSv1.3"


@frozen
class TlsSettings:
    """``[tls]``: certificate, key, and what is offered to clients."""

    certificate: str = setting(
        "", "PEM file: the server's certificate, then intermediate ones.", example="tls/cert.pem"
    )
    key: str = setting("", "PEM file with its private key, without passphrase.", example="tls/key.pem")
    more_certificates: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "PEM files, each with a private key, its certificate and intermediate ones: "
            "shown to clients that ask for a name in them (SNI).",
            "path": True,
        },
    )
    minimum_version: TlsVersion = setting(TlsVersion.TLS_1_2, "The oldest protocol version that is spoken.")
    ciphers: str = setting(
        "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES256:ECDHE+AES128:!aNULL:!eNULL:!MD5:!DSS",
        "Ciphers for TLS 1.2, as OpenSSL writes them. Those of TLS 1.3 are all good.",
    )
    session_seconds: int = setting(
        7200, "How long a client may resume a session without a full handshake; 0: never.", at_least=0, unit="s"
    )
    client_ca_file: str = setting(
        "",
        "PEM file: issuers (roots or intermediate ones) whose certificates clients may show at listeners "
        "with client_certificates.",
    )
    client_crl_file: str = setting(
        "",
        "PEM file: the revocation lists of all these issuers; a certificate whose issuer has no current "
        "one there is refused. Empty: revocation is not looked at.",
    )
