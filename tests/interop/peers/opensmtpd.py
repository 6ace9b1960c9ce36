"""OpenSMTPD: DSN; neither CHUNKING nor SMTPUTF8. TLS as a client.

As a server it offers TLS only where it is asked for by ``broken_tls``: 6.8 keeps the key in another
process, in a way that OpenSSL 3 does not support, and every handshake fails.

Its spool, its control socket and its delivery programs have fixed places, so one runs on a machine at
a time: a lock is held from start to stop. What one left in the spool is not for the next: it is emptied.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.interop.peers.installing import CannotRun, ensure_user, library_path, locked, unpacked
from tests.interop.peers.peer import DOMAIN, HOSTNAME, REJECTED, Peer

_USER, _QUEUE_USER = "opensmtpd", "opensmtpq"
_DELIVERY_PROGRAMS = Path("/usr/libexec/opensmtpd")
_EMPTY_FOLDER = Path("/var/lib/opensmtpd/empty")
_SPOOL = Path("/var/spool/smtpd")

_INSTALLED = Path("/usr/sbin/smtpd")
"""Where the package has it."""

_CONFIGURATION = """\
pki peer cert "{folder}/cert.pem"
pki peer key "{folder}/key.pem"
table everybody {{ "@" = "{user}" }}
table unknowns {{ "{rejected}" }}
table owners {{ "{user}" = "{uid}:{gid}:{folder}" }}
queue ttl 1h
listen on 127.0.0.1 port {port} {tls} hostname {hostname}
listen on socket
action "here" maildir "{folder}/Maildir" virtual <everybody> userbase <owners>
action "onwards" relay host {relay} helo {hostname}
match from any for rcpt-to <unknowns> reject
match from any for domain "{domain}" action "here"
match from any for any action "onwards"
"""


class OpenSmtpd(Peer):
    """See :class:`~tests.interop.peers.peer.Peer`."""

    name = "opensmtpd"
    offers_dsn = True
    offers_starttls = False
    sendmail_group = _QUEUE_USER

    def __init__(self, *, relay_port: int | None = None, relay_tls: bool = False, broken_tls: bool = False) -> None:
        super().__init__(relay_port=relay_port, relay_tls=relay_tls)
        self._broken_tls = broken_tls

    def start(self) -> None:
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(locked("opensmtpd"))
        _empty_spool()
        self._lock.callback(_empty_spool)
        super().start()

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            if hasattr(self, "_lock"):
                self._lock.close()

    def prepare(self) -> None:
        self._root = unpacked("opensmtpd", ["opensmtpd"])
        ensure_user(_USER)
        ensure_user(_QUEUE_USER)
        self._put_fixed_places()
        self.make_maildir(_USER)
        os.chown(self.folder, pwd.getpwnam(_USER).pw_uid, -1)
        self.key.chmod(0o600)
        owner = pwd.getpwnam(_USER)
        self._configuration = self.folder / "smtpd.conf"
        self._configuration.write_text(
            _CONFIGURATION.format(
                folder=self.folder,
                hostname=HOSTNAME,
                domain=DOMAIN,
                port=self.port,
                tls="tls pki peer" if self._broken_tls else "",
                user=_USER,
                uid=owner.pw_uid,
                gid=owner.pw_gid,
                rejected=REJECTED,
                relay=self._relay,
            )
        )
        # Its resolver library would ask the network for the names of loopback addresses.
        (self.folder / "asr.conf").write_text("lookup file\n")

    @property
    def _relay(self) -> str:
        here = f"127.0.0.1:{self.relay_port}"
        return f"smtp+tls://{here} tls no-verify" if self.relay_tls else f"smtp+notls://{here}"

    def _put_fixed_places(self) -> None:
        programs = self._root / "usr/libexec/opensmtpd"
        if not (_DELIVERY_PROGRAMS / "mail.maildir").exists():
            if _DELIVERY_PROGRAMS.is_symlink():
                _DELIVERY_PROGRAMS.unlink()
            elif _DELIVERY_PROGRAMS.exists():
                raise CannotRun(f"{_DELIVERY_PROGRAMS} is there, but not as OpenSMTPD has it")
            _DELIVERY_PROGRAMS.parent.mkdir(exist_ok=True)
            _DELIVERY_PROGRAMS.symlink_to(programs)
        _EMPTY_FOLDER.mkdir(parents=True, exist_ok=True)
        _SPOOL.mkdir(exist_ok=True)
        _SPOOL.chmod(0o711)

    def environment(self) -> Mapping[str, str]:
        return {
            **super().environment(),
            "LD_LIBRARY_PATH": library_path(self._root),
            "ASR_CONFIG": str(self.folder / "asr.conf"),
        }

    def command(self) -> Sequence[str]:
        return [str(self._root / "usr/sbin/smtpd"), "-d", "-f", str(self._configuration)]

    def sendmail_command(self, sender: str, recipients: Sequence[str]) -> Sequence[str]:
        # smtpctl is sendmail when it is called so.
        sendmail = self.folder / "sendmail"
        if not sendmail.exists():
            sendmail.symlink_to(self._root / "usr/sbin/smtpctl")
        return [str(sendmail), "-f", sender, "--", *recipients]


def _empty_spool() -> None:
    """Never that of an OpenSMTPD which delivers somebody's mail."""
    if _INSTALLED.exists():
        raise CannotRun("OpenSMTPD is installed here: its spool is not ours to use")
    shutil.rmtree(_SPOOL, ignore_errors=True)
