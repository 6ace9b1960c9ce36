"""The demonstration server with users from OpenLDAP (`make run-ldap`): demo_ldap.py BIN [CONFIG].

Starts slapd beside mailsrv, without root, in a folder of its own, filled once from etc/ldif; both end together. The
installed slapd is copied first: systems confine the installed file to the system's own directory (AppArmor).
"""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import ldap3

from mailsrv.app.settings import ListenSettings, Service
from mailsrv.config.load import load
from mailsrv.config.schema import Settings
from mailsrv.tls.self_signed import write_self_signed

ROOT = Path(__file__).resolve().parent.parent
LDIF = ROOT / "etc" / "ldif"
USERS = ("alice", "bob", "carol")
START_SECONDS = 30

INSTALL = """\
make run-ldap starts an OpenLDAP server of its own, and there is none on this machine. Install it with

    sudo apt-get install --no-install-recommends slapd

(or your system's package of OpenLDAP's server), and again: make run-ldap. The server that the package may start is not
used, and not needed: sudo systemctl disable --now slapd
"""

TELL = """
mailsrv runs on this machine only, with the users of an OpenLDAP server at {uri}:

    alice, or alice@example.test, or her alias alice.example@example.test (an administrator)
    bob, or bob@club.example.test (of a domain that stands in the directory alone)
    carol                      (her mail is forwarded to bob)
    password: {password}

    staff@example.test, support@example.test, sales@example.test are lists of them

    SMTP            127.0.0.1:{mx}   (from other servers)
    submission      127.0.0.1:{submission}   STARTTLS
    IMAP            127.0.0.1:{imap}   TLS
    POP3            127.0.0.1:{pop3}   TLS

Send a message to a list, and read it back:

    printf 'From: alice@example.test\\nTo: staff@example.test\\nSubject: Hello\\n\\nHello, all!\\n' | \\
        curl -sSk --crlf --ssl-reqd smtp://127.0.0.1:{submission} -u alice:{password} \\
        --mail-from alice@example.test --mail-rcpt staff@example.test -T -
    curl -sSk 'imaps://127.0.0.1:{imap}/INBOX;MAILINDEX=*' -u bob:{password}

See what the directory says of an address, and why mail for it goes where it goes:

    .venv/bin/mailsrvctl --config {config} ldap check staff@example.test

The directory is yours to change, with any LDAP program, as {socket_uri} (SASL EXTERNAL):

    ldapsearch -Q -Y EXTERNAL -H {socket_uri} -b dc=example,dc=test

Ctrl-C stops both servers. Everything they keep is below {folder}; remove it to begin anew.
"""


