"""Asks the filters of a phase one after the other and makes one decision of their answers.

An answer counts as a whole or not at all: every verdict of it is checked before any is taken
(R-FILT-1). A filter that raises, is late or answers what the phase cannot use is *lost*; then its
policy decides (``on_failure``). The first refusal or Discard ends the asking; of several
Redirects the last stands. Filters run in the reactor thread: one that computes for long belongs
in ``deferToThread``, for a timeout cannot interrupt it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import cast

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - Twisted's own name
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.filters.loading import LoadedFilter
from mailsrv.filters.settings import OnFailure
from mailsrv.interfaces.filter import (
    Accept,
    AddHeader,
    Answer,
    Defer,
    Discard,
    MessageView,
    Phase,
    Redirect,
    Reject,
    SessionView,
    TransactionView,
    Verdict,
)
from mailsrv.message import InvalidField, format_field
from mailsrv.status import POLICY_DELAY, EnhancedStatus

PERMITTED: dict[Phase, tuple[type[object], ...]] = {
    Phase.CONNECT: (Accept, Reject, Defer),
    Phase.HELO: (Accept, Reject, Defer),
    Phase.MAIL: (Accept, Reject, Defer, Discard, AddHeader),
    Phase.RCPT: (Accept, Reject, Defer, Discard, AddHeader, Redirect),
    Phase.HEADERS: (Accept, Reject, Defer, Discard, AddHeader, Redirect),
    Phase.MESSAGE: (Accept, Reject, Defer, Discard, AddHeader, Redirect),
}
"""What each phase can use. At connect and helo there is no message yet that a field could go into."""

# Stricter than the grammar: of the controls only the tab.
_BAD_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
VALUE_LIMIT_OCTETS = 65536
TEXT_LIMIT = 400
HEADERS_LIMIT = 100
"""Fields one answer may add."""
REDIRECT_LIMIT = 1000
"""Recipients one Redirect may name."""


class UnusableVerdict(Exception):
    """A filter's answer that cannot be carried out in this phase."""


@frozen
class FilterNote:
    """Who said what, for the log."""

    filter: str
    phase: str
    verdict: str

    def __str__(self) -> str:
        return f"{self.filter}@{self.phase}={self.verdict}"


@frozen
class Decision:
    """What the filters of one phase came to. At most one of ``refusal`` and ``discard``."""

    refusal: MailError | None = None
    discard: bool = False
    headers: tuple[AddHeader, ...] = ()
    redirect: tuple[Address, ...] | None = None
    notes: tuple[FilterNote, ...] = field(default=(), repr=False)
    """Everything but plain acceptance."""


NO_OBJECTION = Decision()


class FilterPipeline:
    """The filters of a server, in the order of the configuration. Holds no state of a session."""

    _log = Logger()

    def __init__(self, filters: Iterable[LoadedFilter], clock: IReactorTime) -> None:
        self._filters = tuple(filters)
        self._clock = clock
        self._asked = {phase: tuple(each for each in self._filters if phase in each.filter.phases) for phase in Phase}

    @property
    def filters(self) -> tuple[LoadedFilter, ...]:
        """All of them, in order."""
        return self._filters

    def wants(self, phase: Phase) -> bool:
        """Whether anybody wants to be asked: where not, the caller saves itself the views."""
        return bool(self._asked[phase])

    async def ask(
        self,
        phase: Phase,
        session: SessionView,
        transaction: TransactionView | None = None,
        message: MessageView | None = None,
    ) -> Decision:
        """Never raises: a lost filter is part of the decision."""
        decision = NO_OBJECTION
        for loaded in self._asked[phase]:
            verdicts = await self._verdicts(loaded, phase, session, transaction, message)
            for verdict in verdicts:
                decision = _added(decision, verdict, FilterNote(loaded.name, phase.value, describe(verdict)))
            if decision.refusal is not None or decision.discard:
                break
        return decision

    async def _verdicts(
        self,
        loaded: LoadedFilter,
        phase: Phase,
        session: SessionView,
        transaction: TransactionView | None,
        message: MessageView | None,
    ) -> Sequence[Verdict]:
        settings = loaded.settings
        seconds = settings.message_timeout_seconds if phase is Phase.MESSAGE else settings.timeout_seconds
        try:
            answer: object = loaded.filter.ask(phase, session, transaction, message)
            if inspect.iscoroutine(answer):  # a class may say ``async def ask``
                answer = Deferred.fromCoroutine(answer)
            if isinstance(answer, Deferred):
                answer = await answer.addTimeout(seconds, self._clock)
            return checked(phase, cast("Answer", answer))
        except Exception:
            self._log_loss(loaded, phase, session, transaction)
        if settings.on_failure is OnFailure.ACCEPT:
            return ()
        return (Defer("A filter is out of order, try again later", POLICY_DELAY),)

    def _log_loss(
        self, loaded: LoadedFilter, phase: Phase, session: SessionView, transaction: TransactionView | None
    ) -> None:
        failure = Failure()
        self._log.failure(
            "filter {filter} lost in phase {phase}: {reason}; policy {policy}",
            failure=failure,
            filter=loaded.name,
            phase=phase.value,
            reason="late" if failure.check(TimeoutError) else failure.type.__name__ if failure.type else "",
            policy=loaded.settings.on_failure.value,
            connection_id=session.connection_id,
            transaction_id=transaction.transaction_id if transaction else "",
        )


