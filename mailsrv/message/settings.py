"""How much of a message is looked at: the caps of the header and MIME parser (R-MIME-1, R-BOMB-1).

Nothing of a message is refused or lost because of a cap. What lies past one is presented as opaque
``text/plain``; its octets are still there for ``BODY[]`` and ``RFC822``.
"""

from __future__ import annotations

from attrs import frozen

from mailsrv.setting import setting


@frozen
class MessageLimits:
    """Bounds of the work one message may cause."""

    nesting: int = setting(100, "Levels of multiparts and attached messages looked into.")
    parts: int = setting(10_000, "Body parts told apart in one message.")
    boundary_octets: int = setting(256, "Longest multipart boundary.", unit="octets")
    parameters: int = setting(1_000, "Parameters read of one MIME header field.")
    header_octets: int = setting(262_144, "How much of a header section is interpreted.", unit="octets")
    field_octets: int = setting(65_536, "How much of one header field is interpreted.", unit="octets")
    fields: int = setting(1_000, "Header fields interpreted in one header section.")
    interpreted_octets: int = setting(
        2_097_152,
        "Header field octets interpreted in one message, all its parts together; addresses count fourfold.",
        unit="octets",
    )
    addresses: int = setting(2_000, "Addresses read of one header field.")
    cached_fields_octets: int = setting(
        8_192, "Most octets of often-asked header fields the index keeps a message.", unit="octets"
    )
    search_text_octets: int = setting(
        16_777_216, "How much body text of one message SEARCH BODY and TEXT look at.", unit="octets"
    )


DEFAULT_LIMITS = MessageLimits()
