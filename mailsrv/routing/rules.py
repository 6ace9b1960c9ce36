"""The transport rules: which one matches, and where it leads.

The first rule wins that matches both recipient and sender. Without a match, addresses of local domains
are local and all others go to their mail exchangers. ``to = "*"`` means everybody elsewhere: a local
domain is led away only by a rule that names it (the domain, an address in it, or ``*.parent``), so that
a smarthost for everything does not carry local mail off.

Asked by a table, not rule by rule: a thousand rules cost what ten do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from attrs import frozen

from mailsrv.address import Address
from mailsrv.interfaces.queue import Destination, Transport
from mailsrv.interfaces.tls_policy import TlsLevel
from mailsrv.routing.local_names import LocalNames
from mailsrv.routing.pattern import Pattern, PatternKind, keys_of, parse_pattern
from mailsrv.routing.settings import RouteSettings
from mailsrv.routing.via import Action, Via, parse_via, split_host_and_port

_TRANSPORTS = {Action.MX: Transport.MX, Action.SMTP: Transport.SMTP, Action.LMTP: Transport.LMTP}
_LOCAL = Via(Action.LOCAL)
_MX = Via(Action.MX)


@frozen
class Smarthost:
    """How to speak to the host of ``smtp:HOST:PORT``."""

    host: str
    port: int
    username: str = ""
    password_file: str = ""
    tls: TlsLevel = TlsLevel.OPPORTUNISTIC


@frozen
class Route:
    """Where an address leads. ``rule`` counts from 0; None where no rule matched."""

    action: Action
    destination: Destination | None = None
    """For mx, smtp and lmtp."""
    text: str = ""
    """For reject: what the peer reads."""
    rule: int | None = None

    @property
    def is_onward(self) -> bool:
        """Whether mail leaves by the queue."""
        return self.destination is not None


@frozen
class _Rule:
    number: int
    to: Pattern
    sender: Pattern
    via: Via
    smarthost: Smarthost | None


class TransportRules:
    """The ``[[route]]`` tables. ``local_domains``: all names of our domains, canonical, until others are told."""

    def __init__(self, routes: Sequence[RouteSettings], local_domains: Collection[str]) -> None:
        """Raises ValueError for what is malformed or contradicts itself; see :func:`find_contradictions`."""
        self._by_key: dict[str, list[_Rule]] = {}
        smarthosts: dict[Destination, Smarthost] = {}
        self._rules: list[_Rule] = []
        for number, route in enumerate(routes):
            rule = _parse_rule(number, route)
            self._rules.append(rule)
            self._by_key.setdefault(rule.to.key, []).append(rule)
            if rule.smarthost is not None:
                place = Destination(Transport.SMTP, rule.via.argument)
                if smarthosts.setdefault(place, rule.smarthost) != rule.smarthost:
                    raise ValueError(f"route[{number}]: {place} is there already with another log-in or TLS level")
        self.smarthosts: Mapping[Destination, Smarthost] = smarthosts
        self.use_local_names(LocalNames(local_domains))

    def use_local_names(self, names: LocalNames) -> None:
        """From now on these are our domains."""
        self.is_local: Callable[[str], bool] = names.__contains__
        self.has_local_rules = any(names.may_match(rule.to) for rule in self._rules)
        """Whether a rule may match an address of a local domain: nobody has to be asked otherwise."""

    def find(self, sender: Address | None, recipient: Address) -> Route:
        """The way for a recipient; ``sender`` None is the null reverse-path."""
        is_local = self.is_local(recipient.domain)
        if self._by_key:
            rule = self._first(sender, recipient, is_local=is_local)
            if rule is not None:
                return _lead(rule.via, recipient, rule.number)
        return _lead(_LOCAL if is_local else _MX, recipient, None)

    def _first(self, sender: Address | None, recipient: Address, *, is_local: bool) -> _Rule | None:
        best: _Rule | None = None
        for key in keys_of(recipient):
            if is_local and key == "*":
                continue
            for rule in self._by_key.get(key, ()):
                if best is not None and rule.number > best.number:
                    break
                if rule.sender.matches(sender):
                    best = rule
                    break
        return best


def _parse_rule(number: int, route: RouteSettings) -> _Rule:
    via = parse_via(route.via)
    smarthost = None
    if via.action is Action.SMTP:
        host, port = split_host_and_port(via.argument)
        tls = route.tls or (TlsLevel.VERIFY if route.username else TlsLevel.OPPORTUNISTIC)
        smarthost = Smarthost(host, port, route.username, route.password_file, tls)
    return _Rule(number, parse_pattern(route.to), parse_pattern(route.sender), via, smarthost)


def _lead(via: Via, recipient: Address, rule: int | None) -> Route:
    transport = _TRANSPORTS.get(via.action)
    if transport is None:
        return Route(via.action, None, via.argument if via.action is Action.REJECT else "", rule)
    target = recipient.domain if transport is Transport.MX else via.argument
    return Route(via.action, Destination(transport, target), "", rule)


@frozen
class Contradiction:
    """A key of one ``[[route]]`` that cannot stand as it does."""

    route: int
    key: str
    expected: str


def find_contradictions(
    routes: Sequence[RouteSettings], local_domains: Collection[str], *, may_be_more: bool = False
) -> Sequence[Contradiction]:
    """What is wrong with well-formed rules, for the check of the configuration.

    ``may_be_more``: a directory has local domains, too, and only it knows which.
    """
    names = LocalNames(local_domains)
    found: list[Contradiction] = []
    smarthosts: dict[str, tuple[int, Smarthost]] = {}
    for number, route in enumerate(routes):
        rule = _parse_rule(number, route)
        if rule.to.kind is PatternKind.NULL:
            found.append(Contradiction(number, "to", "expected recipients; <> is a sender"))
        if rule.via.action is Action.LOCAL and not may_be_more and not names.may_match(rule.to):
            found.append(Contradiction(number, "to", "local needs a domain of [[domain]], or an address in one"))
        if rule.smarthost is None:
            for key in ("username", "password_file", "tls"):
                if getattr(route, key):
                    found.append(Contradiction(number, key, "belongs to smtp:HOST:PORT; leave it out"))
            continue
        if bool(route.username) is not bool(route.password_file):
            missing = "password_file" if route.username else "username"
            found.append(Contradiction(number, missing, "missing; username and password_file go together"))
        if route.username and route.tls in {TlsLevel.NONE, TlsLevel.OPPORTUNISTIC}:
            found.append(Contradiction(number, "tls", 'a password needs "encrypt", "verify" or "dane"'))
        first, known = smarthosts.setdefault(rule.via.argument, (number, rule.smarthost))
        if known != rule.smarthost:
            found.append(Contradiction(number, "via", f"the same host as route[{first}], with another log-in or tls"))
    return found
