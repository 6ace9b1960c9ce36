"""What is adjustable about the running server itself: listeners, log, and how it starts and stops."""

from __future__ import annotations

import enum
from typing import Any

from attrs import Attribute, field, frozen, validators

from mailsrv.wire.client_certificate import CertificateUse
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.tls_mode import TlsMode


def _are_networks(_record: object, _attribute: Attribute[Any], value: tuple[str, ...]) -> None:
    NetworkSet(value)


class Service(enum.Enum):
    """What a listener speaks."""

    MX = "mx"
    SUBMISSION = "submission"
    LMTP = "lmtp"
    IMAP = "imap"
    POP3 = "pop3"


class LogFormat(enum.Enum):
    """How the log is written."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


class LogLevelName(enum.Enum):
    """The least serious level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"
    CRITICAL = "critical"


@frozen
class ListenSettings:
    """A place the server listens at; any number of them."""

    service: Service = field(metadata={"help": "What is spoken there.", "example": "imap"})
    endpoint: str = field(
        metadata={
            "help": "A Twisted server endpoint string; a relative path in unix: starts at this file's folder.",
            "example": "tcp:143:interface=0.0.0.0",
        }
    )
    tls: TlsMode = field(
        default=TlsMode.NONE,
        metadata={"help": "No TLS, TLS when the client asks for it, or TLS from the first octet."},
    )
    client_certificates: CertificateUse = field(
        default=CertificateUse.OFF,
        metadata={
            "help": "Whether clients are asked for a certificate of an issuer in tls.client_ca_file, and may log in "
            "by it; require: without one there is no connection."
        },
    )
    plaintext_networks: tuple[str, ...] | None = field(
        default=None,
        metadata={
            "help": "Networks whose clients may log in here without TLS, instead of those of [auth].",
            "example": ["127.0.0.0/8"],
        },
    )
    proxy_protocol_from: tuple[str, ...] = field(
        default=(),
        validator=_are_networks,
        metadata={
            "help": "Proxies that begin every connection here with the PROXY protocol (version 1 or 2) and may say who "
            "the client is; all other connections are closed at once. Empty: no such proxy.",
            "example": ["10.0.0.0/8"],
        },
    )
    proxy_protocol_seconds: float = field(
        default=5.0,
        validator=validators.gt(0),
        metadata={"help": "How long such a proxy has to say it.", "unit": "seconds"},
    )


@frozen
class LogSettings:
    """Where the log goes and how it reads."""

    path: str = field(
        default="",
        metadata={
            "help": "The log file, opened again at SIGHUP and SIGUSR1 for rotation; empty: standard output, "
            "or mailsrv.log in state_dir for a daemon."
        },
    )
    format: LogFormat = field(
        default=LogFormat.AUTO,
        metadata={"help": "Lines for humans, a JSON object a line, or automatic: lines on a terminal, else JSON."},
    )
    level: LogLevelName = field(
        default=LogLevelName.INFO, metadata={"help": "The least serious level that is written."}
    )


@frozen
class ServerSettings:
    """How the server starts, stops and watches itself."""

    drain_seconds: float = field(
        default=30.0,
        validator=validators.ge(0),
        metadata={"help": "How long running sessions may take to finish after SIGTERM.", "unit": "seconds"},
    )
    backlog: int = field(
        default=1024,
        validator=validators.ge(1),
        metadata={"help": "Connections the kernel keeps waiting for each listener."},
    )
    threads: int = field(
        default=8,
        validator=[validators.ge(1), validators.le(64)],
        metadata={"help": "Threads of each worker that wait for directories, name look-ups and certificates."},
    )
    lag_warning_seconds: float = field(
        default=0.5,
        validator=validators.ge(0.01),
        metadata={
            "help": "A worker that was busy for longer than this without a pause says so in the log.",
            "unit": "seconds",
        },
    )
    status_seconds: float = field(
        default=5.0,
        validator=validators.ge(0.1),
        metadata={
            "help": "How often each worker writes down how it is, for mailsrvctl status.",
            "unit": "seconds",
        },
    )
    restart_delay_seconds: float = field(
        default=0.5,
        validator=validators.gt(0),
        metadata={
            "help": "Pause before a worker that died is replaced; doubles up to restart_delay_limit_seconds.",
            "unit": "seconds",
        },
    )
    restart_delay_limit_seconds: float = field(
        default=30.0,
        validator=validators.gt(0),
        metadata={"help": "Longest pause before a worker that died is replaced.", "unit": "seconds"},
    )
