"""The domains mail is delivered for here, with their other names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mailsrv.address import parse_domain
from mailsrv.directory.settings import DomainSettings


class LocalDomains:
    """Finds the settings of a domain by its name or by one of its other names.

    Raises ValueError where two domains share a name, and AddressError for what is no domain.
    """

    def __init__(self, domains: Iterable[DomainSettings]) -> None:
        self._by_name: dict[str, DomainSettings] = {}
        self._canonical: dict[str, str] = {}
        for domain in domains:
            main = parse_domain(domain.name)
            for name in (main, *map(parse_domain, domain.aliases)):
                if name in self._by_name:
                    raise ValueError(f"the domain {name} is named twice")
                self._by_name[name] = domain
                self._canonical[name] = main

    @property
    def names(self) -> tuple[str, ...]:
        """The main names, in the order of the settings."""
        return tuple(dict.fromkeys(self._canonical.values()))

    @property
    def all_names(self) -> Mapping[str, str]:
        """Every name with the main name it stands for."""
        return dict(self._canonical)

    def find(self, domain: str) -> tuple[str, DomainSettings] | None:
        """The main name and the settings of a canonical domain; None where it is not ours."""
        settings = self._by_name.get(domain)
        return None if settings is None else (self._canonical[domain], settings)

    def __contains__(self, domain: object) -> bool:
        return domain in self._by_name
