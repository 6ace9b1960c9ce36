"""What systemd wants to hear from a service of ``Type=notify-reload`` (sd_notify(3)).

Datagrams to the socket named by ``$NOTIFY_SOCKET``; without it every call does nothing. Sending
never waits and never fails loudly: a manager that does not listen is no reason to stop serving.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from twisted.internet.task import LoopingCall


class ServiceManager:
    """The way to tell systemd how we are."""

    def __init__(self, address: str = "", watchdog_seconds: float = 0.0) -> None:
        self._address = address
        self._watchdog_seconds = watchdog_seconds
        self._watchdog: LoopingCall | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], process_id: int) -> ServiceManager:
        """What ``$NOTIFY_SOCKET``, ``$WATCHDOG_USEC`` and ``$WATCHDOG_PID`` say."""
        microseconds = environment.get("WATCHDOG_USEC", "")
        meant = environment.get("WATCHDOG_PID", str(process_id)) == str(process_id)
        seconds = int(microseconds) / 1e6 if microseconds.isdigit() and meant else 0.0
        return cls(environment.get("NOTIFY_SOCKET", ""), seconds)

    @property
    def is_present(self) -> bool:
        return bool(self._address)

    def tell(self, *assignments: str) -> None:
        """Send ``READY=1``, ``STATUS=…`` and the like in one datagram."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            try:
                channel.sendto("\n".join(assignments).encode(), address)
            except OSError:
                return

    def ready(self, status: str) -> None:
        """The server accepts connections (also: a reload is over)."""
        self.tell("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        """A reload has begun; ``MONOTONIC_USEC`` is what Type=notify-reload insists on."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """SIGTERM was taken note of."""
        self.stop_watchdog()
        self.tell("STOPPING=1", "STATUS=finishing running sessions")

    def start_watchdog(self, reactor: Any) -> None:
        """Ping from the reactor, so that a reactor that is stuck is noticed (WatchdogSec=)."""
        if self._watchdog_seconds <= 0 or not self._address:
            return
        self._watchdog = LoopingCall(self.tell, "WATCHDOG=1")
        self._watchdog.clock = reactor
        self._watchdog.start(self._watchdog_seconds / 3)

    def stop_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None
