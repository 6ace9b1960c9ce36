"""An LDAP directory from its settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime

from mailsrv.coroutines import next_turn
from mailsrv.directory.ldap.answers import AnswerCache
from mailsrv.directory.ldap.changes_build import follower_maker
from mailsrv.directory.ldap.changes_mode import ChangesMode
from mailsrv.directory.ldap.client import Attempts, LdapClient, ServiceAccount, TlsFiles
from mailsrv.directory.ldap.directory import LdapDirectory
from mailsrv.directory.ldap.domains import DomainReader, LdapDomains
from mailsrv.directory.ldap.entry import EntryReader
from mailsrv.directory.ldap.groups import GroupReader
from mailsrv.directory.ldap.kept import KeepingTimes
from mailsrv.directory.ldap.login_check import LoginCheck
from mailsrv.directory.ldap.lookups import MANY_PATIENCE_SECONDS, MANY_SECONDS, LookUps
from mailsrv.directory.ldap.mapping import LdapMapping, changed, load_preset
from mailsrv.directory.ldap.memberships import MembershipReader
from mailsrv.directory.ldap.password_check import BindCheck, CompareCheck, IPasswordCheck
from mailsrv.directory.ldap.rights import RightsReader
from mailsrv.directory.ldap.rights_questions import RightsQuestions
from mailsrv.directory.ldap.servers import LdapServer, Servers, parse_server
from mailsrv.directory.ldap.service_records import SCHEME, ServerFinder, ServiceName, SrvTrust, parse_service
from mailsrv.directory.ldap.workers import InPlace, IWorkers, Workers
from mailsrv.directory.passwords.hashing import HashingPool
from mailsrv.interfaces.resolver import IResolver

_WITH_CONTROLLERS = frozenset({"active-directory", "samba-ad"})


class LdapSettings(Protocol):
    """What is needed of a ``[[directory]]``."""

    @property
    def uri(self) -> tuple[str, ...]: ...
    @property
    def preset(self) -> str: ...
    @property
    def srv_trust(self) -> SrvTrust: ...
    @property
    def login(self) -> LoginCheck: ...
    @property
    def password_attribute(self) -> str: ...
    @property
    def base(self) -> str: ...
    @property
    def starttls(self) -> bool: ...
    @property
    def ca_file(self) -> str: ...
    @property
    def client_certificate_file(self) -> str: ...
    @property
    def client_key_file(self) -> str: ...
    @property
    def bind_external(self) -> bool: ...
    @property
    def bind_dn(self) -> str: ...
    @property
    def bind_password_file(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def login_threads(self) -> int: ...
    @property
    def queued_requests(self) -> int: ...
    @property
    def attempt_seconds(self) -> float: ...
    @property
    def deadline_seconds(self) -> float: ...
    @property
    def retry_seconds(self) -> float: ...
    @property
    def idle_seconds(self) -> float: ...
    @property
    def cache_seconds(self) -> float: ...
    @property
    def outage_seconds(self) -> float: ...
    @property
    def cache_entries(self) -> int: ...
    @property
    def changes(self) -> ChangesMode: ...
    @property
    def changes_seconds(self) -> float: ...
    @property
    def group_members(self) -> int: ...
    @property
    def user_groups(self) -> int: ...
    @property
    def administrator_groups(self) -> tuple[str, ...]: ...
    @property
    def attributes(self) -> Mapping[str, Any]: ...
    @property
    def domains(self) -> bool: ...
    @property
    def domains_seconds(self) -> float: ...
    @property
    def domains_limit(self) -> int: ...


@frozen(eq=False)
class LdapParts:
    """A directory in its parts, for who wants to look inside."""

    name: str
    mapping: LdapMapping
    servers: Servers
    attempts: Attempts
    client: LdapClient
    reader: EntryReader
    groups: GroupReader
    memberships: MembershipReader
    rights: RightsReader
    questions: RightsQuestions
    directory: LdapDirectory
    domains: LdapDomains | None = None
    """Where it is asked for domains."""


def make_mapping(settings: LdapSettings) -> LdapMapping:
    """The preset with the settings' own changes. Raises ValueError."""
    return changed(load_preset(settings.preset), settings.attributes)


