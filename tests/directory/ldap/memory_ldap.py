"""As much of an LDAP server as readers of entries ask: filters, also Active Directory's in-chain rule, over entries."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mailsrv.directory.ldap.connection import LdapEntry
from mailsrv.directory.ldap.filters import IN_CHAIN
from mailsrv.directory.ldap.search import Search

Values = dict[str, tuple[bytes, ...]]


def _unescape(text: str) -> bytes:
    return re.sub(rb"\\([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), text.encode())


class MemoryLdap:
    """memberOf follows from member, as a server computes it. Filters that were asked stand in ``asked``."""

    def __init__(self, base: str = "dc=test") -> None:
        self.base = base
        self.entries: dict[str, LdapEntry] = {}
        self.asked: list[str] = []

    def add(self, dn: str, **values: str | bytes | Sequence[str | bytes]) -> str:
        found: Values = {}
        for name, value in values.items():
            several = (value,) if isinstance(value, str | bytes) else tuple(value)
            found[name.lower().replace("_", "-")] = tuple(
                each.encode() if isinstance(each, str) else each for each in several
            )
        for name in ("entrydn", "distinguishedname"):
            found[name] = (dn.encode(),)
        self.entries[dn.lower()] = LdapEntry(dn, found)
        return dn

    def search(self, search: Search, deadline: float) -> tuple[LdapEntry, ...]:
        self.asked.append(search.what.text)
        wanted = {name.lower() for name in search.attributes}
        base = search.base.lower()
        found = []
        for entry in self.entries.values():
            is_there = entry.dn.lower().endswith(base) if search.whole_tree else entry.dn.lower() == base
            if is_there and self._matches(entry, search.what.text):
                found.append(LdapEntry(entry.dn, {name: each for name, each in entry.values.items() if name in wanted}))
        return tuple(found[: search.limit])

    def _matches(self, entry: LdapEntry, text: str) -> bool:
        inner = text[1:-1]
        if inner[0] in "&|":
            results = [self._matches(entry, part) for part in _parts(inner[1:])]
            return all(results) if inner[0] == "&" else any(results)
        if inner[0] == "!":
            return not self._matches(entry, inner[1:])
        name, _, value = inner.partition("=")
        if name.endswith(":"):
            attribute, rule, _ = name.split(":")
            assert rule == IN_CHAIN
            return self._leads(entry, attribute, _unescape(value).decode().lower(), set())
        values = self._values(entry, name)
        return bool(values) if value == "*" else _unescape(value).lower() in {each.lower() for each in values}

    def _values(self, entry: LdapEntry, name: str) -> Sequence[bytes]:
        if name.lower() == "memberof":
            return [
                group.dn.encode()
                for group in self.entries.values()
                if entry.dn.lower() in {text.lower() for text in group.texts("member")}
            ]
        return entry.values.get(name.lower(), ())

    def _leads(self, entry: LdapEntry, attribute: str, target: str, met: set[str]) -> bool:
        if entry.dn.lower() in met:
            return False
        met.add(entry.dn.lower())
        for value in self._values(entry, attribute):
            dn = value.decode().lower()
            if dn == target or (dn in self.entries and self._leads(self.entries[dn], attribute, target, met)):
                return True
        return False


def _parts(text: str) -> Iterator[str]:
    depth, start = 0, 0
    for position, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == ")" and not depth:
            yield text[start : position + 1]
            start = position + 1


def sid(*numbers: int) -> bytes:
    """An objectSid of domain S-1-5-21-…."""
    parts = (21, *numbers)
    return bytes([1, len(parts)]) + (5).to_bytes(6, "big") + b"".join(each.to_bytes(4, "little") for each in parts)
