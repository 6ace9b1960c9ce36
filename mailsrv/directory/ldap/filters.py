"""Filters (RFC 4515) and distinguished names (RFC 4514) that values cannot break out of (R-INJ-3).

A :class:`Filter` is made by these functions alone. In a value every octet that is no letter, digit, ``.``, ``-``,
``_`` or ``@`` is written as ``\\xx``: there is nothing left that a server could read as syntax.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import field, frozen, validators

from mailsrv.directory.ldap.messages import encode_filter

# RFC 4512 2.5: a name or a numeric object identifier, with options.
_ATTRIBUTE = re.compile(r"(?:[A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+)(?:;[A-Za-z0-9-]+)*")
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_@")
_PLACEHOLDER = re.compile(r"\{(\w*)\}")

IN_CHAIN = "1.2.840.113556.1.4.1941"
"""Active Directory's rule that follows a DN attribute through all levels (MS-ADTS 3.1.1.3.4.4)."""


def is_attribute(name: str) -> bool:
    """Whether this is how an attribute may be called."""
    return _ATTRIBUTE.fullmatch(name) is not None


def _attribute(record: object, attribute: object, value: str) -> None:
    if not is_attribute(value):
        raise ValueError(f"{value!r} is no name of an attribute")


@frozen
class AttributeName:
    """A checked name of an attribute."""

    text: str = field(validator=[validators.instance_of(str), _attribute])


@frozen
class Filter:
    """A filter in RFC 4515's text."""

    text: str

    def __str__(self) -> str:
        return self.text


def _escape(value: str | bytes) -> str:
    octets = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return "".join(chr(octet) if octet in _PLAIN else f"\\{octet:02x}" for octet in octets)


def equal(attribute: str, value: str | bytes) -> Filter:
    """``(attribute=value)``. Raises ValueError for an empty value, which would mean something else to some servers."""
    if not value:
        raise ValueError("a value to compare with must not be empty")
    return Filter(f"({AttributeName(attribute).text}={_escape(value)})")


def at_least(attribute: str, value: str) -> Filter:
    """``(attribute>=value)``, for times and numbers."""
    if not value:
        raise ValueError("a value to compare with must not be empty")
    return Filter(f"({AttributeName(attribute).text}>={_escape(value)})")


def in_chain(attribute: str, dn: str) -> Filter:
    """Entries whose attribute leads to this DN over any number of levels (Active Directory, Samba)."""
    if not dn:
        raise ValueError("a DN must not be empty")
    return Filter(f"({AttributeName(attribute).text}:{IN_CHAIN}:={_escape(dn)})")


def present(attribute: str) -> Filter:
    """``(attribute=*)``."""
    return Filter(f"({AttributeName(attribute).text}=*)")


def any_of(filters: Iterable[Filter]) -> Filter:
    """At least one of them. Raises ValueError for none."""
    return _join("|", filters)


def all_of(filters: Iterable[Filter]) -> Filter:
    """All of them. Raises ValueError for none."""
    return _join("&", filters)


def negated(one: Filter) -> Filter:
    """What it does not match."""
    return Filter(f"(!{one.text})")


def _join(operator: str, filters: Iterable[Filter]) -> Filter:
    parts = tuple(dict.fromkeys(filters))
    if not parts:
        raise ValueError("no filter to join")
    return parts[0] if len(parts) == 1 else Filter(f"({operator}{''.join(part.text for part in parts)})")


def configured(text: str) -> Filter:
    """A filter the administrator wrote. Raises ValueError for what is none."""
    text = text.strip()
    try:
        if not text.startswith("(") or not text.endswith(")"):
            raise ValueError("no parentheses around it")
        encode_filter(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no filter (RFC 4515)") from error
    return Filter(text)


def escape_dn_value(value: str) -> str:
    """A value as it may stand in a DN (RFC 4514 2.4)."""
    return _escape(value)


def dn_from_template(template: str, **values: str) -> str:
    """``uid={local},ou=people,dc=example,dc=test`` with the values in. Raises ValueError for an empty value."""

    def put_in(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if not value:
            raise ValueError(f"{match[0]} has no value")
        return escape_dn_value(value)

    return _PLACEHOLDER.sub(put_in, template)


def check_template(template: str) -> None:
    """Raises ValueError where it names something else than {local}, {domain}, {address}, or none of them."""
    names = _PLACEHOLDER.findall(template)
    if not names or not {"local", "domain", "address"}.issuperset(names) or "=" not in template:
        raise ValueError("expected a DN with {local} or {address} in it, such as uid={local},ou=people,dc=example")