def make_ldap_directory(
    settings: LdapSettings,
    *,
    clock: IReactorTime,
    default_domain: str,
    seconds: Callable[[], float] = time.time,
    tells_groups: bool = False,
    resolver: Callable[[], IResolver] | None = None,
    hashing: HashingPool | None = None,
) -> LdapParts:
    """Asks nobody yet. A ``clock`` that is no reactor (commands, tests): questions are answered in place.

    ``tells_groups``: rules on log-ins need them. ``resolver``: whom to ask for the servers of a domain. ``hashing``:
    for comparing passwords.
    """
    places = [parse_place(uri, settings.preset, starttls=settings.starttls) for uri in settings.uri]
    name = f"ldap {settings.uri[0]} {settings.base}"
    mapping = make_mapping(settings)
    group = Servers(name, [each for each in places if isinstance(each, LdapServer)], seconds=time.monotonic)
    finder = None
    if any(isinstance(each, ServiceName) for each in places):
        if resolver is None:
            raise ValueError("names of services need somebody who asks the DNS")
        finder = ServerFinder(places, resolver, group, clock, starttls=settings.starttls, trust=settings.srv_trust)
    attempts = Attempts(
        group,
        TlsFiles(settings.ca_file, settings.client_certificate_file, settings.client_key_file),
        ServiceAccount(settings.bind_dn, settings.bind_password_file, settings.bind_external),
        attempt_seconds=min(settings.attempt_seconds, settings.deadline_seconds),
    )
    searches: IWorkers
    binds: IWorkers
    probes: IWorkers
    call_from_thread: Callable[[Callable[[], object]], object]
    take_turns: Callable[[], Deferred[None]] | None = None
    if IReactorFromThreads.providedBy(clock):

        def workers(what: str, threads: int) -> Workers:
            return Workers(
                f"{name} ({what})",
                reactor=clock,
                threads=threads,
                queued=settings.queued_requests,
                idle_seconds=settings.idle_seconds,
            )

        searches, binds = workers("searches", settings.threads), workers("log-ins", settings.login_threads)
        probes = workers("probes", 1)
        call_from_thread = IReactorFromThreads(clock).callFromThread
        take_turns = partial(next_turn, clock)
    else:
        searches, binds, probes = InPlace(), InPlace(), InPlace()

        call_from_thread = _at_once
    client = LdapClient(
        attempts,
        searches=searches,
        binds=binds,
        probes=probes,
        clock=clock,
        call_from_thread=call_from_thread,
        retry_seconds=settings.retry_seconds,
        finder=finder,
    )
    reader = EntryReader(mapping, name=name, default_domain=default_domain.lower(), seconds=seconds)
    groups = GroupReader(
        reader, base=settings.base, limit=settings.group_members, default_domain=default_domain.lower()
    )
    memberships = MembershipReader(reader, base=settings.base, limit=settings.user_groups)
    rights = RightsReader(reader, groups, base=settings.base, default_domain=default_domain.lower())
    times = KeepingTimes(clock.seconds, settings.cache_seconds, settings.outage_seconds, settings.cache_entries)
    questions = RightsQuestions(
        name,
        client,
        memberships,
        rights,
        times,
        seconds=settings.deadline_seconds,
        many_seconds=max(settings.deadline_seconds, MANY_SECONDS),
        many_patience=MANY_PATIENCE_SECONDS,
    )
    cache = AnswerCache(
        clock=clock.seconds,
        seconds=settings.cache_seconds,
        outage_seconds=settings.outage_seconds,
        entries=settings.cache_entries,
    )
    look_ups = LookUps(
        name,
        client,
        reader,
        groups,
        cache,
        base=settings.base,
        seconds=settings.deadline_seconds,
        clock=clock.seconds,
        take_turns=take_turns,
    )
    domains = None
    if settings.domains:
        domains = LdapDomains(
            name,
            client,
            DomainReader(mapping, settings.base, settings.domains_limit),
            seconds=settings.domains_seconds,
            deadline_seconds=settings.deadline_seconds,
        )
    directory = LdapDirectory(
        name,
        client,
        reader,
        look_ups,
        cache,
        rights=questions,
        password_check=_make_check(settings, client, hashing, name),
        base=settings.base,
        seconds=settings.deadline_seconds,
        clock=clock,
        list_seconds=settings.cache_seconds,
        tells_groups=tells_groups,
        administrator_groups=settings.administrator_groups,
        make_follower=follower_maker(settings, mapping, name, attempts, call_from_thread=call_from_thread),
        domains=domains,
    )
    return LdapParts(
        name, mapping, group, attempts, client, reader, groups, memberships, rights, questions, directory, domains
    )


def _make_check(settings: LdapSettings, client: LdapClient, hashing: HashingPool | None, name: str) -> IPasswordCheck:
    if settings.login is LoginCheck.BIND:
        return BindCheck(client)
    if hashing is None:
        raise ValueError("to compare passwords takes somebody who hashes them")
    return CompareCheck(client, hashing, attribute=settings.password_attribute, name=name)


def parse_place(uri: str, preset: str, *, starttls: bool) -> LdapServer | ServiceName:
    """A server, or a name under which the DNS has some. Raises ValueError."""
    if uri.startswith(SCHEME):
        return parse_service(uri, has_controllers=preset in _WITH_CONTROLLERS)
    return parse_server(uri, starttls=starttls)


def _at_once(function: Callable[[], object]) -> object:
    return function()
