"""Exim: CHUNKING, DSN, SMTPUTF8, PIPE_CONNECT, TLS by GnuTLS.

With a configuration of one's own Exim gives root up early, so everything belongs to its user.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

from tests.interop.peers.installing import ensure_user, library_path, unpacked
from tests.interop.peers.peer import DOMAIN, HOSTNAME, REJECTED, Peer

_USER = "Debian-exim"

_CONFIGURATION = """\
primary_hostname = {hostname}
qualify_domain = {domain}
exim_path = {program}
spool_directory = {folder}/spool
log_file_path = {folder}/log-%s
pid_file_path =
keep_environment = LD_LIBRARY_PATH
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
domainlist local_domains = {domain}
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max = 100
smtp_accept_queue_per_connection = 0
recipients_max = 1000
chunking_advertise_hosts = *
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
tls_advertise_hosts = *
tls_certificate = {folder}/cert.pem
tls_privatekey = {folder}/key.pem
never_users =
trusted_users = root : {user}
deliver_drop_privilege = true
queue_only = false
log_selector = +smtp_protocol_error +smtp_syntax_error +tls_cipher +received_recipients
acl_smtp_rcpt = acl_rcpt
acl_smtp_data = acl_data
begin acl
acl_rcpt:
  deny
    recipients = {rejected}
    message = 5.1.1 No such person
  accept
acl_data:
  accept
begin routers
onwards:
  driver = manualroute
  domains = ! +local_domains
  transport = onwards
  route_list = * 127.0.0.1
  self = send
here:
  driver = accept
  transport = here
begin transports
onwards:
  driver = smtp
  port = {relay_port}
  allow_localhost
  hosts_require_tls = {tls_hosts}
  tls_verify_hosts =
  tls_try_verify_hosts =
here:
  driver = appendfile
  directory = {folder}/Maildir
  maildir_format
  mode = 0600
begin retry
* * F,1h,2s
begin rewrite
begin authenticators
"""


class Exim(Peer):
    """See :class:`~tests.interop.peers.peer.Peer`."""

    name = "exim"
    offers_chunking = True
    offers_smtputf8 = True
    offers_dsn = True

    def prepare(self) -> None:
        self._root = unpacked("exim", ["exim4-daemon-light"])
        ensure_user(_USER)
        self.make_maildir(_USER)
        (self.folder / "spool").mkdir()
        for path in (self.folder, self.folder / "spool", self.key, self.certificate):
            shutil.chown(path, _USER, _USER)
        self._configuration = self.folder / "exim.conf"
        self._configuration.write_text(
            _CONFIGURATION.format(
                hostname=HOSTNAME,
                domain=DOMAIN,
                program=self._program,
                folder=self.folder,
                port=self.port,
                user=_USER,
                rejected=REJECTED,
                relay_port=self.relay_port,
                tls_hosts="*" if self.relay_tls else "",
            )
        )
        self._configuration.chmod(0o644)

    @property
    def _program(self) -> str:
        return str(self._root / "usr/sbin/exim4")

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), "LD_LIBRARY_PATH": library_path(self._root)}

    def command(self) -> Sequence[str]:
        return [self._program, "-C", str(self._configuration), "-bdf", "-q3s"]

    def sendmail_command(self, sender: str, recipients: Sequence[str]) -> Sequence[str]:
        return [self._program, "-C", str(self._configuration), "-odf", "-i", "-f", sender, "--", *recipients]

    def log(self) -> str:
        paths = [self.log_path, *sorted(self.folder.glob("log-*"))]
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())
