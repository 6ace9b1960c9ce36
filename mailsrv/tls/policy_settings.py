"""What TLS is demanded of other hosts: one rule of the file's ``[[tls_policy]]`` tables."""

from __future__ import annotations

from attrs import frozen

from mailsrv.address import parse_domain
from mailsrv.address.errors import AddressError
from mailsrv.interfaces.tls_policy import TlsLevel
from mailsrv.setting import required, setting


def _check_domain(_: object, __: object, text: str) -> None:
    if text == "*":
        return
    try:
        parse_domain(text.removeprefix("*."))
    except AddressError as error:
        raise ValueError("expected a domain, *.domain or *") from error


def _canonical(text: str) -> str:
    """In A-labels, as domains are everywhere else; what is no domain is told by the check."""
    if text == "*":
        return text
    star = "*." if text.startswith("*.") else ""
    try:
        return star + parse_domain(text.removeprefix("*."))
    except AddressError:
        return text


@frozen
class TlsPolicySettings:
    """A policy that stands above DANE and MTA-STS; the first that matches the domain wins."""

    domain: str = required(
        "A domain, *.domain for those below it, or * for all.",
        check=_check_domain,
        example="partner.example",
        converter=_canonical,
    )
    level: TlsLevel = setting(
        TlsLevel.VERIFY,
        "What a connection must fulfil before mail is sent. With dane nothing is sent to a host without TLSA records.",
    )
    names: tuple[str, ...] = setting((), "Names a certificate may have instead of the host's (level verify).")
