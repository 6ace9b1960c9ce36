"""The domains mail is delivered for here, with their other names: those of the settings, and those a directory lists.

Looking a domain up is a look into memory, whoever named it. The table that is looked into is made as a whole, in a
thread where it is large, and then replaced as a whole (:meth:`LocalDomains.use`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence

from mailsrv.address import parse_domain
from mailsrv.directory.settings import DomainSettings
from mailsrv.interfaces.domain_source import SuppliedDomain

STATIC_ORIGIN = "[[domain]]"
_CHAIN = 10
"""A name of a name of a name …: so far it is followed."""


class Knowledge(enum.Enum):
    """What it means that a domain is not in the table."""

    ALL = "all"
    """It is not ours."""
    LAST_HEARD = "last heard"
    """It was not ours when a directory last told; it cannot be asked now."""
    NONE = "none"
    """Nobody knows: a directory has never told."""


class DomainTable:
    """All names. The settings' own win over a directory's, and of directories the first.

    Raises ValueError where two domains of the settings share a name, and AddressError for what is no domain.
    """

    __slots__ = ("_found", "_origins", "complaints")

    def __init__(self, static: Iterable[DomainSettings], supplied: Iterable[Sequence[SuppliedDomain]] = ()) -> None:
        self._found: dict[str, tuple[str, DomainSettings]] = {}
        self._origins: dict[str, str] = {}
        self.complaints: list[str] = []
        """What of the directories' domains cannot be used, in sentences."""
        for domain in static:
            main = parse_domain(domain.name)
            for name in (main, *map(parse_domain, domain.aliases)):
                if name in self._found:
                    raise ValueError(f"the domain {name} is named twice")
                self._found[name] = (main, domain)
        aliases: dict[str, SuppliedDomain] = {}
        for source in supplied:
            for each in source:
                if each.name in self._found or each.name in aliases:
                    continue
                if each.main == each.name:
                    self._found[each.name] = (each.name, DomainSettings(each.name))
                    self._origins[each.name] = each.origin
                else:
                    aliases[each.name] = each
        for each in aliases.values():
            self._add_alias(each, aliases)

    def _add_alias(self, alias: SuppliedDomain, aliases: Mapping[str, SuppliedDomain]) -> None:
        main = alias.main
        for _ in range(_CHAIN):
            further = aliases.get(main)
            if main in self._found or further is None:
                break
            main = further.main
        found = self._found.get(main)
        if found is None:
            self.complaints.append(f"{alias.name} stands for {alias.main}, which is no domain of ours ({alias.origin})")
            return
        self._found[alias.name] = found
        self._origins[alias.name] = alias.origin

    def __len__(self) -> int:
        return len(self._found)

    @property
    def found(self) -> Mapping[str, tuple[str, DomainSettings]]:
        """By every name, the main one and its settings."""
        return self._found

    def origin(self, name: str) -> str:
        """Who says that it is ours; "" if it is not."""
        return self._origins.get(name, STATIC_ORIGIN if name in self._found else "")


class LocalDomains:
    """Finds the settings of a domain by its name or by one of its other names.

    ``default``: the domain of names without one, where the settings have no ``[[domain]]``. ``supplied`` says that a
    directory has domains, too: until :meth:`use` it is not known which.

    Raises as :class:`DomainTable`.
    """

    __slots__ = ("_default", "_find", "knowledge", "table")

    def __init__(self, domains: Iterable[DomainSettings], *, default: str = "", supplied: bool = False) -> None:
        self._default = parse_domain(default) if default else ""
        self.use(DomainTable(domains), Knowledge.NONE if supplied else Knowledge.ALL)

    def use(self, table: DomainTable, knowledge: Knowledge) -> None:
        """From now on this is what is known."""
        self.table = table
        self.knowledge = knowledge
        self._find = table.found.get

    @property
    def names(self) -> tuple[str, ...]:
        """The main names: those of the settings in their order, then the others."""
        return tuple(dict.fromkeys(main for main, _ in self.table.found.values()))

    @property
    def primary(self) -> str:
        """The domain of names without one: the first of the settings, or the default; "" if there is none."""
        first = next(iter(self.table.found), "")
        if first and self.table.origin(first) == STATIC_ORIGIN:
            return first
        return self._default or first

    @property
    def all_names(self) -> Mapping[str, str]:
        """Every name with the main name it stands for."""
        return {name: main for name, (main, _) in self.table.found.items()}

    def find(self, domain: str) -> tuple[str, DomainSettings] | None:
        """The main name and the settings of a canonical domain; None where it is not ours, as far as is known."""
        return self._find(domain)

    def __contains__(self, domain: object) -> bool:
        return domain in self.table.found
