"""Under which name an account is looked up.

Local parts are compared without case and in normalisation form C (RFC 6532 3.1, RFC 8265 3.3);
domains are canonical already (:mod:`mailsrv.address`). The address a directory answers with has
exactly this form: it names the account for good.
"""

from __future__ import annotations

import unicodedata

from mailsrv.address import Address, AddressError


def canonical_address(address: Address) -> Address:
    """The address with its local part in lower case and form C; itself where that is no address any more."""
    local_part = address.local_part
    if local_part.isascii():
        canonical = local_part.lower()
    else:
        canonical = unicodedata.normalize("NFC", unicodedata.normalize("NFC", local_part).lower())
    if canonical == local_part:
        return address
    try:
        return Address(canonical, address.domain)
    except AddressError:
        # Lower case may be longer ("İ"): such a name is nobody's.
        return address


def parse_account_name(name: str, default_domain: str = "") -> Address:
    """``alice@example.test``, or ``alice`` where there is a default domain, as a canonical address.

    Raises ValueError with a sentence for the administrator. Colons, commas and spaces, which a
    quoted local part could have, are refused: the files could not hold them.
    """
    local_part, at, domain = name.rpartition("@")
    if not at:
        local_part, domain = name, default_domain
        if not domain:
            raise ValueError(f"{name!r} has no domain, and no default domain is set")
    if any(character in ':,"\\' or character.isspace() for character in name):
        raise ValueError(f"{name!r} has a space, colon, comma, quote or backslash")
    if not domain:
        raise ValueError(f"{name!r} has no domain")
    try:
        return canonical_address(Address(local_part, domain))
    except AddressError as error:
        raise ValueError(f"{name!r} is no address: {error.text}") from error
