"""The domains as commands ask for them: directories that list some are asked now, else what they told last is taken."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import execute
from twisted.internet.task import Clock

from mailsrv.app.local_domains import domain_sources, make_local_domains
from mailsrv.cli.directory import make_directory_in_place
from mailsrv.cli.output import say
from mailsrv.config.schema import Settings
from mailsrv.directory.domains import Knowledge, LocalDomains
from mailsrv.directory.kept_domains import KeptDomains, kept_folder
from mailsrv.directory.settings import DirectorySettings, DirectoryType, DomainSettings
from mailsrv.directory.supplied_domains import SuppliedDomains


class HasDomains(Protocol):
    """What is needed of settings to tell where domains are."""

    @property
    def domain(self) -> tuple[DomainSettings, ...]: ...
    @property
    def directory(self) -> tuple[DirectorySettings, ...]: ...


def make_domains_in_place(settings: Settings, directory: object) -> LocalDomains:
    """All there are now, of the settings and of ``directory``. A directory's trouble goes to standard error."""
    domains = make_local_domains(settings, directory)
    clock: Any = Clock()
    supplied = SuppliedDomains(
        domains,
        settings.domain,
        domain_sources(directory),
        # Whoever runs the command: the lists are the server's to write.
        KeptDomains(kept_folder(settings.state_dir), is_read_only=True),
        clock=clock,
        run_in_thread=execute,
    )
    supplied.load()
    supplied.ask_all()
    for state in supplied.states():
        if state.knowledge is not Knowledge.ALL:
            what = "nothing is known of them" if state.knowledge is Knowledge.NONE else "the last list is used"
            say(f"mailsrvctl: {state.name} does not tell its domains, {what}: {state.trouble}", err=True)
    return domains


def is_own_domain(settings: HasDomains, domain: str) -> bool:
    """Whether mail for a canonical domain is delivered here. Directories are asked where the settings do not say so."""
    if domain in LocalDomains(settings.domain):
        return True
    if not supplies_domains(settings) or not isinstance(settings, Settings):
        return False
    return domain in make_domains_in_place(settings, make_directory_in_place(settings))


def supplies_domains(settings: HasDomains) -> bool:
    """Whether a directory lists domains."""
    return any(each.domains and each.type is DirectoryType.LDAP for each in settings.directory)


def where_domains_are(settings: HasDomains) -> str:
    """For sentences about a domain that is none of ours."""
    return "in the configuration" + (" and the directory" if supplies_domains(settings) else "")
