"""What the three mail servers have in common: a life, a port, a log, and a Maildir with all that arrived.

Each takes mail for ``peer.test`` (and, from this machine, for anybody) and puts it into one Maildir;
``reject@peer.test`` gets 550. Mail for other domains goes to ``127.0.0.1:relay_port``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.interop.peers.installing import cache_folder
from tests.ports import lasting_port

DOMAIN = "peer.test"
HOSTNAME = "mx.peer.test"
REJECTED = f"reject@{DOMAIN}"
START_SECONDS = 20
ARRIVAL_SECONDS = 20


class PeerFailed(AssertionError):
    """A peer did not do what it should; the text has its log."""


def _write_certificate(certificate: Path, key: Path) -> None:
    """Self-signed, for the host name and the loopback address."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={HOSTNAME}"),
            *("-addext", f"subjectAltName=DNS:{HOSTNAME},DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )


class Peer:
    """Starts with ``with``; its files are gone afterwards."""

    name = ""
    offers_chunking = False
    offers_smtputf8 = False
    offers_dsn = False
    offers_starttls = True
    sendmail_group: str | None = None
    """The group that its package would have made the program's own."""

    def __init__(self, *, relay_port: int | None = None, relay_tls: bool = False) -> None:
        """``relay_tls``: send onwards over TLS only."""
        self.relay_port = relay_port or lasting_port()
        self.relay_tls = relay_tls
        self.port = lasting_port()
        runs = cache_folder() / "run"
        runs.mkdir(exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=runs))
        self.folder.chmod(0o755)
        self.maildir = self.folder / "Maildir"
        self.log_path = self.folder / "log"
        self.certificate = self.folder / "cert.pem"
        self.key = self.folder / "key.pem"
        self.process: subprocess.Popen[bytes] | None = None
        _write_certificate(self.certificate, self.key)

    # What each peer says for itself

    def prepare(self) -> None:
        """Write the configuration; make folders and their owners."""
        raise NotImplementedError

    def command(self) -> Sequence[str]:
        """The server in the foreground."""
        raise NotImplementedError

    def sendmail_command(self, sender: str, recipients: Sequence[str]) -> Sequence[str]:
        """Takes the message from standard input."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """For server and sendmail."""
        return dict(os.environ, LC_ALL="C.UTF-8")

    # Life

    def start(self) -> None:
        """Until it accepts connections."""
        self.prepare()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                env=self.environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._accepts():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise PeerFailed(f"{self.name} did not start:\n{self.log()}")
            time.sleep(0.02)

    def _accepts(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                return connection.recv(4).startswith(b"220")
        except OSError:
            return False

    def stop(self) -> None:
        """With all its processes; its folder goes too."""
        if self.process is not None:
            process, self.process = self.process, None
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Peer:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def log(self) -> str:
        """What it logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # Mail

    def messages(self) -> list[bytes]:
        """What arrived, with CRLF line ends, oldest first."""
        paths = [path for part in ("new", "cur") for path in (self.maildir / part).glob("*")]
        paths.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
        return [path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for path in paths]

    def wait_for(self, text: bytes, seconds: float = ARRIVAL_SECONDS) -> bytes:
        """The first message with this text in it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for message in self.messages():
                if text in message:
                    return message
            time.sleep(0.02)
        raise PeerFailed(f"{self.name} got no message with {text!r}:\n{self.log()[-6000:]}")

    def wait_for_log(self, text: str, seconds: float = ARRIVAL_SECONDS) -> None:
        """Until the log has this text."""
        deadline = time.monotonic() + seconds
        while text not in self.log():
            if time.monotonic() > deadline:
                raise PeerFailed(f"{self.name} did not log {text!r}:\n{self.log()[-6000:]}")
            time.sleep(0.02)

    def send(self, sender: str, recipients: Sequence[str], message: bytes) -> None:
        """Hand a message (line ends as on this machine) to its sendmail."""
        done = subprocess.run(
            self.sendmail_command(sender, recipients),
            input=message,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
            group=self.sendmail_group,
        )
        if done.returncode:
            printed = done.stdout.decode(errors="replace")
            raise PeerFailed(f"{self.name}'s sendmail ended with {done.returncode}: {printed}\n{self.log()}")

    def make_maildir(self, user: str) -> None:
        """Of this system user."""
        for part in ("", "new", "cur", "tmp"):
            folder = self.maildir / part
            folder.mkdir()
            shutil.chown(folder, user)
