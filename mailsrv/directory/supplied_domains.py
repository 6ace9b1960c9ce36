"""Keeps the domains that directories list: asks again and again, remembers the last list on disk, tells what is new.

Each worker does it for itself; the list on disk is shared. A source that does not answer keeps the domains it had: they
are served for as long as it takes, and other domains are then not known *not* to be ours (:class:`Knowledge`), so that
mail for them waits (451) and is never refused. Tables are made in a thread and replaced whole; what the reactor thread
does is a look into memory.
"""

from __future__ import annotations

import heapq
import operator
import time
from collections.abc import Callable, Sequence
from functools import partial

from attrs import define, frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.coroutines import run_coroutine
from mailsrv.directory.domains import DomainTable, Knowledge, LocalDomains
from mailsrv.directory.kept_domains import KeptDomains
from mailsrv.directory.settings import DomainSettings
from mailsrv.errors import MailError
from mailsrv.interfaces.domain_source import IDomainSource, SuppliedDomain
from mailsrv.threads import RunInThread

RETRY_SECONDS = 5.0
"""A source that did not answer is asked again after so long, or earlier where its own interval is shorter."""
HURRY_SECONDS = 1.0
"""At most so often for changes that are told."""
_TOUCH_SECONDS = 3600.0
"""How often a list that stays the same is marked as told again."""
_SHOWN = 20
_TROUBLE_CHARACTERS = 300


@frozen
class SourceState:
    """How it stands with one source, for ``mailsrvctl status``."""

    name: str
    knowledge: Knowledge
    domains: int
    age_seconds: float | None
    """Since the list was told; None where there is none."""
    trouble: str = ""
    """Why it does not answer, as far as is known."""


@define(eq=False)
class _Kept:
    """What is known of one source."""

    source: IDomainSource
    domains: tuple[SuppliedDomain, ...] = ()
    knowledge: Knowledge = Knowledge.NONE
    heard_at: float | None = None
    trouble: str = ""
    written: tuple[SuppliedDomain, ...] | None = None
    touched_at: float = 0.0
    call: IDelayedCall | None = None
    asking: Deferred[None] | None = None
    is_asked_again: bool = False
    asked_at: float | None = None
    is_taken_over: bool = False


Prepared = Callable[[], None]


@frozen
class _Difference:
    """What one table has and another has not, as the log tells it."""

    what: str
    shown: tuple[tuple[str, str], ...]
    """The first names, with where they stand."""
    more: int

    @classmethod
    def between(cls, one: DomainTable, other: DomainTable, what: str) -> _Difference:
        names = one.found.keys() - other.found.keys()
        shown = tuple((name, one.origin(name)) for name in heapq.nsmallest(_SHOWN, names))
        return cls(what, shown, len(names) - len(shown))


@frozen
class _Made:
    """What a thread has made of the lists."""

    table: DomainTable
    prepared: Prepared | None
    removed: _Difference
    added: _Difference


