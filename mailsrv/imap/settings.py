"""Everything adjustable about IMAP, with the limits of one connection."""

from __future__ import annotations

from attrs import field, frozen


@frozen
class ImapSettings:
    """Limits and times of IMAP sessions."""

    idle_timeout_seconds: int = field(
        default=1800, metadata={"help": "A logged-in client that says nothing for this long is closed.", "unit": "s"}
    )
    login_timeout_seconds: int = field(
        default=60, metadata={"help": "A client that has not logged in after this long is closed.", "unit": "s"}
    )
    command_timeout_seconds: int = field(
        default=300,
        metadata={
            "help": "A peer that is silent for this long in the middle of a command is closed.",
            "unit": "s",
        },
    )
    idle_poll_seconds: int = field(
        default=60, metadata={"help": "How often IDLE looks for changes that no notice told of.", "unit": "s"}
    )
    login_line_octets: int = field(
        default=12288,
        metadata={"help": "Longest command line before log-in; tickets and tokens are long.", "unit": "octets"},
    )
    login_literal_octets: int = field(
        default=4096, metadata={"help": "Largest literal before log-in.", "unit": "octets"}
    )
    login_command_octets: int = field(
        default=65536, metadata={"help": "Lines and literals of one command before log-in.", "unit": "octets"}
    )
    login_nesting: int = field(default=8, metadata={"help": "Parentheses within parentheses before log-in."})
    line_octets: int = field(default=65536, metadata={"help": "Longest command line.", "unit": "octets"})
    literal_octets: int = field(
        default=65536, metadata={"help": "Largest literal other than a message of APPEND.", "unit": "octets"}
    )
    command_octets: int = field(
        default=262144,
        metadata={"help": "Lines and literals of one command, messages of APPEND apart.", "unit": "octets"},
    )
    nesting: int = field(default=50, metadata={"help": "Parentheses within parentheses."})
    append_octets: int = field(
        default=52428800, metadata={"help": "Largest message APPEND takes (APPENDLIMIT).", "unit": "octets"}
    )
    append_messages: int = field(default=100, metadata={"help": "Most messages in one APPEND (MULTIAPPEND)."})
    discard_octets: int = field(
        default=1048576,
        metadata={
            "help": "A refused command larger than this closes the connection.",
            "unit": "octets",
        },
    )
    read_ahead_octets: int = field(
        default=8192,
        metadata={"help": "Reading pauses when this much waits behind a running command.", "unit": "octets"},
    )
    queued_commands: int = field(
        default=4, metadata={"help": "Reading pauses when this many commands wait behind a running one."}
    )
    commands_per_minute: int = field(
        default=0, metadata={"help": "Commands a minute after which a connection has to wait; 0 is no limit."}
    )
    errors: int = field(default=20, metadata={"help": "Commands in error after which the connection is closed."})
    login_failures: int = field(default=3, metadata={"help": "Failed log-ins after which the connection is closed."})
    output_slice_octets: int = field(
        default=262144,
        metadata={
            "help": "Long answers are made in slices of about this size.",
            "unit": "octets",
        },
    )
    output_slice_messages: int = field(default=1000, metadata={"help": "Most messages answered in one slice."})
    row_cache_octets: int = field(
        default=33554432,
        metadata={"help": "Ready-made FETCH answers kept for the next client of a mailbox.", "unit": "octets"},
    )
    section_octets: int = field(
        default=67108864,
        metadata={"help": "Largest message that is taken into memory to find a body part in it.", "unit": "octets"},
    )
    search_slice_messages: int = field(default=256, metadata={"help": "Messages searched before others are served."})
    search_keys: int = field(default=1000, metadata={"help": "Most keys in one SEARCH."})
    search_text_keys: int = field(default=32, metadata={"help": "Most BODY and TEXT keys in one SEARCH."})
    search_octets: int = field(
        default=10485760,
        metadata={"help": "How much of one message's text SEARCH TEXT and BODY look at.", "unit": "octets"},
    )
    keyword_octets: int = field(default=50, metadata={"help": "Longest keyword.", "unit": "octets"})
