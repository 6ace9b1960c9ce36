"""Internet messages by octet offsets (RFC 5322, RFC 2045-2049): what is in a message, never a changed message.

Read a message once with :func:`summarise` (what the index keeps) or :func:`scan` (the tree of its
parts); find what FETCH asks for with :func:`locate`; look for text with :class:`TextSearch`; write the
few lines a mail server adds with :mod:`mailsrv.message.edits`. Everything takes ``bytes`` or an
``mmap``, is bounded by :class:`MessageLimits`, and accepts any octets.
"""

from mailsrv.message.addresses import EnvelopeAddress, header_addresses, parse_addresses
from mailsrv.message.dates import (
    format_date,
    format_internal_date,
    parse_date,
    parse_internal_date,
    parse_search_date,
    sent_day,
    sent_day_of,
)
from mailsrv.message.decoding import TextSearch, body_text, decode_body, fold_text, iterate_text
from mailsrv.message.edits import (
    Hop,
    InvalidField,
    TransmissionType,
    count_received,
    format_field,
    format_received,
    format_return_path,
    missing_originator_fields,
    new_message_id,
    transmission_type,
)
from mailsrv.message.encoded_words import decode_header
from mailsrv.message.fields import HeaderField, Octets, iterate_fields, read_header, select_fields, unfold
from mailsrv.message.scanner import scan
from mailsrv.message.section import (
    LocatedSection,
    Section,
    SectionKind,
    UnknownEncoding,
    binary_octets,
    decode_part,
    locate,
    parse_section,
    section_octets,
)
from mailsrv.message.settings import DEFAULT_LIMITS, MessageLimits
from mailsrv.message.structure import MessageStructure, Part
from mailsrv.message.summary import CACHED_FIELD_NAMES, Summary, summarise, summarise_with_structure

__all__ = [
    "CACHED_FIELD_NAMES",
    "DEFAULT_LIMITS",
    "EnvelopeAddress",
    "HeaderField",
    "Hop",
    "InvalidField",
    "LocatedSection",
    "MessageLimits",
    "MessageStructure",
    "Octets",
    "Part",
    "Section",
    "SectionKind",
    "Summary",
    "TextSearch",
    "TransmissionType",
    "UnknownEncoding",
    "binary_octets",
    "body_text",
    "count_received",
    "decode_body",
    "decode_header",
    "decode_part",
    "fold_text",
    "format_date",
    "format_field",
    "format_internal_date",
    "format_received",
    "format_return_path",
    "header_addresses",
    "iterate_fields",
    "iterate_text",
    "locate",
    "missing_originator_fields",
    "new_message_id",
    "parse_addresses",
    "parse_date",
    "parse_internal_date",
    "parse_search_date",
    "parse_section",
    "read_header",
    "scan",
    "section_octets",
    "select_fields",
    "sent_day",
    "sent_day_of",
    "summarise",
    "summarise_with_structure",
    "transmission_type",
    "unfold",
]
