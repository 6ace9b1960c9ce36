"""How much of a message is looked at: the caps of the header and MIME parser (R-MIME-1, R-BOMB-1).

Nothing of a message is refused or lost because of a cap. What lies past one is presented as opaque
``text/plain``; its octets are still there for ``BODY[]`` and ``RFC822``.
"""

from __future__ import annotations

from attrs import field, frozen


@frozen
class MessageLimits:
    """Bounds of the work one message may cause."""

    nesting: int = field(default=100, metadata={"help": "Levels of multiparts and attached messages looked into."})
    parts: int = field(default=10_000, metadata={"help": "Body parts told apart in one message."})
    boundary_octets: int = field(default=256, metadata={"help": "Longest multipart boundary.", "unit": "octets"})
    parameters: int = field(default=1_000, metadata={"help": "Parameters read of one MIME header field."})
    header_octets: int = field(
        default=262_144, metadata={"help": "How much of a header section is interpreted.", "unit": "octets"}
    )
    field_octets: int = field(
        default=65_536, metadata={"help": "How much of one header field is interpreted.", "unit": "octets"}
    )
    fields: int = field(default=1_000, metadata={"help": "Header fields interpreted in one header section."})
    interpreted_octets: int = field(
        default=2_097_152,
        metadata={
            "help": "Header field octets interpreted in one message, all its parts together; addresses count fourfold.",
            "unit": "octets",
        },
    )
    addresses: int = field(default=2_000, metadata={"help": "Addresses read of one header field."})
    cached_fields_octets: int = field(
        default=8_192,
        metadata={"help": "Most octets of often-asked header fields the index keeps a message.", "unit": "octets"},
    )
    search_text_octets: int = field(
        default=16_777_216,
        metadata={"help": "How much body text of one message SEARCH BODY and TEXT look at.", "unit": "octets"},
    )


DEFAULT_LIMITS = MessageLimits()
