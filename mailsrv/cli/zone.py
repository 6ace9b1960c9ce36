"""DNS records as they stand in a zone file (RFC 1035 5.1, 3.3)."""

from __future__ import annotations

from mailsrv.mailauth.keys import split_text


def quote_text(text: str) -> str:
    """The character-strings of a TXT record: each in quotes, 255 octets at most; several in parentheses."""
    parts = [f'"{_escape(part)}"' for part in split_text(text)]
    return parts[0] if len(parts) == 1 else "( " + "\n    ".join(parts) + " )"


def zone_line(name: str, kind: str, value: str, seconds: int = 3600) -> str:
    """One record with its time to live; ``value`` is ready. Names without a final dot get it here."""
    return f"{name}. {seconds} IN {kind} {value}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
