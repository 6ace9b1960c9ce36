"""Which ESMTP extensions a session offers, the reply to EHLO that says so, and what else it says of itself.

An extension is offered where it wholly works: on this service, in this state (TLS or not), and unless
``smtp.extensions_off`` names it. The same set decides which parameters and commands are understood, so
nothing works that was not announced.
"""

from __future__ import annotations

import datetime
from functools import lru_cache

from attrs import frozen

from mailsrv.sasl import MECHANISM_NAMES
from mailsrv.smtp import xclient
from mailsrv.smtp.replies import Reply, make_reply
from mailsrv.smtp.settings import EXTENSIONS, Service, SmtpSettings, Verification
from mailsrv.status import OK


@frozen
class Standing:
    """What of a session decides about its extensions."""

    service: Service
    hostname: str
    is_tls: bool = False
    offers_tls: bool = False
    """STARTTLS can be had."""
    may_authenticate: bool = False
    is_authenticated: bool = False
    is_exempt: bool = False
    """From limits by address."""
    is_proxy: bool = False
    """May say XCLIENT."""
    mechanisms: tuple[str, ...] = MECHANISM_NAMES
    """Of log-in."""


@frozen(eq=False)
class Offer:
    """The extensions of a session from EHLO on."""

    keywords: frozenset[str]
    mail_parameters: frozenset[str]
    """Of MAIL. AUTH (RFC 4954 5) is read everywhere, for it means nothing here."""
    lines: tuple[str, ...]


_MAIL_PARAMETERS = {
    "SIZE": ("SIZE",),
    "8BITMIME": ("BODY",),
    "BINARYMIME": ("BODY",),
    "SMTPUTF8": ("SMTPUTF8",),
    "DSN": ("RET", "ENVID"),
    "DELIVERBY": ("BY",),
    "FUTURERELEASE": ("HOLDFOR", "HOLDUNTIL"),
    "MT-PRIORITY": ("MT-PRIORITY",),
    "REQUIRETLS": ("REQUIRETLS",),
}


def may_verify(who: Verification, standing: Standing) -> bool:
    """Whether such a session is told what an address stands for."""
    if who is Verification.AUTHENTICATED:
        return standing.is_authenticated or standing.service is Service.LMTP
    return who is Verification.ON


@lru_cache(maxsize=256)
def make_offer(settings: SmtpSettings, standing: Standing) -> Offer:
    """What such a session offers."""
    found = {name: text for name in EXTENSIONS if (text := _announcement(name, settings, standing)) is not None}
    for name in settings.extensions_off:
        found.pop(name, None)
    if "CHUNKING" not in found:
        found.pop("BINARYMIME", None)  # RFC 3030 3: there is no other way to send it
    parameters = {parameter for name in found for parameter in _MAIL_PARAMETERS.get(name, ())}
    return Offer(
        frozenset(found),
        frozenset({"AUTH", *parameters}),
        tuple(f"{name} {text}".rstrip() for name, text in found.items()),
    )


def _announcement(name: str, settings: SmtpSettings, standing: Standing) -> str | None:
    """The parameters of an EHLO keyword; None where the extension is not to be had."""
    service = standing.service
    texts: dict[str, str | None] = {
        "PIPELINING": "",  # RFC 2920
        "SIZE": str(settings.message_octets),  # RFC 1870
        "8BITMIME": "",  # RFC 6152
        "SMTPUTF8": "",  # RFC 6531
        "ENHANCEDSTATUSCODES": "",  # RFC 2034
        "CHUNKING": "",  # RFC 3030
        "BINARYMIME": "",  # RFC 3030
        "DSN": "",  # RFC 3461
        # RFC 2852; what an LMTP client hands over has its place already
        "DELIVERBY": None if service is Service.LMTP else _unless_zero(settings.deliver_by_seconds) or "",
        # RFC 4865, for submission alone; the date is put to it when it is said
        "FUTURERELEASE": _unless_zero(settings.hold_seconds) if service is Service.SUBMISSION else None,
        "MT-PRIORITY": "" if service.value in settings.priority_services else None,  # RFC 6710, no named profile
        "LIMITS": _limits(settings, standing),  # RFC 9422
        # RFC 8689 2: never without TLS
        "REQUIRETLS": "" if standing.is_tls and service is not Service.LMTP else None,
        "XCLIENT": xclient.ANNOUNCED if standing.is_proxy else None,
        "VRFY": "" if may_verify(settings.verify, standing) else None,
        "EXPN": "" if may_verify(settings.expand, standing) else None,
        "HELP": "",
        "STARTTLS": "" if standing.offers_tls and not standing.is_tls else None,  # RFC 3207
        "AUTH": " ".join(standing.mechanisms) if standing.may_authenticate else None,  # RFC 4954
    }
    return texts[name]


def _unless_zero(number: int) -> str | None:
    return str(number) if number else None


def _limits(settings: SmtpSettings, standing: Standing) -> str:
    """RFC 9422 4: as many messages and recipients as there are allowed, in any number of domains."""
    service = standing.service
    limits = []
    if not standing.is_exempt and service is not Service.LMTP:
        limits.append(f"MAILMAX={settings.messages_per_session}")
    recipients = settings.recipients_submission if service is Service.SUBMISSION else settings.recipients_mx
    limits.append(f"RCPTMAX={recipients}")
    return " ".join(limits)


def hello_reply(hostname: str, offer: Offer, hold_seconds: int, now: float) -> Reply:
    """The reply to EHLO or LHLO (RFC 5321 4.1.1.1)."""
    if "FUTURERELEASE" not in offer.keywords:
        return _timeless_reply(hostname, offer)
    # RFC 4865 4: the longest time, and the date it leads to.
    latest = datetime.datetime.fromtimestamp(int(now) + hold_seconds, datetime.UTC)
    date = latest.strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = [f"{line} {date}" if line.startswith("FUTURERELEASE ") else line for line in offer.lines]
    return make_reply(250, None, hostname, *lines)


@lru_cache(maxsize=256)
def _timeless_reply(hostname: str, offer: Offer) -> Reply:
    return make_reply(250, None, hostname, *offer.lines)


@lru_cache(maxsize=64)
def help_reply(service: Service, keywords: frozenset[str]) -> Reply:
    """The commands that work here."""
    hello = ["LHLO"] if service is Service.LMTP else ["EHLO", "HELO"]
    verbs = [*hello, "MAIL", "RCPT", "DATA"]
    verbs += ["BDAT"] * ("CHUNKING" in keywords)
    verbs += ["RSET", "NOOP", "VRFY"]
    verbs += [name for name in ("EXPN", "HELP", "STARTTLS", "AUTH", "XCLIENT") if name in keywords]
    return make_reply(214, OK, "Commands: " + " ".join([*verbs, "QUIT"]), "See RFC 5321; ask postmaster of this host")


@lru_cache(maxsize=64)
def greeting(hostname: str, service: Service) -> Reply:
    """The first word."""
    return make_reply(220, None, f"{hostname} {'LMTP' if service is Service.LMTP else 'ESMTP'} mailsrv")


@lru_cache(maxsize=64)
def farewell(hostname: str) -> Reply:
    """The reply to QUIT."""
    return make_reply(221, OK, f"{hostname} closing connection", closes=True)
