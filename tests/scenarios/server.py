"""A whole mailsrv as a child process: ``twistd mailsrv`` with a generated configuration in a folder of its own.

Ports are free ones, and stay the same at every start, so that clients find the server again after a crash.
``ports`` by service: ``mx``, ``submission``, ``submissions``, ``imap``, ``imaps``, ``pop3``, ``pop3s``; ``lmtp_path``
is a Unix socket. All users have one password.
"""

from __future__ import annotations

import contextlib
import imaplib
import json
import os
import poplib
import signal
import smtplib
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mailsrv.tls.self_signed import write_self_signed
from tests.ports import lasting_port

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = "example.test"
PASSWORD = "correct horse"
ALICE = f"alice@{DOMAIN}"
BOB = f"bob@{DOMAIN}"
START_SECONDS = 90
STOP_SECONDS = 60

LISTENERS = {
    "mx": ("mx", "starttls"),
    "submission": ("submission", "starttls"),
    "submissions": ("submission", "implicit"),
    "imap": ("imap", "starttls"),
    "imaps": ("imap", "implicit"),
    "pop3": ("pop3", "starttls"),
    "pop3s": ("pop3", "implicit"),
}


class ServerDied(AssertionError):
    """The server ended when it should not have; the text is its log."""


class WholeServer:
    """Runs from :meth:`start` to :meth:`stop`, and again as often as wanted."""

    def __init__(
        self,
        folder: Path,
        *,
        users: Iterable[str] = ("alice", "bob"),
        workers: int = 1,
        store: str = "maildir",
        extra: str = "",
        sections: Mapping[str, str] | None = None,
        plaintext_networks: str = '["127.0.0.0/8"]',
        twistd: Path | None = None,
        cwd: Path = ROOT,
    ) -> None:
        """``sections`` adds lines to tables that stand here already (``{"smtp": "greeting_delay_seconds = 0"}``).

        ``twistd`` of another environment, started in ``cwd``, runs what is installed there.
        """
        self.folder = folder
        self.workers = workers
        self.config_path = folder / "mailsrv.toml"
        self.log_path = folder / "log"
        self.passwd_path = folder / "passwd"
        self.certificate = folder / "cert.pem"
        self.key = folder / "key.pem"
        self.lmtp_path = folder / "lmtp.sock"
        self.state_dir = folder / "state"
        self.mail_folder = folder / "mail"
        self.password = PASSWORD
        self.trusts_loopback = plaintext_networks != "[]"
        self.ports = {name: lasting_port() for name in LISTENERS}
        self.process: subprocess.Popen[bytes] | None = None
        self._twistd = twistd or Path(sys.executable).with_name("twistd")
        self._cwd = cwd
        self._store = store
        self._extra = extra
        self._sections = dict(sections or {})
        self._plaintext_networks = plaintext_networks
        self._log_offset = 0
        folder.mkdir(parents=True, exist_ok=True)
        write_self_signed("mail.example.test", str(self.certificate), str(self.key))
        for user in users:
            self.new_user(user)
        self.write_config()

    # Configuration

    def write_config(self, *, workers: int | None = None, extra: str | None = None) -> None:
        """Write the configuration, with our ports."""
        self.workers = self.workers if workers is None else workers
        self._extra = self._extra if extra is None else extra
        tables = {
            "tls": f'certificate = "{self.certificate}"\nkey = "{self.key}"',
            "store": f'type = "{self._store}"\npath = "mail/{{domain}}/{{local}}"',
            "auth": f'plaintext_networks = {self._plaintext_networks}\ndefault_domain = "{DOMAIN}"',
            "log": 'format = "json"',
        }
        for name, lines in self._sections.items():
            tables[name] = f"{tables[name]}\n{lines}" if name in tables else lines
        text = f'hostname = "mail.example.test"\nstate_dir = "state"\nworkers = {self.workers}\n'
        text += "".join(f"\n[{name}]\n{lines}\n" for name, lines in tables.items())
        text += f'\n[[domain]]\nname = "{DOMAIN}"\n\n[[directory]]\ntype = "passwd-file"\npath = "passwd"\n'
        for name, (service, tls) in LISTENERS.items():
            endpoint = f"tcp:{self.ports[name]}:interface=127.0.0.1"
            text += f'\n[[listen]]\nservice = "{service}"\nendpoint = "{endpoint}"\ntls = "{tls}"\n'
        text += '\n[[listen]]\nservice = "lmtp"\nendpoint = "unix:lmtp.sock:mode=600"\n'
        self.config_path.write_text(text + "\n" + self._extra)

    def new_user(self, name: str) -> str:
        """Add a user; the server sees it within a second. Answers with the address."""
        address = f"{name}@{DOMAIN}"
        with self.passwd_path.open("a") as file:
            file.write(f"{address}:{{PLAIN}}{PASSWORD}::::::\n")
        return address

    # Life

    def start(self) -> None:
        """Start and wait until it accepts connections."""
        self._log_offset = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [self._twistd, "--nodaemon", "--pidfile=", "mailsrv", "--config", self.config_path],
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.wait_for_event("mailsrv is ready", START_SECONDS)

    def stop(self) -> None:
        """SIGTERM; the server must end in good order, with status 0."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        process, self.process = self.process, None
        try:
            status = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerDied(f"did not stop in {STOP_SECONDS} s:\n{self.log_text()}") from None
        if status != 0:
            raise ServerDied(f"ended with status {status}:\n{self.log_text()}")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill every process of the server at once, as a power cut would, and wait until they are gone."""
        processes = self.processes()
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if self.process is not None:
            self.process.wait()
            self.process = None
        deadline = time.monotonic() + 20
        while any(_is_running(pid) for pid in processes) and time.monotonic() < deadline:
            time.sleep(0.01)

    def restart(self) -> None:
        """Stop in good order and start again."""
        self.stop()
        self.start()

    def reload(self) -> None:
        """SIGHUP; returns when the reload was done by all workers, or refused."""
        process = self._running()
        before = len(self.events_with("reload"))
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + START_SECONDS
        while not self._have_reloaded(self.events_with("reload")[before:]):
            self._must_live(deadline, "reload")

    def _have_reloaded(self, told: list[dict[str, Any]]) -> bool:
        """By what was logged: a process that is alone, or the supervisor's refusal, names no worker."""
        workers = {event.get("worker") for event in told}
        return None in workers or len(workers) == self.workers

    def processes(self) -> list[int]:
        """The main process and the workers."""
        if self.process is None:
            return []
        found = [self.process.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found.extend(map(int, children.read_text().split()))
        return found

    def worker_processes(self) -> list[int]:
        """The workers, without the supervisor (with one worker: the process itself)."""
        processes = self.processes()
        return processes[1:] or processes

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise RuntimeError("the server is not running")
        return self.process

    # Log

    def log_text(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def events(self) -> list[dict[str, Any]]:
        """What the server logged since its last start."""
        with self.log_path.open("rb") as file:
            file.seek(self._log_offset)
            lines = file.read().splitlines()
        events = []
        for line in lines:
            # A line under way, or what the interpreter itself printed.
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
        return events

    def events_with(self, text: str) -> list[dict[str, Any]]:
        return [event for event in self.events() if text in event["text"]]

    def wait_for_event(self, text: str, seconds: float = 10, count: int = 1) -> list[dict[str, Any]]:
        """The events with ``text``, once there are ``count``."""
        deadline = time.monotonic() + seconds
        while len(found := self.events_with(text)) < count:
            self._must_live(deadline, text)
        return found

    def _must_live(self, deadline: float, text: str) -> None:
        if self.process is not None and self.process.poll() is not None:
            raise ServerDied(f"ended while waiting for {text!r}:\n{self.log_text()}")
        if time.monotonic() > deadline:
            raise ServerDied(f"{text!r} was not logged in time:\n{self.log_text()}")
        time.sleep(0.02)

    def check_log(self) -> None:
        """No traceback, nothing critical."""
        bad = [event for event in self.events() if event["level"] == "critical" or "traceback" in event]
        assert not bad, json.dumps(bad, indent=1)[:8000]

    # Clients

    def client_context(self) -> ssl.SSLContext:
        """Trusts the server's certificate and nothing else."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def submit(self, sender: str, recipients: str | list[str], message: bytes) -> None:
        """Send as a logged-in user."""
        with smtplib.SMTP("localhost", self.ports["submission"], timeout=30) as client:
            client.starttls(context=self.client_context())
            client.login(sender, PASSWORD)
            client.sendmail(sender, recipients, message)

    def deliver(self, recipient: str | list[str], message: bytes, sender: str = "someone@example.org") -> None:
        """Hand a message in by LMTP, one transaction for each recipient (smtplib reads one reply only)."""
        client = smtplib.LMTP(str(self.lmtp_path), local_hostname="relay.example.org")
        try:
            for each in [recipient] if isinstance(recipient, str) else recipient:
                client.sendmail(sender, [each], message)
        finally:
            # Not by QUIT: a server that stops may say 421 to it, and the message was taken all the same.
            client.close()

    @contextlib.contextmanager
    def imap(self, user: str) -> Iterator[imaplib.IMAP4_SSL]:
        """A logged-in IMAP connection over TLS."""
        client = imaplib.IMAP4_SSL("localhost", self.ports["imaps"], ssl_context=self.client_context(), timeout=30)
        try:
            client.login(user, PASSWORD)
            yield client
            client.logout()
        finally:
            with contextlib.suppress(OSError):
                client.shutdown()

    @contextlib.contextmanager
    def pop3(self, user: str) -> Iterator[poplib.POP3_SSL]:
        """A logged-in POP3 connection over TLS."""
        client = poplib.POP3_SSL("localhost", self.ports["pop3s"], context=self.client_context(), timeout=30)
        try:
            client.user(user)
            client.pass_(PASSWORD)
            yield client
            client.quit()
        finally:
            client.close()

    def messages(self, user: str, mailbox: str = "INBOX") -> list[bytes]:
        """All messages of a mailbox, by IMAP."""
        with self.imap(user) as client:
            client.select(mailbox, readonly=True)
            _, data = client.fetch("1:*", "(BODY.PEEK[])")
            return [part[1] for part in data if isinstance(part, tuple)]

    def __enter__(self) -> WholeServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.stop()
        else:
            # The test's own failure is the one to show.
            self.kill()


def _is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
