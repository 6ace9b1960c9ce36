"""``[gssapi]``: log-in by Kerberos ticket."""

from __future__ import annotations

import enum
import importlib.util
from typing import Any

from attrs import Attribute, frozen

from mailsrv.setting import setting


class ChannelBinding(enum.Enum):
    """Whether a log-in is tied to the TLS connection it comes over."""

    OFF = "off"
    ALLOW = "allow"
    REQUIRE = "require"


def _can_be_used(_record: object, attribute: Attribute[Any], value: str) -> None:
    if value and importlib.util.find_spec("gssapi") is None:
        raise ValueError("Kerberos needs the extra of this name: pip install mailsrv[gssapi]", attribute)


def _is_service(_record: object, attribute: Attribute[Any], value: str) -> None:
    if not value or not value.isascii() or not value.replace("-", "").replace("_", "").isalnum():
        raise ValueError("expected the name of a service, such as imap", attribute)


@frozen
class GssapiSettings:
    """``[gssapi]``: whose tickets are taken under TLS, and whose account they open."""

    keytab_file: str = setting(
        "",
        "The keys of our services (imap/HOST, pop/HOST, smtp/HOST), as ktutil and ktpass write them. "
        "Empty: GSSAPI is not offered. It is read at every log-in.",
        check=_can_be_used,
    )
    realms: tuple[str, ...] = setting((), "Realms whose users may log in, to the letter.", example=["EXAMPLE.TEST"])
    domain: str = setting(
        "", "alice@REALM is alice at this domain; empty: at the realm in lower case.", example="example.test"
    )
    hostname: str = setting(
        "",
        "Only tickets for services of this host are taken; empty: for any the keytab has keys of.",
        example="mail.example.test",
    )
    imap_service: str = setting("imap", "The first part of the principal of IMAP.", check=_is_service)
    pop3_service: str = setting("pop", "The first part of the principal of POP3.", check=_is_service)
    submission_service: str = setting("smtp", "The first part of the principal of submission.", check=_is_service)
    channel_binding: ChannelBinding = setting(
        ChannelBinding.ALLOW,
        "allow: a client that ties its log-in to TLS (tls-server-end-point) must have our certificate "
        "before it; require: others are refused; off: it is not looked at.",
    )
    counts_as_second_factor: bool = setting(
        False,
        "Whether a ticket lets in users of whom a second factor is demanded: where the KDC asks for one "
        "before it gives tickets out.",
    )
    threads: int = setting(4, "Threads of each worker that look at tickets.", at_least=1, at_most=64)
    waiting: int = setting(100, "Tickets that may wait for a thread; more are a temporary failure.", at_least=1)
    timeout_seconds: float = setting(
        10.0, "How long a ticket may take; after that it is a temporary failure.", above=0, unit="s"
    )

    def __attrs_post_init__(self) -> None:
        if self.keytab_file and not self.realms:
            raise ValueError("gssapi.realms: expected at least one realm beside keytab_file")
        if self.domain and len(self.realms) > 1:
            raise ValueError("gssapi.domain: with several realms two users could be one; leave it out")

    def service_name(self, service: str) -> str:
        """By ``imap``, ``pop3`` or ``submission``."""
        return {"imap": self.imap_service, "pop3": self.pop3_service}.get(service, self.submission_service)
