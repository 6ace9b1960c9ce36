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
)
from mailsrv.message.decoding import TextSearch, body_text, decode_body, decode_header, fold_text, iterate_text
from mailsrv.message.fields import HeaderField, Octets, iterate_fields, read_header, select_fields, unfold
from mailsrv.message.scanner import scan
from mailsrv.message.settings import DEFAULT_LIMITS, MessageLimits
from mailsrv.message.structure import MessageStructure, Part
from mailsrv.message.summary import CACHED_FIELD_NAMES, Summary, summarise, summarise_with_structure

__all__ = [
    "CACHED_FIELD_NAMES",
    "DEFAULT_LIMITS",
    "EnvelopeAddress",
    "HeaderField",
    "MessageLimits",
    "MessageStructure",
    "Octets",
    "Part",
    "Summary",
    "TextSearch",
    "body_text",
    "decode_body",
    "decode_header",
    "fold_text",
    "format_date",
    "format_internal_date",
    "header_addresses",
    "iterate_fields",
    "iterate_text",
    "parse_addresses",
    "parse_date",
    "parse_internal_date",
    "parse_search_date",
    "read_header",
    "scan",
    "select_fields",
    "sent_day",
    "summarise",
    "summarise_with_structure",
    "unfold",
]
