"""What can be adjusted about asking the DNS."""

from __future__ import annotations

import enum

from attrs import field, frozen, validators

from mailsrv.dns.servers import parse_server


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

    servers: tuple[str, ...] = field(
        default=(),
        validator=_check_servers,
        metadata={
            "help": "Resolvers to ask, ADDRESS or ADDRESS:PORT; empty: those of /etc/resolv.conf.",
            "example": ("127.0.0.1",),
        },
    )
    trust_ad: TrustedServers = field(
        default=TrustedServers.LOOPBACK,
        metadata={
            "help": "Which of them are believed when they say that they validated an answer (DNSSEC); "
            "they have to prove it too. Without one there is no DANE."
        },
    )
    self_test_signed: str = field(
        default=".",
        metadata={"help": "A domain that is signed: a resolver that validates says so of its NS records."},
    )
    self_test_broken: str = field(
        default="dnssec-failed.org",
        metadata={
            "help": "A domain whose signatures are wrong on purpose: a resolver that validates gives no answer; "
            "empty: this is not tried."
        },
    )
    self_test_interval: float = field(
        default=3600.0,
        validator=validators.gt(0.0),
        metadata={"help": "How often resolvers prove again that they validate.", "unit": "seconds"},
    )
    timeout: float = field(
        default=3.0,
        validator=validators.gt(0.0),
        metadata={"help": "How long one server may take for one answer; doubled in each round.", "unit": "seconds"},
    )
    rounds: int = field(
        default=2,
        validator=[validators.ge(1), validators.le(10)],
        metadata={"help": "How often all servers are tried before there is no answer."},
    )
    max_records: int = field(
        default=100,
        validator=[validators.ge(1), validators.le(1000)],
        metadata={"help": "An answer with more records is refused."},
    )
    max_aliases: int = field(
        default=8,
        validator=[validators.ge(0), validators.le(32)],
        metadata={"help": "CNAMEs that are followed one after the other."},
    )
    concurrent_queries: int = field(
        default=200,
        validator=validators.ge(1),
        metadata={"help": "Questions one process asks at the same time; more wait for their turn."},
    )
    waiting_queries: int = field(
        default=10_000,
        validator=validators.ge(0),
        metadata={"help": "Questions that wait for their turn; with more the answer is a temporary failure."},
    )
    cache_entries: int = field(
        default=20_000,
        validator=validators.ge(0),
        metadata={"help": "Answers one process remembers; which was used longest ago goes first."},
    )
    min_ttl: int = field(
        default=5,
        validator=validators.ge(0),
        metadata={"help": "Answers are remembered at least so long.", "unit": "seconds"},
    )
    max_ttl: int = field(
        default=86_400,
        validator=validators.ge(0),
        metadata={"help": "Answers are remembered no longer, whatever they say.", "unit": "seconds"},
    )
    max_negative_ttl: int = field(
        default=900,
        validator=validators.ge(0),
        metadata={"help": "That a name or type does not exist is remembered no longer.", "unit": "seconds"},
    )
    failure_ttl: int = field(
        default=5,
        validator=[validators.ge(0), validators.le(300)],
        metadata={"help": "After a failure the same is not asked again for so long (RFC 2308 7.2).", "unit": "seconds"},
    )
