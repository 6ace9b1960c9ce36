"""A real domain controller of Samba on a loopback address of its own, from a temporary folder, in the foreground.

Provisioned anew each time (some seconds). Its ports are those of Active Directory (389, 636): it needs root.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import ldap3
from attrs import define, field
from cryptography import x509

from tests.interop.slapd import program
from tests.tls.authority import issue

WAIT_SECONDS = 30
BASE = "DC=example,DC=test"
USERS = f"CN=Users,{BASE}"
ADMIN = f"CN=Administrator,{USERS}"
ADMIN_PASSWORD = "Adm1n.s own"
SERVICE = f"CN=searcher,{USERS}"
SERVICE_PASSWORD = "Serv1ce.s own"
NORMAL, DISABLED = 512, 514


def free_address() -> str:
    """A loopback address whose LDAP ports nobody has."""
    for _ in range(50):
        address = f"127.{secrets.randbelow(100) + 100}.{secrets.randbelow(250) + 1}.{secrets.randbelow(250) + 1}"
        with contextlib.suppress(OSError), socket.socket() as plain, socket.socket() as tls:
            plain.bind((address, 389))
            tls.bind((address, 636))
            return address
    raise AssertionError("no loopback address has port 389 free, or this is not root")


def write_certificate(address: str, certificate: Path, key: Path) -> None:
    """Self-signed, for an IP address."""
    issued = issue(
        None, x509.IPAddress(ipaddress.ip_address(address)), common_name=address, usages=(), to_days=1, is_ca=True
    )
    certificate.write_bytes(issued.pem)
    key.touch(mode=0o600)
    key.write_bytes(issued.key_pem)


@define(eq=False)
class Samba:
    """One domain controller of EXAMPLE.TEST."""

    folder: Path
    address: str = field(factory=free_address)
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Samba:
        self.provision()
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def uri(self) -> str:
        return f"ldap://{self.address}"

    @property
    def tls_uri(self) -> str:
        return f"ldaps://{self.address}"

    @property
    def certificate(self) -> Path:
        return self.folder / "cert.pem"

    @property
    def configuration(self) -> Path:
        """``smb.conf``."""
        return self.folder / "etc" / "smb.conf"

    def provision(self) -> None:
        """Make the domain, and a configuration that serves LDAP alone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [
                *(program("samba-tool"), "domain", "provision", f"--targetdir={self.folder}", "--quiet"),
                *("--realm=EXAMPLE.TEST", "--domain=EXAMPLE", "--server-role=dc", "--dns-backend=NONE"),
                *("--host-name=dc1", f"--host-ip={self.address}", f"--adminpass={ADMIN_PASSWORD}"),
            ],
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        write_certificate(self.address, self.certificate, self.folder / "key.pem")
        run = self.folder / "run"
        run.mkdir(exist_ok=True)
        ours = {
            # Two of them may run at the same time.
            "pid directory": str(run),
            "ncalrpc dir": str(run / "ncalrpc"),
            "interfaces": f"{self.address}/8",
            "bind interfaces only": "yes",
            "server services": "ldap",
            "disable netbios": "yes",
            "log file": str(self.folder / "log.%m"),
            "tls certfile": str(self.certificate),
            "tls keyfile": str(self.folder / "key.pem"),
            "tls cafile": str(self.certificate),
        }
        kept = [
            line
            for line in self.configuration.read_text().partition("\n[homes]")[0].splitlines()
            if line.partition("=")[0].strip() not in ours
        ]
        self.configuration.write_text("\n".join([*kept, *(f"\t{name} = {value}" for name, value in ours.items()), ""]))

    def start(self) -> None:
        """Start and wait until it answers."""
        with (self.folder / "samba.out").open("ab") as log:
            self._process = subprocess.Popen(
                [program("samba"), "-i", "-M", "single", f"--configfile={self.configuration}"],
                # It ends when its input does.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection((self.address, 636), 1).close()
                return
            assert self._process.poll() is None, (self.folder / "samba.out").read_text()
            time.sleep(0.05)
        raise AssertionError("samba does not answer")

    def kill(self) -> None:
        """At once, with what it has started."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def administrator(self) -> ldap3.Connection:
        """Who may change everything."""
        tls = ldap3.Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=str(self.certificate), valid_names=[self.address])
        server = ldap3.Server(self.tls_uri, tls=tls, get_info=ldap3.NONE)
        return ldap3.Connection(server, ADMIN, ADMIN_PASSWORD, auto_bind=True, check_names=False)

    def add_user(self, login: str, password: str, *, control: int = NORMAL, **values: str | Sequence[str]) -> str:
        """A user; answers with the DN."""
        dn = f"CN={login},{USERS}"
        with self.administrator() as connection:
            attributes = {
                "sAMAccountName": login,
                "userPrincipalName": f"{login}@example.test",
                "unicodePwd": f'"{password}"'.encode("utf-16-le"),
                "userAccountControl": str(control),
                **values,
            }
            assert connection.add(dn, ["user"], attributes), connection.result
        return dn

    def add_group(self, name: str, *members: str, **values: str | Sequence[str]) -> str:
        """A group; answers with the DN."""
        dn = f"CN={name},{USERS}"
        with self.administrator() as connection:
            attributes = {"sAMAccountName": name, **({"member": list(members)} if members else {}), **values}
            assert connection.add(dn, ["group"], attributes), connection.result
        return dn

    def modify(self, dn: str, **values: object) -> None:
        """Replace attributes."""
        with self.administrator() as connection:
            changes = {
                name: [(ldap3.MODIFY_REPLACE, value if isinstance(value, list) else [value])]
                for name, value in values.items()
            }
            assert connection.modify(dn, changes), connection.result

    def delete(self, dn: str) -> None:
        with self.administrator() as connection:
            assert connection.delete(dn), connection.result
