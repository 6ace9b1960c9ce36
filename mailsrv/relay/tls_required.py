"""``TLS-Required: No``, by which a message waives what its recipient's domain demands of TLS (RFC 8689 3).

Reports about broken TLS bear it, for they have to arrive in spite of that (RFC 8460 3). It says nothing of what the
administrator demands ([[tls_policy]], [[route]]), and nothing where the envelope has REQUIRETLS.
"""

from __future__ import annotations

from mailsrv.interfaces.content import IContent
from mailsrv.message import iterate_fields

_NAME = b"tls-required"
_MOST_OCTETS = 262_144


async def waives_tls(content: IContent) -> bool:
    """Whether the header section has the field, once, and it says No. Fails as reading does."""
    octets = content.octets
    if octets is None:
        octets = await content.read(0, min(content.size, _MOST_OCTETS))
    header = octets[:_MOST_OCTETS].partition(b"\r\n\r\n")[0] + b"\r\n"
    if _NAME not in header.lower():
        return False
    values = [found.unfolded for found in iterate_fields(header) if found.name.lower() == _NAME]
    return len(values) == 1 and values[0].strip().lower() == b"no"