class SuppliedDomains:
    """Keeps ``domains`` up to date. Without sources there is nothing to do, and nothing is done.

    ``prepare`` is called in a thread with each new table, and what it answers in the reactor thread once the table is
    used: others may have to make something of it, too.
    """

    _log = Logger()

    def __init__(
        self,
        domains: LocalDomains,
        static: Sequence[DomainSettings],
        sources: Sequence[IDomainSource],
        kept: KeptDomains,
        *,
        clock: IReactorTime,
        run_in_thread: RunInThread,
        prepare: Callable[[DomainTable], Prepared] | None = None,
        seconds: Callable[[], float] = time.time,
    ) -> None:
        """``seconds`` tells the time of day."""
        self._domains = domains
        self._static = tuple(static)
        self._kept = [_Kept(source) for source in sources]
        self._files = kept
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._prepare = prepare
        self._seconds = seconds
        self._news = 0
        self._is_running = False
        self._complaints: tuple[str, ...] = ()
        self._is_default_missing = False

    # Life

    def load(self) -> Deferred[None]:
        """Take up what is kept on disk. Never fails: what cannot be read is not there."""
        return run_coroutine(self._load())

    def take_over(self, former: SuppliedDomains) -> None:
        """What is known of the same sources, before ``load``.

        They are not asked again before that is used: a reload would wait for a directory that is down. And the disk may
        have been full when it was told.
        """
        known = {each.source.key: each for each in former._kept if each.knowledge is not Knowledge.NONE}
        for each in self._kept:
            old = known.get(each.source.key)
            if old is not None and len(old.domains) <= each.source.limit:
                each.domains, each.written, each.heard_at = old.domains, old.written, old.heard_at
                each.touched_at, each.knowledge, each.trouble = old.touched_at, old.knowledge, old.trouble
                each.is_taken_over = True

    async def _load(self) -> None:
        if not self._kept:
            return
        for each in self._kept:
            source = each.source
            if each.knowledge is not Knowledge.NONE:
                continue
            try:
                found = await self._run_in_thread(partial(self._files.read, source.key, source.limit))
            except (OSError, ValueError) as error:
                self._log.error(
                    "{directory}: the kept list of domains cannot be used: {error}",
                    directory=source.name,
                    error=str(error),
                )
                continue
            if found is not None and each.knowledge is Knowledge.NONE:
                each.domains = each.written = found.domains
                each.knowledge, each.heard_at = Knowledge.LAST_HEARD, found.heard_at
        await self._run_in_thread(partial(self._files.clear_others, [each.source.key for each in self._kept]))
        await self._publish(is_news=False)

    def start(self) -> None:
        """From now on. Asks at once."""
        self._is_running = True
        for each in self._kept:
            each.source.follow_domains(partial(self._ask_soon, each))
            self._begin(each)

    def stop(self) -> None:
        """No more; the table stays as it is."""
        self._is_running = False
        for each in self._kept:
            if each.call is not None and each.call.active():
                each.call.cancel()

    def ask_all(self) -> Deferred[None]:
        """Ask every source once, now, but for those of which everything was taken over. Never fails."""
        asking = [self._asked(each) for each in self._kept if not each.is_taken_over]
        return gatherResults(asking).addCallback(lambda _: None)

    def states(self) -> Sequence[SourceState]:
        """From memory."""
        now = self._seconds()
        return [
            SourceState(
                each.source.name,
                each.knowledge,
                len(each.domains),
                None if each.heard_at is None else max(0.0, now - each.heard_at),
                each.trouble,
            )
            for each in self._kept
        ]

    def may_have_changed_since(self, instant: float) -> bool:
        """Whether a source has not told its domains after this (seconds of the epoch), or does not answer now."""
        return any(
            each.knowledge is not Knowledge.ALL or each.heard_at is None or each.heard_at <= instant
            for each in self._kept
        )

    # Asking

    def _begin(self, each: _Kept) -> None:
        each.call = None
        if self._is_running:
            self._asked(each)

    def _ask_soon(self, each: _Kept) -> None:
        """Something has changed."""
        if not self._is_running:
            return
        if each.asking is not None:
            each.is_asked_again = True
            return
        since = self._clock.seconds() - (each.asked_at if each.asked_at is not None else -HURRY_SECONDS)
        self._schedule(each, max(0.0, HURRY_SECONDS - since))

    def _schedule(self, each: _Kept, seconds: float) -> None:
        if each.call is not None and each.call.active():
            if each.call.getTime() <= self._clock.seconds() + seconds:
                return
            each.call.cancel()
        each.call = self._clock.callLater(seconds, self._begin, each)

    def _asked(self, each: _Kept) -> Deferred[None]:
        """Fires when the question is answered, or not; one is under way at a time."""
        waiter: Deferred[None] = Deferred()
        if each.asking is not None:
            each.asking.chainDeferred(waiter)
            return waiter
        each.asking = Deferred()
        each.asking.chainDeferred(waiter)
        each.asked_at = self._clock.seconds()
        run_coroutine(self._ask(each)).addErrback(self._failed, each).addBoth(self._done, each)
        return waiter

    def _failed(self, failure: Failure, each: _Kept) -> None:
        self._log.failure("{directory}: its domains cannot be kept up", failure, directory=each.source.name)
        self._note_trouble(each, "a fault")

    def _done(self, _: object, each: _Kept) -> None:
        asking, each.asking = each.asking, None
        if self._is_running:
            interval = each.source.seconds
            if each.is_asked_again:
                interval = min(interval, HURRY_SECONDS)
            elif each.knowledge is not Knowledge.ALL:
                interval = min(interval, RETRY_SECONDS)
            each.is_asked_again = False
            self._schedule(each, interval)
        if asking is not None:
            asking.callback(None)

    async def _ask(self, each: _Kept) -> None:
        try:
            found = tuple(await each.source.find_domains())
        except MailError as error:
            self._note_trouble(each, error.cause or str(error))
            return
        had = each.domains
        # In a thread: there may be thousands. A source that has nothing new answers with what it had.
        is_same = found is had or await self._run_in_thread(partial(operator.eq, found, had))
        if is_same and each.written is had:
            each.written = found
        each.domains = found
        before, each.knowledge = each.knowledge, Knowledge.ALL
        each.heard_at = self._seconds()
        if each.trouble:
            self._log.info("{directory} tells its domains again", directory=each.source.name)
            each.trouble = ""
        if not is_same or before is not Knowledge.ALL:
            await self._publish(is_news=before is not Knowledge.NONE)
        await self._keep(each)

    def _note_trouble(self, each: _Kept, cause: str) -> None:
        if not each.trouble:
            what = "mail for unknown domains waits" if each.knowledge is Knowledge.NONE else "the last list is used"
            self._log.error(
                "{directory} does not tell its domains, {what}: {cause}",
                directory=each.source.name,
                what=what,
                cause=cause,
            )
        each.trouble = cause[:_TROUBLE_CHARACTERS]
        if each.knowledge is Knowledge.ALL:
            each.knowledge = Knowledge.LAST_HEARD
        if self._domains.knowledge is Knowledge.ALL:
            # For the table as it is: what another source has just told may not be in it yet.
            self._domains.use(self._domains.table, Knowledge.LAST_HEARD)

    # What is known

    def _knowledge(self) -> Knowledge:
        """As good as that of the source that is known least."""
        known = {each.knowledge for each in self._kept}
        return next((worst for worst in (Knowledge.NONE, Knowledge.LAST_HEARD) if worst in known), Knowledge.ALL)

    async def _publish(self, *, is_news: bool) -> None:
        """Use what all sources have told by now; ``is_news``: it was known before, so that what differs is told."""
        self._news += 1
        news = self._news
        supplied = [each.domains for each in self._kept]
        made = await self._run_in_thread(partial(self._make, supplied, self._domains.table))
        if news != self._news:
            # Another source has answered meanwhile, and its table has this answer, too.
            return
        self._domains.use(made.table, self._knowledge())
        if made.prepared is not None:
            made.prepared()
        self._tell(made, is_news=is_news)

    def _make(self, supplied: Sequence[Sequence[SuppliedDomain]], old: DomainTable) -> _Made:
        """In a thread."""
        new = DomainTable(self._static, supplied)
        return _Made(
            new,
            None if self._prepare is None else self._prepare(new),
            _Difference.between(old, new, "is no longer delivered here"),
            _Difference.between(new, old, "is delivered here from now on"),
        )

    def _tell(self, made: _Made, *, is_news: bool) -> None:
        complaints = tuple(made.table.complaints)
        if complaints != self._complaints:
            self._complaints = complaints
            for sentence in complaints[:_SHOWN]:
                self._log.error("A domain of a directory cannot be used: {what}", what=sentence)
        self._tell_default()
        if not is_news:
            self._log.info("{count} names of domains are delivered here", count=len(made.table))
            return
        for one in (made.added, made.removed):
            for name, origin in one.shown:
                self._log.info("{domain} {what} ({origin})", domain=name, what=one.what, origin=origin)
            if one.more:
                self._log.info("{count} more domains: each {what}", count=one.more, what=one.what)

    def _tell_default(self) -> None:
        """A server has a postmaster (RFC 5321 4.5.1): without any [[domain]] that depends on the directories."""
        primary = self._domains.primary
        is_missing = self._domains.knowledge is Knowledge.ALL and bool(primary) and primary not in self._domains
        if is_missing and not self._is_default_missing:
            self._log.error(
                "{domain} (auth.default_domain) is none of the domains that directories list: mail for <postmaster> is "
                "refused",
                domain=primary,
            )
        self._is_default_missing = is_missing

    async def _keep(self, each: _Kept) -> None:
        """On disk, for the next start. A failure costs an outage's service, no more."""
        now, source = self._seconds(), each.source
        try:
            if each.written is not each.domains:
                await self._run_in_thread(partial(self._files.write, source.key, source.name, each.domains))
                each.written, each.touched_at = each.domains, now
            elif abs(now - each.touched_at) > _TOUCH_SECONDS:
                await self._run_in_thread(partial(self._files.touch, source.key))
                each.touched_at = now
        except OSError as error:
            if each.written is not None or not each.touched_at:
                self._log.error(
                    "{directory}: the list of domains cannot be kept: {error}", directory=source.name, error=str(error)
                )
            each.written, each.touched_at = None, now
