"""What can be adjusted about asking the DNS."""

from __future__ import annotations

import enum

from attrs import frozen

from mailsrv.dns.servers import parse_server
from mailsrv.setting import setting


class TrustedServers(enum.Enum):
    """Which resolvers may vouch for DNSSEC (the AD bit crosses the network unprotected)."""

    LOOPBACK = "loopback"
    """Those on this machine, and all of a resolv.conf with ``options trust-ad``."""
    ALL = "all"
    NONE = "none"


def _check_servers(_: object, __: object, servers: tuple[str, ...]) -> None:
    for text in servers:
        parse_server(text)


@frozen
class DnsSettings:
    """The resolver."""

    servers: tuple[str, ...] = setting(
        (),
        "Resolvers to ask, ADDRESS or ADDRESS:PORT; empty: those of /etc/resolv.conf.",
        check=_check_servers,
        example=("127.0.0.1",),
    )
    trust_ad: TrustedServers = setting(
        TrustedServers.LOOPBACK,
        "Which of them are believed when they say that they validated an answer (DNSSEC); "
        "they have to prove it too. Without one there is no DANE.",
    )
    self_test_signed: str = setting(
        ".", "A domain that is signed: a resolver that validates says so of its NS records."
    )
    self_test_broken: str = setting(
        "dnssec-failed.org",
        "A domain whose signatures are wrong on purpose: a resolver that validates gives no answer; "
        "empty: this is not tried.",
    )
    self_test_interval: float = setting(
        3600.0, "How often resolvers prove again that they validate.", above=0.0, unit="seconds"
    )
    timeout: float = setting(
        3.0, "How long one server may take for one answer; doubled in each round.", above=0.0, unit="seconds"
    )
    rounds: int = setting(2, "How often all servers are tried before there is no answer.", at_least=1, at_most=10)
    max_records: int = setting(100, "An answer with more records is refused.", at_least=1, at_most=1000)
    max_aliases: int = setting(8, "CNAMEs that are followed one after the other.", at_least=0, at_most=32)
    concurrent_queries: int = setting(
        200, "Questions one process asks at the same time; more wait for their turn.", at_least=1
    )
    waiting_queries: int = setting(
        10_000, "Questions that wait for their turn; with more the answer is a temporary failure.", at_least=0
    )
    cache_entries: int = setting(
        20_000, "Answers one process remembers; which was used longest ago goes first.", at_least=0
    )
    min_ttl: int = setting(5, "Answers are remembered at least so long.", at_least=0, unit="seconds")
    max_ttl: int = setting(86_400, "Answers are remembered no longer, whatever they say.", at_least=0, unit="seconds")
    max_negative_ttl: int = setting(
        900, "That a name or type does not exist is remembered no longer.", at_least=0, unit="seconds"
    )
    failure_ttl: int = setting(
        5,
        "After a failure the same is not asked again for so long (RFC 2308 7.2).",
        at_least=0,
        at_most=300,
        unit="seconds",
    )
