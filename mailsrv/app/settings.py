"""What is adjustable about the running server itself: listeners, log, and how it starts and stops."""

from __future__ import annotations

import enum
from typing import Any

from attrs import Attribute, frozen

from mailsrv.app.endpoints import parse_endpoint
from mailsrv.setting import required, setting
from mailsrv.wire.client_certificate import CertificateUse
from mailsrv.wire.networks import are_networks
from mailsrv.wire.tls_mode import TlsMode


def _is_endpoint(_record: object, _attribute: Attribute[Any], value: str) -> None:
    parse_endpoint(value)


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

    service: Service = required("What is spoken there.", example="imap")
    endpoint: str = required(
        "A Twisted server endpoint string; a relative path in unix: starts at this file's folder.",
        example="tcp:143:interface=0.0.0.0",
        check=_is_endpoint,
    )
    tls: TlsMode = setting(TlsMode.NONE, "No TLS, TLS when the client asks for it, or TLS from the first octet.")
    client_certificates: CertificateUse = setting(
        CertificateUse.OFF,
        "Whether clients are asked for a certificate of an issuer in tls.client_ca_file, and may log in "
        "by it; require: without one there is no connection.",
    )
    plaintext_networks: tuple[str, ...] | None = setting(
        None,
        "Networks whose clients may log in here without TLS, instead of those of [auth].",
        check=are_networks,
        example=["127.0.0.0/8"],
    )
    proxy_protocol_from: tuple[str, ...] = setting(
        (),
        "Proxies that begin every connection here with the PROXY protocol (version 1 or 2) and may say who "
        "the client is; all other connections are closed at once. Empty: no such proxy.",
        check=are_networks,
        example=["10.0.0.0/8"],
    )
    proxy_protocol_seconds: float = setting(5.0, "How long such a proxy has to say it.", above=0, unit="seconds")


@frozen
class LogSettings:
    """Where the log goes and how it reads."""

    path: str = setting(
        "",
        "The log file, opened again at SIGHUP and SIGUSR1 for rotation; empty: standard output, "
        "or mailsrv.log in state_dir for a daemon.",
    )
    format: LogFormat = setting(
        LogFormat.AUTO, "Lines for humans, a JSON object a line, or automatic: lines on a terminal, else JSON."
    )
    level: LogLevelName = setting(LogLevelName.INFO, "The least serious level that is written.")


@frozen
class ServerSettings:
    """How the server starts, stops and watches itself."""

    drain_seconds: float = setting(
        30.0, "How long running sessions may take to finish after SIGTERM.", at_least=0, unit="seconds"
    )
    backlog: int = setting(1024, "Connections the kernel keeps waiting for each listener.", at_least=1, at_most=65535)
    threads: int = setting(
        8, "Threads of each worker that wait for directories, name look-ups and certificates.", at_least=1, at_most=64
    )
    lag_warning_seconds: float = setting(
        0.5,
        "A worker that was busy for longer than this without a pause says so in the log.",
        at_least=0.01,
        unit="seconds",
    )
    growth_mib: int = setting(
        512,
        "When a worker has grown by so much since the last time, all objects in its memory are looked through for such "
        "as nobody uses any more; that takes tens of milliseconds, and the log says so.",
        at_least=32,
        unit="MiB",
    )
    status_seconds: float = setting(
        5.0, "How often each worker writes down how it is, for mailsrvctl status.", at_least=0.1, unit="seconds"
    )
    restart_delay_seconds: float = setting(
        0.5,
        "Pause before a worker that died is replaced; doubles up to restart_delay_limit_seconds.",
        above=0,
        unit="seconds",
    )
    restart_delay_limit_seconds: float = setting(
        30.0, "Longest pause before a worker that died is replaced.", above=0, unit="seconds"
    )
