"""The domains that a directory lists, read by a mapping: where they stand, what they are called, which mean another.

Every value is somebody's: it becomes a domain only by the grammar and IDNA (RFC 5890), what does not is told and left
out. A list that may not be whole (more entries or domains than may be) is none: a domain that is missing from it would
have its mail refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import sleep

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.address import AddressError, parse_domain
from mailsrv.coroutines import run_coroutine
from mailsrv.directory.ldap.changes import Change, Changes
from mailsrv.directory.ldap.client import LdapClient
from mailsrv.directory.ldap.connection import LdapConnection, LdapEntry
from mailsrv.directory.ldap.filters import Filter, configured, present
from mailsrv.directory.ldap.lookups import LIST_LIMIT, MANY_PATIENCE_SECONDS, MANY_SECONDS
from mailsrv.directory.ldap.mapping import LdapMapping
from mailsrv.directory.ldap.search import Search, entry_at
from mailsrv.directory.ldap.trouble import LdapTrouble, RequestTrouble
from mailsrv.errors import Unavailable
from mailsrv.interfaces.domain_source import IDomainSource, SuppliedDomain

_SUFFIX = re.compile(r"(?:^|,)\s*((?:dc=[^,]+)(?:\s*,\s*dc=[^,]+)*)\s*$", re.IGNORECASE)
_SCHEMES = frozenset({"smtp", "mailto"})
_SHOWN = 10
_COMPLAINTS = 1000
_SHOWN_CHARACTERS = 200
_IN_ONE_GO, _PAUSE_SECONDS = 64, 0.0001


def parse_value(text: str) -> str | None:
    """The domain that a value names: by itself, or of an address (``smtp:alice@example.test``, ``@example.test``).

    None for an address of another kind of mail (``X400:…``). Raises AddressError for what is no domain of mail: an
    address literal, a single label, and a name that ends with a number are none either.
    """
    scheme, colon, rest = text.strip().partition(":")
    if colon:
        if scheme.lower() not in _SCHEMES:
            return None
        text = rest
    domain = parse_domain(text.rpartition("@")[2].strip().removesuffix("."))
    last = domain.rpartition(".")[2]
    if domain.startswith("[") or last == domain or last.isdigit():
        raise AddressError("No domain of mail")
    return domain


@frozen
class DomainList:
    """What was read: names in their order, each once, and what of the values is of no use, in sentences."""

    domains: tuple[SuppliedDomain, ...] = ()
    complaints: tuple[str, ...] = ()
    marks: Mapping[str, int] = field(factory=dict)
    """By DN of the entry, in lower case: a number that is another one where its names are others."""


@define
class _Collected:
    """Names on the way to a list."""

    mains: dict[str, str] = field(factory=dict)
    """With where they stand."""
    aliases: dict[str, dict[str, str]] = field(factory=dict)
    """What each means, with where that stands."""
    complaints: list[str] = field(factory=list)

    def complain(self, sentence: str) -> None:
        if len(self.complaints) < _COMPLAINTS:
            self.complaints.append(sentence)

    def domains(self) -> Iterator[SuppliedDomain]:
        for name, origin in self.mains.items():
            yield SuppliedDomain(name, name, origin)
        for name, meant in self.aliases.items():
            if name in self.mains:
                if meant.keys() != {name}:
                    self.complain(f"{name} is a domain of its own, and another name of {min(meant)}")
                continue
            if len(meant) > 1:
                self.complain(f"{name} is another name of several domains: {', '.join(sorted(meant)[:_SHOWN])}")
            main = min(meant)
            yield SuppliedDomain(name, main, meant[main])


@frozen
class DomainReader:
    """Asks for entries and reads them: runs in a thread. ``limit``: domains there may be."""

    mapping: LdapMapping
    base: str
    limit: int

    def read(self, connection: LdapConnection, deadline: float) -> DomainList:
        """All domains. Raises LdapTrouble."""
        base = self.find_base(connection, deadline)
        entries = connection.search(Search(base, self.what, self.attributes, limit=LIST_LIMIT), deadline)
        if len(entries) >= LIST_LIMIT:
            raise RequestTrouble(f"more than {LIST_LIMIT} entries below {base!r} may be domains")
        return self.collect(entries)

    @property
    def what(self) -> Filter:
        """The entries that are domains, or have some."""
        return configured(self.mapping.domain_filter) if self.mapping.domain_filter else present("objectClass")

    @property
    def attributes(self) -> tuple[str, ...]:
        """Where names stand."""
        mapping = self.mapping
        return tuple(dict.fromkeys((*mapping.domain, *mapping.domain_alias, *mapping.domain_alias_of)))

    def find_base(self, connection: LdapConnection, deadline: float) -> str:
        """Where domains stand; the server is asked where the mapping leaves it to its root entry (RFC 4512 5.1)."""
        template = self.mapping.domain_base or "{base}"
        if "{suffix}" not in template and "{configuration}" not in template:
            return template.replace("{base}", self.base)
        wanted = ("defaultNamingContext", "configurationNamingContext")
        found = connection.search(entry_at("", wanted), deadline)
        root = found[0] if found else LdapEntry("", {})
        suffix = root.first("defaultNamingContext") or suffix_of(self.base)
        configuration = root.first("configurationNamingContext") or f"CN=Configuration,{suffix}"
        values = {"{base}": self.base, "{suffix}": suffix, "{configuration}": configuration}
        return re.sub(r"\{\w+\}", lambda match: values.get(match[0], match[0]), template)

    def collect(self, entries: Sequence[LdapEntry]) -> DomainList:
        """The domains of these entries. Raises RequestTrouble where there are too many."""
        collected = _Collected()
        for number, entry in enumerate(entries, 1):
            self._collect_entry(entry, collected)
            if len(collected.mains) + len(collected.aliases) > self.limit:
                raise RequestTrouble(f"there are more than {self.limit} domains (domains_limit)")
            if number % _IN_ONE_GO == 0:
                # Else this thread keeps the interpreter for a switch interval each time the reactor wants it.
                sleep(_PAUSE_SECONDS)
        domains = tuple(sorted(collected.domains()))
        marks = {entry.dn.lower(): self.mark(entry) for entry in entries}
        return DomainList(domains, tuple(collected.complaints), marks)

    def mark(self, entry: LdapEntry) -> int:
        """As in :attr:`DomainList.marks`, in this process."""
        return hash(tuple(entry.texts(name) for name in self.attributes))

    def _collect_entry(self, entry: LdapEntry, collected: _Collected) -> None:
        mapping = self.mapping
        named = next((name for name in mapping.domain if entry.texts(name)), "")
        mains = self._names(entry, (named,) if named else (), collected)
        meant = next(iter(self._names(entry, mapping.domain_alias_of, collected)), "")
        if meant:
            for name, origin in mains.items():
                collected.aliases.setdefault(name, {})[meant] = origin
            return
        for name, origin in mains.items():
            collected.mains.setdefault(name, origin)
        aliases = self._names(entry, mapping.domain_alias, collected)
        if aliases and not mains:
            collected.complain(f"{_printable(entry.dn)} has other names of a domain, and no domain")
            return
        main = min(mains, default="")
        for name, origin in aliases.items():
            if name not in mains:
                collected.aliases.setdefault(name, {})[main] = origin

    def _names(self, entry: LdapEntry, attributes: Sequence[str], collected: _Collected) -> dict[str, str]:
        """With where they stand. Raises RequestTrouble where there are too many."""
        found: dict[str, str] = {}
        for attribute in attributes:
            place = f"{attribute} of {_printable(entry.dn)}"
            for number, text in enumerate(entry.texts(attribute), 1):
                if number % _IN_ONE_GO == 0:
                    sleep(_PAUSE_SECONDS)
                try:
                    name = parse_value(text)
                except AddressError:
                    collected.complain(f"{text[:_SHOWN_CHARACTERS]!a} is no domain ({place})")
                    continue
                if name is not None:
                    found.setdefault(name, place)
                if len(found) > self.limit:
                    raise RequestTrouble(f"there are more than {self.limit} domains (domains_limit)")
        return found


def _printable(dn: str) -> str:
    """For logs and people."""
    return "".join(each if each.isprintable() else "?" for each in dn[:_SHOWN_CHARACTERS])


def suffix_of(base: str) -> str:
    """``dc=example,dc=test`` of an entry below it; the entry itself where its name has no such end."""
    found = _SUFFIX.search(base)
    return found[1] if found is not None else base


@implementer(IDomainSource)
class LdapDomains:
    """See :class:`~mailsrv.interfaces.domain_source.IDomainSource`. ``name`` is the directory's."""

    _log = Logger()

    def __init__(
        self, name: str, client: LdapClient, reader: DomainReader, *, seconds: float, deadline_seconds: float
    ) -> None:
        self.name = name
        self.seconds = seconds
        self.limit = reader.limit
        self.reader = reader
        mapping = reader.mapping
        asked = (name, reader.base, mapping.domain_base, mapping.domain_filter, mapping.domain, mapping.domain_alias)
        self.key = hashlib.sha256(repr((*asked, mapping.domain_alias_of)).encode()).hexdigest()[:32]
        self._client = client
        self._deadline_seconds = max(deadline_seconds, MANY_SECONDS)
        self._changed: Callable[[], None] | None = None
        self._found = DomainList()
        self._complaints: tuple[str, ...] = ()

    def find_domains(self) -> Deferred[Sequence[SuppliedDomain]]:
        return run_coroutine(self._find_domains())

    async def _find_domains(self) -> Sequence[SuppliedDomain]:
        try:
            found = await self._client.with_connection(
                self._read, seconds=self._deadline_seconds, patience=MANY_PATIENCE_SECONDS
            )
        except LdapTrouble as error:
            raise Unavailable(cause=f"{self.name}: {error}") from error
        self._found = found
        self._complain(found.complaints)
        if not found.domains:
            raise Unavailable(
                cause=f"{self.name} shows no domains at all ({self.reader.what}): is the base right (domain_base), and "
                "may the service account read there?"
            )
        return found.domains

    def _read(self, connection: LdapConnection, deadline: float) -> DomainList:
        """In a thread. The same list is the same object: nobody has to compare thousands of domains again."""
        found = self.reader.read(connection, deadline)
        return self._found if found == self._found else found

    def _complain(self, complaints: tuple[str, ...]) -> None:
        """Once for the same values."""
        if complaints == self._complaints:
            return
        self._complaints = complaints
        for sentence in complaints[:_SHOWN]:
            self._log.warn("{directory}: {complaint}", directory=self.name, complaint=sentence)
        if len(complaints) > _SHOWN:
            more = len(complaints) - _SHOWN
            self._log.warn("{directory}: {more} more values of domains are of no use", directory=self.name, more=more)

    # Changes

    def follow_domains(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def heard(self, changes: Changes) -> None:
        """Told by who follows the directory: ask before the time where it may be about domains."""
        if self._changed is not None and (changes is None or any(map(self._is_about_domains, changes))):
            self._changed()

    def _is_about_domains(self, change: Change) -> bool:
        entry, known = change.entry, self._found.marks.get(change.dn.lower())
        if entry is None:
            return known is not None
        if known is not None:
            # Where users' addresses are what domains are taken from, most changes of users are of something else.
            return known != self.reader.mark(entry)
        return any(name.lower() in entry.values for name in self.reader.attributes)
