"""What can be adjusted about POP3."""

from __future__ import annotations

from attrs import field, frozen


@frozen
class Pop3Settings:
    """Limits and times of POP3 sessions."""

    idle_timeout_seconds: float = field(
        default=600.0,
        metadata={
            "help": "A session that says nothing for so long is closed and deletes nothing; at least 600.",
            "unit": "seconds",
        },
    )
    login_timeout_seconds: float = field(
        default=60.0,
        metadata={"help": "How long a client may be connected without having logged in.", "unit": "seconds"},
    )
    close_timeout_seconds: float = field(
        default=30.0,
        metadata={"help": "How long a closed session waits for the client to take the last octets.", "unit": "seconds"},
    )
    command_line_octets: int = field(
        default=2048,
        metadata={"help": "Longest command line, with its line end; RFC 2449 asks for 255.", "unit": "octets"},
    )
    auth_line_octets: int = field(
        default=12288,
        metadata={
            "help": "Longest AUTH command, and line of its exchange (RFC 5034), with its line end.",
            "unit": "octets",
        },
    )
    pipeline_octets: int = field(
        default=16384,
        metadata={"help": "Pipelined commands kept while one is answered; past that reading stops.", "unit": "octets"},
    )
    error_limit: int = field(
        default=20,
        metadata={"help": "Refused commands after which the connection is closed."},
    )
    login_failure_limit: int = field(
        default=3,
        metadata={"help": "Failed log-ins after which the connection is closed."},
    )
    write_octets: int = field(
        default=65536,
        metadata={
            "help": "Replies to pipelined commands are written together up to about this size; "
            "large messages are read in pieces of it.",
            "unit": "octets",
        },
    )
    prefetch_messages: int = field(
        default=64,
        metadata={"help": "Messages opened ahead for a client that retrieves one after the other; 1 turns it off."},
    )
    prefetch_octets: int = field(
        default=262144,
        metadata={"help": "Size of the messages opened ahead, together, in one session.", "unit": "octets"},
    )
