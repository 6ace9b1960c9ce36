"""Which user name a Kerberos principal means (RFC 4120 6.2; its text form as RFC 1964 2.1.1 has it)."""

from __future__ import annotations

from mailsrv.auth.gssapi_settings import GssapiSettings


class PrincipalRefused(Exception):
    """It is nobody's who may have an account; the text is for the log."""


def account_name(principal: str, settings: GssapiSettings) -> str:
    """``alice@REALM`` as a user name with a domain. Raises PrincipalRefused."""
    if "\\" in principal:
        # Escapes stand for separators within a name: no account has such a name.
        raise PrincipalRefused("a principal with escapes")
    name, at, realm = principal.rpartition("@")
    if not at or not name or "@" in name:
        raise PrincipalRefused("a principal without a realm")
    if realm not in settings.realms:
        raise PrincipalRefused(f"a realm that is not allowed: {realm[:200]!a}")
    if "/" in name:
        # alice/admin is another identity than alice; imap/host is no user.
        raise PrincipalRefused("a principal of several parts")
    return f"{name}@{settings.domain or realm.lower()}"


def is_ours(target: str, settings: GssapiSettings) -> bool:
    """Whether a ticket was made out to the host of the settings, where one is set: ``imap/HOST@REALM``."""
    if not settings.hostname:
        return True
    _service, _, host = target.rpartition("@")[0].partition("/")
    return host.lower() == settings.hostname.lower()
