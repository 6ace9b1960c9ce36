"""How long a client waits for a server, and how much of it it listens to."""

from __future__ import annotations

from attrs import frozen

from mailsrv.setting import setting


def _seconds(default: float, text: str) -> float:
    return setting(default, text, above=0.0, unit="seconds")


@frozen
class SmtpClientSettings:
    """Timeouts (RFC 5321 4.5.3.2), bounds of replies, and what of the extensions is used."""

    greeting_timeout: float = _seconds(300.0, "How long a server may take to greet (RFC 5321 4.5.3.2.1).")
    command_timeout: float = _seconds(300.0, "How long a server may take to answer a command (4.5.3.2.2, 4.5.3.2.3).")
    tls_timeout: float = _seconds(60.0, "How long a TLS handshake may take.")
    data_start_timeout: float = _seconds(120.0, "How long a server may take to answer DATA (4.5.3.2.4).")
    data_block_timeout: float = _seconds(180.0, "How long a server may take to accept a block (4.5.3.2.5).")
    data_end_timeout: float = _seconds(600.0, "How long a server may take to accept a message (4.5.3.2.6).")
    quit_timeout: float = _seconds(5.0, "How long the answer to QUIT is waited for.")
    data_rate_octets: int = setting(
        500, "Slowest rate at which a server may take a message, a second; 0 for any.", at_least=0, unit="octets"
    )
    data_rate_grace: float = _seconds(60.0, "How long a server may take a message more slowly than that.")
    reply_line_octets: int = setting(2048, "Longest line of a reply.", at_least=512, unit="octets")
    reply_lines: int = setting(200, "Most lines of one reply.", at_least=1)
    reply_octets: int = setting(65536, "Longest reply.", at_least=512, unit="octets")
    uses_chunking: bool = setting(True, "Whether BDAT is used with servers that offer CHUNKING (RFC 3030).")
    eager_octets: int = setting(
        16384,
        "Up to this size a message goes out in one piece with its envelope, where the server "
        "offers PIPELINING and CHUNKING.",
        at_least=0,
        unit="octets",
    )
