"""Rules on who may use which service from where: the first that fits decides, and without one it is allowed.

What a rule refuses is answered as a wrong password is, after the same work and in the same time: who guesses learns
neither that the password was right nor that there is such a rule. The number of the rule is in the log.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from attrs import frozen

from mailsrv.address import Address, parse_domain, parse_mailbox
from mailsrv.auth.access_settings import LOCAL, AccessAction, AccessSettings
from mailsrv.auth.names import comparable_group
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.wire.networks import NetworkSet


@frozen
class AccessDecision:
    """``rule`` counts from 1, as the tables stand in the configuration; 0 where none fits."""

    is_allowed: bool
    rule: int = 0


class AccessRules:
    """The ``[[access]]`` tables, in their order."""

    def __init__(self, settings: Sequence[AccessSettings] = ()) -> None:
        self._rules = [_Rule(each) for each in settings]

    def __len__(self) -> int:
        return len(self._rules)

    def decide(self, user: DirectoryUser, service: str, client_address: str) -> AccessDecision:
        """``service`` as in credentials; "" as address is a Unix socket."""
        for number, rule in enumerate(self._rules, 1):
            if rule.fits(user, service, client_address):
                return AccessDecision(rule.allows, number)
        return AccessDecision(True)


class _Rule:
    """One table. Names are compared without case: that is how directories compare them."""

    def __init__(self, settings: AccessSettings) -> None:
        self.allows = settings.action is AccessAction.ALLOW
        self._users = frozenset(_canonical(parse_mailbox(text)) for text in settings.users)
        self._groups = frozenset(comparable_group(text) for text in settings.groups)
        self._domains = frozenset(parse_domain(text) for text in settings.domains)
        self._services = frozenset(service.value for service in settings.services)
        self._is_anywhere = not settings.networks
        self._networks = NetworkSet(text for text in settings.networks if text != LOCAL)
        self._is_local = LOCAL in settings.networks

    def fits(self, user: DirectoryUser, service: str, client_address: str) -> bool:
        return (
            (not self._services or service in self._services)
            and (not self._users or _canonical(user.address) in self._users)
            and (not self._domains or user.address.domain in self._domains)
            and (not self._groups or any(comparable_group(name) in self._groups for name in user.groups))
            and (self._is_anywhere or (client_address in self._networks if client_address else self._is_local))
        )


def _canonical(address: Address) -> str:
    """As accounts are called: ``ß`` and ``ss`` are two names there, and case is none."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(address)).lower())