class Slapd:
    """A server of the user who runs this, in ``folder``."""

    def __init__(self, folder: Path, uri: str, installed: str) -> None:
        self.folder = folder
        self.uri = uri
        self._program = folder / "slapd"
        self._installed = installed
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket_uri(self) -> str:
        """Where who runs this may do everything."""
        return f"ldapi://{quote(str(self.folder / 'ldapi'), safe='')}"

    def prepare(self) -> None:
        """Configuration and certificate, unless they are there."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self._program.with_suffix(".new")
        shutil.copy2(self._installed, fresh)
        fresh.replace(self._program)
        if not (self.folder / "cert.pem").exists():
            host = urlsplit(self.uri).hostname or "localhost"
            write_self_signed(host, str(self.folder / "cert.pem"), str(self.folder / "key.pem"))
        done = self.folder / "configured"
        if done.exists():
            return
        for name in ("config", "data"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir()
        text = (LDIF / "server.ldif").read_text()
        for theirs, ours in (
            ("/etc/mailsrv/ldif", str(LDIF)),
            ("/etc/ldap/tls", str(self.folder)),
            ("/var/lib/ldap/example.test", str(self.folder / "data")),
            ("gidNumber=0+uidNumber=0", f"gidNumber={os.getgid()}+uidNumber={os.getuid()}"),
        ):
            text = text.replace(theirs, ours)
        (self.folder / "server.ldif").write_text(text)
        self._run("-T", "add", "-n", "0", "-F", self.folder / "config", "-l", self.folder / "server.ldif")
        done.touch()

    def _run(self, *words: object) -> None:
        subprocess.run([str(self._program), *map(str, words)], check=True)

    def start(self) -> None:
        """Until it answers."""
        endpoints = f"{self.socket_uri} {self.uri.rstrip('/')}/"
        self._process = subprocess.Popen(
            [str(self._program), "-d", "0", "-F", str(self.folder / "config"), "-h", endpoints],
            # Ctrl-C is for mailsrv; this one is ended after it.
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509  (this program has no threads)
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise SystemExit(f"slapd ended; is something else at {self.uri}?")
            try:
                self._connect().unbind()
            except (ldap3.core.exceptions.LDAPException, OSError):
                time.sleep(0.1)
            else:
                return
        raise SystemExit("slapd does not answer")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait()

    def _connect(self) -> ldap3.Connection:
        server = ldap3.Server(self.socket_uri, get_info=ldap3.NONE)
        return ldap3.Connection(
            server, authentication=ldap3.SASL, sasl_mechanism=ldap3.EXTERNAL, sasl_credentials="", auto_bind=True
        )

    def fill(self, passwords: dict[str, str]) -> None:
        """The sample entries, and passwords for some of them, the first time. Overlays see what is added so."""
        done = self.folder / "filled"
        if done.exists():
            return
        connection = self._connect()
        for name in ("tree", "domains", "users", "groups", "aliases"):
            for dn, values in read_ldif((LDIF / f"{name}.ldif").read_text()):
                if (
                    not connection.add(dn, attributes=values)
                    and connection.result["description"] != "entryAlreadyExists"
                ):
                    raise SystemExit(f"{dn}: {connection.result}")
        for dn, password in passwords.items():
            # slapd keeps a hash of it.
            if not connection.extend.standard.modify_password(dn, new_password=password):
                raise SystemExit(f"{dn}: {connection.result}")
        connection.unbind()
        done.touch()


def end_with_parent() -> None:
    """In a new process: it is told to end when this program has, in whatever way (PR_SET_PDEATHSIG, prctl(2))."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def read_ldif(text: str) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Entries of the samples (RFC 2849 without base64 and URLs): DN and values."""
    unfolded = re.sub(r"\n ", "", re.sub(r"(?m)^#.*\n", "", text))
    for block in re.split(r"\n{2,}", unfolded.strip()):
        lines = [line.partition(":") for line in block.splitlines()]
        values: dict[str, list[str]] = {}
        for name, _, value in lines[1:]:
            values.setdefault(name, []).append(value.strip())
        yield lines[0][2].strip(), values


def secret(path: Path) -> str:
    """Chosen once, kept for the next run."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(f"{secrets.token_hex(4)}\n")
    return path.read_text().strip()


def port_of(listen: ListenSettings) -> str:
    return listen.endpoint.split(":")[1]


def tell(settings: Settings, slapd: Slapd, config: Path, password: str) -> str:
    ports = {service.value: port_of(one) for service in Service for one in settings.listen if one.service is service}
    return TELL.format(
        uri=slapd.uri,
        socket_uri=slapd.socket_uri,
        password=password,
        config=os.path.relpath(config),
        folder=os.path.relpath(settings.state_dir),
        **ports,
    )


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0])
    config = Path(arguments[1]) if arguments[1:] else ROOT / "etc" / "demo-ldap.toml"
    installed = shutil.which("slapd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/lib/openldap:/usr/libexec")
    if installed is None:
        print(INSTALL, file=sys.stderr)
        return 1
    settings = load(str(config))
    directory = settings.directory[0]
    Path(settings.state_dir).mkdir(parents=True, exist_ok=True, mode=0o700)
    if not Path(settings.tls.certificate).exists():
        write_self_signed(settings.hostname, settings.tls.certificate, settings.tls.key)
    slapd = Slapd(Path(directory.ca_file).parent, directory.uri[0], installed)
    slapd.prepare()
    password = secret(Path(settings.state_dir) / "password")
    service = secret(Path(directory.bind_password_file))
    try:
        slapd.start()
        people = {f"uid={user},ou=people,{directory.base}": password for user in USERS}
        slapd.fill({**people, directory.bind_dn: service})
        print(tell(settings, slapd, config, password), flush=True)
        return serve(str(folder / "twistd"), config)
    finally:
        slapd.stop()


def serve(twistd: str, config: Path) -> int:
    """The mail server, until it ends; what tells us to stop tells it."""
    server = subprocess.Popen(
        [twistd, "--nodaemon", "--pidfile=", "mailsrv", "--config", str(config)],
        preexec_fn=end_with_parent,  # noqa: PLW1509
    )
    # The terminal's Ctrl-C reaches both of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # A closed terminal ends the demonstration; to mailsrv alone it would be the order to reload.
        signal.signal(number, lambda *_: server.terminate())
    return server.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
