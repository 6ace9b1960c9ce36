"""All names of our domains, as transport rules ask about them: is this one of them, is one of them below that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mailsrv.routing.pattern import Pattern, PatternKind


class LocalNames:
    """Made once, where there are thousands in a thread; asked by a look into a set, however many there are."""

    __slots__ = ("_names", "_parents")

    def __init__(self, names: Iterable[str]) -> None:
        """``names`` are canonical."""
        self._names = frozenset(names)
        self._parents = frozenset(parent for name in self._names for parent in _parents(name))

    def __contains__(self, domain: object) -> bool:
        return domain in self._names

    def may_match(self, pattern: Pattern) -> bool:
        """Whether a rule for these recipients names an address of one of them. ``*`` means everybody elsewhere."""
        if pattern.kind is PatternKind.BELOW:
            return pattern.domain in self._parents
        return pattern.domain in self._names


def _parents(domain: str) -> Iterator[str]:
    """``b.test`` and ``test`` of ``a.b.test``."""
    _, _, parent = domain.partition(".")
    while parent:
        yield parent
        _, _, parent = parent.partition(".")