def checked(phase: Phase, answer: Answer) -> Sequence[Verdict]:
    """The verdicts of an answer, fit to be carried out. Raises :class:`UnusableVerdict`."""
    if answer is None:
        return ()
    verdicts: Sequence[Verdict] = tuple(answer) if isinstance(answer, (list, tuple)) else (answer,)  # type: ignore[assignment]
    permitted = PERMITTED[phase]
    for verdict in verdicts:
        if not isinstance(verdict, permitted):
            raise UnusableVerdict(f"{type(verdict).__name__} cannot be answered in phase {phase.value}")
        if isinstance(verdict, AddHeader):
            _check_header(verdict)
        elif isinstance(verdict, Redirect) and not 0 < len(verdict.recipients) <= REDIRECT_LIMIT:
            raise UnusableVerdict(f"Redirect names {len(verdict.recipients)} recipients")
    if sum(isinstance(verdict, AddHeader) for verdict in verdicts) > HEADERS_LIMIT:
        raise UnusableVerdict(f"more than {HEADERS_LIMIT} fields")
    return [verdict for verdict in verdicts if not isinstance(verdict, Accept)]


def _check_header(verdict: AddHeader) -> None:
    """No CR, LF or NUL gets into a header section by way of a filter (R-INJ-2)."""
    if _BAD_IN_VALUE.search(verdict.value) or len(verdict.value.encode(errors="replace")) > VALUE_LIMIT_OCTETS:
        raise UnusableVerdict("AddHeader with a value that cannot stand in a field")
    try:
        format_field(verdict.name.encode("ascii"), verdict.value.encode())
    except (UnicodeEncodeError, InvalidField) as error:
        raise UnusableVerdict("AddHeader with a name or a value that cannot stand in a field") from error


def _added(decision: Decision, verdict: Verdict, note: FilterNote) -> Decision:
    notes = (*decision.notes, note)
    if decision.refusal is not None or decision.discard:
        return decision  # what stands after a final verdict in the same answer means nothing
    match verdict:
        case Reject(text=text, status=status):
            return evolve(decision, refusal=_refusal(5, status, text, note), notes=notes)
        case Defer(text=text, status=status):
            return evolve(decision, refusal=_refusal(4, status, text, note), notes=notes)
        case Discard():
            return evolve(decision, discard=True, notes=notes)
        case AddHeader():
            return evolve(decision, headers=(*decision.headers, verdict), notes=notes)
        case Redirect(recipients=recipients):
            return evolve(decision, redirect=recipients, notes=notes)
    return decision


def _refusal(kind: int, status: EnhancedStatus, text: str, note: FilterNote) -> MailError:
    """A Reject is permanent and a Defer temporary, whatever class the filter wrote into its status."""
    line = re.sub(r"[^ -~]+", " ", text)[:TEXT_LIMIT].strip() or "Refused by policy"
    return MailError(EnhancedStatus(kind, status.subject, status.detail), line, cause=f"filter {note.filter}")


def describe(verdict: Verdict) -> str:
    """One word or two for the log; never a value out of the message."""
    match verdict:
        case Discard(reason=reason):
            return f"discard ({reason})" if reason else "discard"
        case AddHeader(name=name):
            return f"add-header {name}"
        case Redirect(recipients=recipients):
            return f"redirect to {', '.join(map(str, recipients[:5]))}"
        case Reject(text=text):
            return f"reject ({text})"
        case Defer(text=text):
            return f"defer ({text})"
    return "accept"
