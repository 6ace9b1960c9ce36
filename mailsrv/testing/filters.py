"""A kit for testing filters: views with sensible defaults, and a filter asked as the server asks it.

::

    def test_executables_are_refused():
        decision = ask(my_filter, Phase.MESSAGE, message=message_view(b"..."))
        assert decision.refusal is not None
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from mailsrv.address import Address
from mailsrv.filters.loading import LoadedFilter
from mailsrv.filters.pipeline import Decision, FilterPipeline
from mailsrv.filters.settings import FilterSettings
from mailsrv.interfaces.filter import IFilter, MessageView, Phase, SessionView, TransactionView


def session_view(**changes: Any) -> SessionView:
    """A session of an ordinary MX; keyword arguments replace fields."""
    values: dict[str, Any] = {
        "connection_id": "c1",
        "service": "mx",
        "client_address": "192.0.2.7",
        "client_port": 40000,
        "local_address": "192.0.2.1",
        "helo": "client.example.net",
        "is_extended": True,
    }
    return SessionView(**{**values, **changes})


def transaction_view(**changes: Any) -> TransactionView:
    """A transaction from sender@example.net to alice@example.test."""
    alice = Address("alice", "example.test")
    values: dict[str, Any] = {
        "transaction_id": "t1",
        "reverse_path": Address("sender", "example.net"),
        "recipients": (alice,),
        "recipient": None,
    }
    return TransactionView(**{**values, **changes})


def message_view(octets: bytes = b"Subject: hello\r\n\r\nHello\r\n", *, path: str = "") -> MessageView:
    """A whole message in memory; with ``path``, one that is in that file. For phase HEADERS pass the header alone."""
    end = octets.find(b"\r\n\r\n")
    header = octets if end < 0 else octets[: end + 4]
    return MessageView(header=header, size_octets=len(octets), octets=None if path else octets, path=path)


def pipeline_of(*filters: IFilter, clock: IReactorTime | None = None, **settings: Any) -> FilterPipeline:
    """A pipeline of these filters, each with ``settings`` (``on_failure``, ``timeout_seconds`` …)."""
    loaded = [LoadedFilter(each, FilterSettings(use=each.name, **settings)) for each in filters]
    return FilterPipeline(loaded, clock if clock is not None else Clock())


def ask(
    asked: IFilter,
    phase: Phase,
    *,
    session: SessionView | None = None,
    transaction: TransactionView | None = None,
    message: MessageView | None = None,
) -> Decision:
    """The decision of one filter that answers at once. Raises AssertionError if it does not."""
    decisions: list[Decision] = []
    Deferred.fromCoroutine(
        pipeline_of(asked).ask(phase, session or session_view(), transaction or transaction_view(), message)
    ).addCallback(decisions.append)
    if not decisions:
        raise AssertionError(f"filter {asked.name} did not answer at once; use pipeline_of() with a Clock")
    return decisions[0]
