"""Everything adjustable about IMAP, with the limits of one connection."""

from __future__ import annotations

from attrs import frozen

from mailsrv.setting import setting


@frozen
class ImapSettings:
    """Limits and times of IMAP sessions."""

    idle_timeout_seconds: int = setting(1800, "A logged-in client that says nothing for this long is closed.", unit="s")
    login_timeout_seconds: int = setting(60, "A client that has not logged in after this long is closed.", unit="s")
    command_timeout_seconds: int = setting(
        300, "A peer that is silent for this long in the middle of a command is closed.", unit="s"
    )
    idle_poll_seconds: int = setting(60, "How often IDLE looks for changes that no notice told of.", unit="s")
    login_line_octets: int = setting(
        12288, "Longest command line before log-in; tickets and tokens are long.", unit="octets"
    )
    login_literal_octets: int = setting(4096, "Largest literal before log-in.", unit="octets")
    login_command_octets: int = setting(65536, "Lines and literals of one command before log-in.", unit="octets")
    login_nesting: int = setting(8, "Parentheses within parentheses before log-in.")
    line_octets: int = setting(65536, "Longest command line.", unit="octets")
    literal_octets: int = setting(65536, "Largest literal other than a message of APPEND.", unit="octets")
    command_octets: int = setting(262144, "Lines and literals of one command, messages of APPEND apart.", unit="octets")
    nesting: int = setting(50, "Parentheses within parentheses.")
    append_octets: int = setting(52428800, "Largest message APPEND takes (APPENDLIMIT).", unit="octets")
    append_messages: int = setting(100, "Most messages in one APPEND (MULTIAPPEND).")
    discard_octets: int = setting(1048576, "A refused command larger than this closes the connection.", unit="octets")
    read_ahead_octets: int = setting(
        8192, "Reading pauses when this much waits behind a running command.", unit="octets"
    )
    queued_commands: int = setting(4, "Reading pauses when this many commands wait behind a running one.")
    commands_per_minute: int = setting(0, "Commands a minute after which a connection has to wait; 0 is no limit.")
    errors: int = setting(20, "Commands in error after which the connection is closed.")
    login_failures: int = setting(3, "Failed log-ins after which the connection is closed.")
    output_slice_octets: int = setting(262144, "Long answers are made in slices of about this size.", unit="octets")
    output_slice_messages: int = setting(1000, "Most messages answered in one slice.")
    row_cache_octets: int = setting(
        33554432, "Ready-made FETCH answers kept for the next client of a mailbox.", unit="octets"
    )
    section_octets: int = setting(
        67108864, "Largest message that is taken into memory to find a body part in it.", unit="octets"
    )
    search_slice_messages: int = setting(256, "Messages searched before others are served.")
    search_keys: int = setting(1000, "Most keys in one SEARCH.")
    search_text_keys: int = setting(32, "Most BODY and TEXT keys in one SEARCH.")
    search_octets: int = setting(
        10485760, "How much of one message's text SEARCH TEXT and BODY look at.", unit="octets"
    )
    keyword_octets: int = setting(50, "Longest keyword.", unit="octets")
