"""The domains of the settings and those that directories list, and who else has to know when these change."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime

from mailsrv.config.schema import Settings
from mailsrv.directory.domains import DomainTable, LocalDomains
from mailsrv.directory.kept_domains import KeptDomains, kept_folder
from mailsrv.directory.supplied_domains import Prepared, SuppliedDomains
from mailsrv.interfaces.domain_source import IDomainSource, ISuppliesDomains
from mailsrv.routing.local_names import LocalNames
from mailsrv.routing.rules import TransportRules
from mailsrv.threads import RunInThread


def domain_sources(directory: object) -> Sequence[IDomainSource]:
    """Those of a directory that have domains."""
    return ISuppliesDomains(directory).domain_sources() if ISuppliesDomains.providedBy(directory) else ()


def make_local_domains(settings: Settings, directory: object) -> LocalDomains:
    """Those of the settings; what directories have is not known yet."""
    supplied = bool(domain_sources(directory))
    return LocalDomains(settings.domain, default=settings.auth.default_domain, supplied=supplied)


def make_supplied_domains(
    settings: Settings,
    domains: LocalDomains,
    directory: object,
    routes: TransportRules,
    *,
    clock: IReactorTime,
    run_in_thread: RunInThread,
) -> SuppliedDomains:
    """Keeps ``domains`` and ``routes`` up to date. Asks nobody yet."""

    def prepare(table: DomainTable) -> Prepared:
        names = LocalNames(table.found)
        return lambda: routes.use_local_names(names)

    return SuppliedDomains(
        domains,
        settings.domain,
        domain_sources(directory),
        KeptDomains(kept_folder(settings.state_dir)),
        clock=clock,
        run_in_thread=run_in_thread,
        prepare=prepare,
    )
