"""A real 389 Directory Server, which is FreeIPA's, on loopback, from a temporary folder of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import ldap3
from attrs import define, field

from tests.ports import lasting_port

BASE = "dc=example,dc=test"
ADMIN = "cn=Directory Manager"
ADMIN_PASSWORD = "the manager's own"
SERVICE = f"cn=mailsrv,{BASE}"
SERVICE_PASSWORD = "service's own"

_DEFAULTS = Path("/usr/share/dirsrv/inf/defaults.inf")
_OWN_PATHS = re.compile(
    r"^(sysconf_dir|initconfig_dir|config_dir|local_state_dir|run_dir|ldapi|pid_file|inst_dir|tmpfiles_d|schema_dir|"
    r"cert_dir|lock_dir|log_dir|access_log|audit_log|error_log|security_log|db_dir|db_home_dir|backup_dir|ldif_dir)"
    r" = /",
    re.MULTILINE,
)
_ANSWERS = """\
[general]
config_version = 2
full_machine_name = localhost
strict_host_checking = False
selinux = False
systemd = False

[slapd]
instance_name = test
port = {port}
secure_port = {secure_port}
root_dn = {admin}
root_password = {password}
user = dirsrv
group = dirsrv
self_sign_cert = True

[backend-userroot]
suffix = {base}
create_suffix_entry = True
"""
_MAY_READ = f'(targetattr="*")(version 3.0; acl "mailsrv"; allow (read, search, compare) userdn="ldap:///{SERVICE}";)'


@define(eq=False)
class Ds389:
    """One server with a service account that may read. ``with`` starts and ends it."""

    folder: Path = field(factory=lambda: Path(tempfile.mkdtemp(prefix="ds389-")))
    """A short path: it holds a socket."""
    port: int = field(factory=lasting_port)

    def __enter__(self) -> Ds389:
        try:
            self._make()
            self._fill()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def uri(self) -> str:
        return f"ldap://localhost:{self.port}"

    @property
    def certificate(self) -> Path:
        """Of the authority that made the server's."""
        return self.folder / "etc/dirsrv/slapd-test/ca.crt"

    @property
    def secret(self) -> Path:
        """The file with the service account's password."""
        return self.folder / "secret"

    def writer(self) -> ldap3.Connection:
        return ldap3.Connection(ldap3.Server(f"ldap://127.0.0.1:{self.port}"), ADMIN, ADMIN_PASSWORD, auto_bind=True)

    def add_person(self, uid: str, password: str, **values: str) -> None:
        """With the address ``uid@example.test``."""
        done = self.writer().add(
            f"uid={uid},ou=people,{BASE}",
            ["inetOrgPerson"],
            {"cn": uid, "sn": uid, "mail": f"{uid}@example.test", "userPassword": password, **values},
        )
        assert done

    def change(self, uid: str, **values: str) -> None:
        """Replace values of attributes; "" takes one away."""
        writer = self.writer()
        done = writer.modify(
            f"uid={uid},ou=people,{BASE}",
            {name: [(ldap3.MODIFY_REPLACE, [value] if value else [])] for name, value in values.items()},
        )
        assert done, writer.result

    def _make(self) -> None:
        folder = self.folder
        defaults = _OWN_PATHS.sub(lambda found: f"{found[1]} = {folder}/", _DEFAULTS.read_text())
        defaults = re.sub(r"^with_systemd = .*", "with_systemd = 0", defaults, flags=re.MULTILINE)
        for name in (
            "share/dirsrv/inf",
            "etc/default",
            "etc/tmpfiles.d",
            "run/dirsrv",
            "run/lock/dirsrv",
            "dev/shm",
            "var/log/dirsrv",
            "var/lib/dirsrv",
            "usr/lib/x86_64-linux-gnu/dirsrv",
        ):
            (folder / name).mkdir(parents=True)
        shutil.copytree("/etc/dirsrv/config", folder / "etc/dirsrv/config")
        shutil.copytree("/etc/dirsrv/schema", folder / "etc/dirsrv/schema")
        (folder / "share/dirsrv/inf/defaults.inf").write_text(defaults)
        answers = folder / "answers.inf"
        answers.write_text(
            _ANSWERS.format(port=self.port, secure_port=lasting_port(), admin=ADMIN, password=ADMIN_PASSWORD, base=BASE)
        )
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, "dirsrv", "dirsrv")
        done = subprocess.run(
            ["dscreate", "from-file", answers],
            env={**os.environ, "PREFIX": str(folder)},
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()

    def _fill(self) -> None:
        self.secret.write_text(SERVICE_PASSWORD)
        writer = self.writer()
        assert writer.add(f"ou=people,{BASE}", ["organizationalUnit"])
        account = {"sn": "mailsrv", "userPassword": SERVICE_PASSWORD}
        assert writer.add(SERVICE, ["person"], account)
        assert writer.modify(BASE, {"aci": [(ldap3.MODIFY_ADD, [_MAY_READ])]})

    def _end(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.folder / "run/dirsrv/slapd-test.pid").read_text())
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + 20
            while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        shutil.rmtree(self.folder, ignore_errors=True)
