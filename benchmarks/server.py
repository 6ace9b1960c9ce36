"""A throw-away mailsrv: its own folder, configuration and users; what it costs while it runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from mailsrv.tls.self_signed import write_self_signed

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
DOMAIN = "example.test"
PASSWORD = "pw"

CONFIGURATION = """\
hostname = "mail.example.test"
state_dir = "state"
workers = {workers}

[tls]
certificate = "cert.pem"
key = "key.pem"

[[domain]]
name = "example.test"

[[directory]]
type = "passwd-file"
path = "passwd"

[store]
type = "maildir"
path = "{mail}/{{local}}/Maildir"

[auth]
plaintext_networks = ["127.0.0.0/8"]
default_domain = "example.test"

[limits]
exempt_networks = ["127.0.0.0/8"]

[submission]
messages_per_hour = 0
messages_per_day = 0
recipients_per_hour = 0
recipients_per_day = 0
{listeners}"""

LISTENER = """
[[listen]]
service = "{service}"
endpoint = "tcp:{port}:interface=127.0.0.1"
tls = "{tls}"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """Runs from ``start`` to ``stop``; ``ports`` by service: mx, submission, lmtp, imap, imaps, pop3."""

    def __init__(
        self, folder: Path, users: Iterable[str], *, workers: int = 1, extra: str = "", probe: Path | None = None
    ) -> None:
        """``probe``: where :mod:`benchmarks.probe` writes how busy the reactor was."""
        self.folder = folder
        self.probe = probe
        self.mail = folder / "mail"
        shutil.rmtree(folder, ignore_errors=True)
        self.mail.mkdir(parents=True)
        write_self_signed("mail.example.test", str(folder / "cert.pem"), str(folder / "key.pem"))
        services = {
            "mx": ("mx", "none"),
            "submission": ("submission", "starttls"),
            "lmtp": ("lmtp", "none"),
            "imap": ("imap", "starttls"),
            "imaps": ("imap", "implicit"),
            "pop3": ("pop3", "starttls"),
        }
        self.ports = {name: free_port() for name in services}
        listeners = "".join(
            LISTENER.format(service=service, port=self.ports[name], tls=tls)
            for name, (service, tls) in services.items()
        )
        (folder / "mailsrv.toml").write_text(
            CONFIGURATION.format(workers=workers, mail=self.mail, listeners=listeners) + extra
        )
        (folder / "passwd").write_text("".join(f"{user}@{DOMAIN}:{{PLAIN}}{PASSWORD}::::::\n" for user in users))
        self.process: subprocess.Popen[bytes] | None = None

    def maildir(self, user: str) -> Path:
        return self.mail / user / "Maildir"

    def start(self) -> None:
        program: list[object] = [Path(sys.executable).with_name("twistd")]
        if self.probe is not None:
            program = [sys.executable, "-m", "benchmarks.probe", self.probe]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*map(str, program), "--nodaemon", "--pidfile=", "mailsrv", "--config", self.folder / "mailsrv.toml"],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 30
        for port in self.ports.values():
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if self.process.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit(f"the server did not start, see {self.folder}/log") from None
                    time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
            self.process = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def processes(self) -> list[int]:
        if self.process is None:
            return []
        found = [self.process.pid]
        for pid in found:
            for thread in Path(f"/proc/{pid}/task").glob("*/children"):
                found.extend(map(int, thread.read_text().split()))
        return found

    def cpu_seconds(self) -> float:
        """Of all processes and of those they waited for."""
        total = 0.0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(map(int, fields[13:15])) / TICKS
            # clock_getcpuclockid(3): nanoseconds, where stat counts ticks too coarse for a single FETCH.
            total += time.clock_gettime(~pid << 3 | 2)
        return total

    def memory_kib(self) -> int:
        """Proportional set size of all processes."""
        total = 0
        for pid in self.processes():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total

    def delivered(self) -> int:
        """Messages in new/ and cur/ of all INBOXes."""
        count = 0
        for account in os.scandir(self.mail):
            for part in ("new", "cur"):
                with contextlib.suppress(FileNotFoundError):
                    count += len(os.listdir(os.path.join(account.path, "Maildir", part)))
        return count
