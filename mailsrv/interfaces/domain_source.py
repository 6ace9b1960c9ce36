"""Who else than the settings knows domains of ours: a directory that lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface


@frozen(order=True)
class SuppliedDomain:
    """A name of a domain of ours, canonical."""

    name: str
    main: str
    """The domain whose addresses those of this name mean: itself, or another one, which may be of the settings."""
    origin: str = ""
    """Where it stands, for people."""


class IDomainSource(Interface):
    """Tells all domains it has, again and again."""

    name: str = Attribute("Of the directory, for people.")
    key: str = Attribute("Tells what was asked for: lists of sources with the same key may stand for each other.")
    seconds: float = Attribute("How often it is to be asked.")
    limit: int = Attribute("So many domains are told at most.")

    def find_domains() -> Deferred[Sequence[SuppliedDomain]]:
        """All of them in the order of their names, each name once. Fails with Unavailable.

        None at all is Unavailable, too: a tree that is being filled anew, or an account that has lost its rights, shows
        the same, and must not turn all mail away.
        """

    def follow_domains(changed: Callable[[], None]) -> None:
        """Have ``changed`` called, in the reactor thread, when it is worth asking before the time."""


class ISuppliesDomains(Interface):
    """A directory that has domains, or consists of some that have."""

    def domain_sources() -> Sequence[IDomainSource]:
        """In the order in which they count: none where nothing of that kind is configured."""
