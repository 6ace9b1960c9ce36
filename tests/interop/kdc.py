"""A real MIT Kerberos KDC on loopback, from a temporary folder, as a plain process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from attrs import define, field

from tests.ports import lasting_port

WAIT_SECONDS = 20
REALM = "EXAMPLE.TEST"
PASSWORD = "ticket please"


def program(name: str) -> str:
    """Where it is; servers are not in everybody's PATH."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    assert found, f"{name} is not installed (tools/test.sh does it)"
    return found


@define(eq=False)
class Kdc:
    """One realm. ``environment`` is for those who use it."""

    folder: Path
    realm: str = REALM
    port: int = field(factory=lasting_port)
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Kdc:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write()
        self._run("kdb5_util", "create", "-s", "-P", "the master's", "-r", self.realm)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def environment(self) -> Mapping[str, str]:
        return dict(
            os.environ,
            KRB5_CONFIG=str(self.folder / "krb5.conf"),
            KRB5_KDC_PROFILE=str(self.folder / "kdc.conf"),
            KRB5RCACHENAME=f"file2:{self.folder}/replays",
        )

    def _write(self) -> None:
        (self.folder / "krb5.conf").write_text(
            f"[libdefaults]\ndefault_realm = {self.realm}\ndns_lookup_kdc = false\ndns_lookup_realm = false\n"
            "dns_canonicalize_hostname = false\nrdns = false\nudp_preference_limit = 1\n"
            f"[realms]\n{self.realm} = {{\n kdc = 127.0.0.1:{self.port}\n}}\n"
            f"[domain_realm]\nlocalhost = {self.realm}\n.example.test = {self.realm}\n"
        )
        (self.folder / "kdc.conf").write_text(
            f"[kdcdefaults]\nkdc_listen = 127.0.0.1:{self.port}\nkdc_tcp_listen = 127.0.0.1:{self.port}\n"
            f"[realms]\n{self.realm} = {{\n database_name = {self.folder}/principal\n"
            f" key_stash_file = {self.folder}/stash\n acl_file = {self.folder}/acl\n max_life = 10h\n}}\n"
            f"[logging]\nkdc = FILE:{self.folder}/kdc.log\n"
        )

    def _run(self, name: str, *words: str, environment: Mapping[str, str] | None = None, text: str = "") -> None:
        done = subprocess.run(
            [program(name), *words],
            input=text.encode(),
            env=environment or self.environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Start and wait until it answers."""
        self._process = subprocess.Popen(
            [program("krb5kdc"), "-n", "-r", self.realm],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process.poll() is None, (self.folder / "kdc.log").read_text()
                time.sleep(0.02)
            else:
                return
        raise AssertionError("the KDC does not answer")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(WAIT_SECONDS)

    def administer(self, *queries: str) -> None:
        """What kadmin takes, one query after the other."""
        for query in queries:
            self._run("kadmin.local", "-r", self.realm, "-q", query)

    def add_users(self, *names: str) -> None:
        self.administer(*(f'addprinc -pw "{PASSWORD}" {name}' for name in names))

    def add_service(self, principal: str, keytab: Path) -> None:
        """A service with a random key, which is put into a keytab."""
        self.administer(f"addprinc -randkey {principal}", f"ktadd -k {keytab} {principal}")

    def log_in(self, user: str) -> Mapping[str, str]:
        """kinit: the environment of this user's programs."""
        environment = dict(self.environment, KRB5CCNAME=f"FILE:{self.folder}/cache-{user.replace('/', '-')}")
        self._run("kinit", f"{user}@{self.realm}", environment=environment, text=f"{PASSWORD}\n")
        return environment
