"""Who follows the changes of a directory, from its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mailsrv.directory.ldap.changes import ChangeFollower, Changes, Source
from mailsrv.directory.ldap.changes_mode import ChangesMode
from mailsrv.directory.ldap.changes_poll import Concern, PollSource
from mailsrv.directory.ldap.changes_sync import BestSource, PersistentSearchSource, SyncSource
from mailsrv.directory.ldap.client import Attempts
from mailsrv.directory.ldap.filters import any_of, configured, equal
from mailsrv.directory.ldap.mapping import LdapMapping


class ChangesSettings(Protocol):
    """What is needed of a ``[[directory]]``."""

    @property
    def base(self) -> str: ...
    @property
    def changes(self) -> ChangesMode: ...
    @property
    def changes_seconds(self) -> float: ...
    @property
    def domains(self) -> bool: ...
    @property
    def attempt_seconds(self) -> float: ...
    @property
    def deadline_seconds(self) -> float: ...


def concern_of(mapping: LdapMapping, base: str, answer_seconds: float, *, domains: bool = False) -> Concern:
    """All entries that are, or have been, users, groups or aliases: who has come to be none has changed, too.

    ``domains``: and those that are domains, where they stand below ``base``, too.
    """
    classes = [*mapping.user_classes, *mapping.group_classes, *(each.object_class for each in mapping.alias_entry)]
    what = any_of(equal("objectClass", each) for each in dict.fromkeys(classes))
    wanted = mapping.wanted()
    if domains and mapping.domain_filter and _is_below(mapping.domain_base, base):
        what = any_of([what, configured(mapping.domain_filter)])
        wanted = (*wanted, *mapping.domain, *mapping.domain_alias, *mapping.domain_alias_of)
    return Concern(base, what, tuple(dict.fromkeys(wanted)), answer_seconds)


def _is_below(domain_base: str, base: str) -> bool:
    """As far as it can be told without asking a server; what is not noticed at once is asked for now and then."""
    place = (domain_base or "{base}").replace("{base}", base).lower()
    return place == base.lower() or place.endswith("," + base.lower())


def make_source(settings: ChangesSettings, mapping: LdapMapping) -> Source | None:
    """As the settings say; None where nothing is to be followed."""
    concern = concern_of(mapping, settings.base, settings.deadline_seconds, domains=settings.domains)
    match settings.changes:
        case ChangesMode.POLL:
            return PollSource(concern, settings.changes_seconds)
        case ChangesMode.SYNC:
            return BestSource(concern, settings.changes_seconds, SyncSource)
        case ChangesMode.PERSISTENT_SEARCH:
            return BestSource(concern, settings.changes_seconds, PersistentSearchSource)
        case ChangesMode.AUTO:
            return BestSource(concern, settings.changes_seconds, None)
        case ChangesMode.CACHE:
            return None


def follower_maker(
    settings: ChangesSettings,
    mapping: LdapMapping,
    name: str,
    attempts: Attempts,
    *,
    call_from_thread: Callable[[Callable[[], object]], object],
) -> Callable[[Callable[[Changes], None]], ChangeFollower] | None:
    """Makes one for each who wants to follow: with a source of its own, which goes on where it was interrupted."""

    def make(tell: Callable[[Changes], None]) -> ChangeFollower:
        source = make_source(settings, mapping)
        if source is None:
            raise ValueError("nothing is to be followed")
        return ChangeFollower(
            name,
            attempts,
            source,
            tell,
            call_from_thread=call_from_thread,
            attempt_seconds=min(settings.attempt_seconds, settings.deadline_seconds),
        )

    return None if settings.changes is ChangesMode.CACHE else make
