"""A filter that is one Python function.

::

    @filter_function(phase="rcpt")
    def no_list_owner(transaction):
        if transaction.recipient.local_part.endswith("-owner"):
            return Reject("Nobody lives there")

The function names the views it wants to see as its parameters (``phase``, ``session``,
``transaction``, ``message``: any of them, in any order) and may be ``async``. Its name with
dashes for underscores is the filter's name. Kept in a module of ``twisted/plugins/``, the
decorated function is found by ``use = "no-list-owner"``. A parameter ``arguments`` gets the strings that
stand in the filter's table as ``arguments = [...]``.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, cast

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import implementer

from mailsrv.filters.loading import IConfigurableFilter
from mailsrv.interfaces.filter import Answer, IFilter, MessageView, Phase, SessionView, TransactionView

FilterCallable = Callable[..., "Answer | Deferred[Answer] | Awaitable[Answer]"]
VIEW_NAMES = ("phase", "session", "transaction", "message", "arguments")


@implementer(IFilter, IPlugin, IConfigurableFilter)
@frozen
class FilterFunction:
    """What :func:`filter_function` makes. Still callable like the function it was."""

    name: str
    phases: frozenset[Phase]
    function: FilterCallable = field(repr=False)
    parameters: tuple[str, ...] = field(repr=False)
    """Which of :data:`VIEW_NAMES` the function takes."""
    arguments: tuple[str, ...] = ()
    """From the configuration."""

    @property
    def arguments_help(self) -> str:
        """Told with everything else in the docstring."""
        return self.description

    def with_arguments(self, arguments: Sequence[str]) -> FilterFunction:
        """The same with arguments; ValueError for a function that takes none."""
        if "arguments" not in self.parameters:
            raise ValueError("it takes none")
        return evolve(self, arguments=tuple(arguments))

    @property
    def description(self) -> str:
        """The function's docstring."""
        return inspect.getdoc(self.function) or ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def ask(
        self,
        phase: Phase,
        session: SessionView,
        transaction: TransactionView | None,
        message: MessageView | None,
    ) -> Answer | Deferred[Answer]:
        views = {
            "phase": phase,
            "session": session,
            "transaction": transaction,
            "message": message,
            "arguments": self.arguments,
        }
        answer = self.function(**{name: views[name] for name in self.parameters})
        if inspect.iscoroutine(answer):
            return Deferred.fromCoroutine(cast("Coroutine[Deferred[Any], Any, Answer]", answer))
        return cast("Answer | Deferred[Answer]", answer)


def filter_function(
    *,
    phase: Phase | str | Sequence[Phase | str],
    name: str = "",
) -> Callable[[FilterCallable], FilterFunction]:
    """Make a filter of the function below, asked in ``phase`` (one or several; a :class:`Phase` or its value).

    Raises ValueError for a phase there is not, and TypeError for a parameter that is no view:
    both when the module is imported, not when mail arrives.
    """
    phases = frozenset(Phase(each) for each in ([phase] if isinstance(phase, (Phase, str)) else phase))

    def decorate(function: FilterCallable) -> FilterFunction:
        parameters = tuple(inspect.signature(function).parameters)
        unknown = [parameter for parameter in parameters if parameter not in VIEW_NAMES]
        if unknown:
            raise TypeError(
                f"filter function {function.__name__}: no such view {', '.join(unknown)}; "
                f"parameters are any of {', '.join(VIEW_NAMES)}"
            )
        return FilterFunction(name or function.__name__.replace("_", "-"), phases, function, parameters)

    return decorate
