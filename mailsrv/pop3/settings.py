"""What can be adjusted about POP3."""

from __future__ import annotations

from attrs import frozen

from mailsrv.setting import setting


@frozen
class Pop3Settings:
    """Limits and times of POP3 sessions."""

    idle_timeout_seconds: float = setting(
        600.0, "A session that says nothing for so long is closed and deletes nothing; at least 600.", unit="seconds"
    )
    login_timeout_seconds: float = setting(
        60.0, "How long a client may be connected without having logged in.", unit="seconds"
    )
    close_timeout_seconds: float = setting(
        30.0, "How long a closed session waits for the client to take the last octets.", unit="seconds"
    )
    command_line_octets: int = setting(
        2048, "Longest command line, with its line end; RFC 2449 asks for 255.", unit="octets"
    )
    auth_line_octets: int = setting(
        12288, "Longest AUTH command, and line of its exchange (RFC 5034), with its line end.", unit="octets"
    )
    pipeline_octets: int = setting(
        16384, "Pipelined commands kept while one is answered; past that reading stops.", unit="octets"
    )
    error_limit: int = setting(20, "Refused commands after which the connection is closed.")
    login_failure_limit: int = setting(3, "Failed log-ins after which the connection is closed.")
    write_octets: int = setting(
        65536,
        "Replies to pipelined commands are written together up to about this size; "
        "large messages are read in pieces of it.",
        unit="octets",
    )
    prefetch_messages: int = setting(
        64, "Messages opened ahead for a client that retrieves one after the other; 1 turns it off."
    )
    prefetch_octets: int = setting(
        262144, "Size of the messages opened ahead, together, in one session.", unit="octets"
    )
