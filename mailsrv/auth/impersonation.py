"""Administrators who log in as somebody else, with their own credentials (support; RFC 4422 3.4.1 calls it proxying).

Two ways to ask for it: ``alice*admin`` as user name, or an authorization identity (PLAIN's authzid, SCRAM's ``a=``, the
name beside a token). Failures count for whose credentials they are, the administrator's. What a client is not
permitted is refused as a wrong password is.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from mailsrv.address import Address
from mailsrv.auth.names import parse_user_name
from mailsrv.auth.settings import ImpersonationSettings
from mailsrv.interfaces.directory import DirectoryUser


@frozen
class Claim:
    """Whose credentials a client says it has, and whom it wants to be."""

    address: Address | None
    """None where the name can be nobody's."""
    name: str
    """What failures are counted and logged under."""
    acting_for: Address | None = None
    """The account asked for, where one was named; it may be the same."""
    is_contradictory: bool = False
    """Two different accounts were asked for, or one that can be nobody's."""


def read_claim(authcid: str, authzid: str, settings: ImpersonationSettings, default_domain: str) -> Claim:
    """What user name and authorization identity ("" for none) say together, as a client gave them."""
    wanted, name = [], authcid
    if settings.enabled and authcid.count(settings.separator) == 1:
        target, _, name = authcid.partition(settings.separator)
        wanted.append(target)
    return _claim(name, [*wanted, authzid] if authzid else wanted, authcid, default_domain)


def read_proven_claim(account: str, authzid: str, default_domain: str) -> Claim:
    """The same for a name that somebody else vouches for, in a certificate, ticket or token.

    It is one name, whatever marks are in it: who can have ``alice*admin`` certified is no administrator.
    """
    return _claim(account, [authzid] if authzid else [], account, default_domain)


def _claim(name: str, wanted: Sequence[str], shown: str, default_domain: str) -> Claim:
    address = parse_user_name(name, default_domain)
    accounts = {parse_user_name(each, default_domain) for each in wanted}
    acting_for = next(iter(accounts), None)
    return Claim(
        address,
        ascii(shown[:320]) if address is None else str(address),
        acting_for,
        len(accounts) > 1 or (bool(accounts) and acting_for is None),
    )


def objection_to(
    administrator: DirectoryUser, target: DirectoryUser | None, service: str, settings: ImpersonationSettings
) -> str:
    """Why ``administrator`` may not log in as ``target``, for the log; "" if they may."""
    if not settings.enabled or not administrator.is_administrator:
        return "asks to act for somebody else"
    if service not in {each.value for each in settings.services}:
        return f"asks to act for somebody else by {service}"
    if target is None:
        return "asks to act for somebody unknown"
    if not target.may_log_in:
        return f"asks to act for {target.address}, who may not log in"
    if target.is_administrator and not settings.administrators:
        return f"asks to act for {target.address}, who is an administrator"
    return ""
