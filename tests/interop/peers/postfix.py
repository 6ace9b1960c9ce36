"""Postfix: CHUNKING, DSN, SMTPUTF8, TLS. Its master process is started directly: all its files are in its folder."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Mapping, Sequence

from tests.interop.peers.installing import ensure_user, library_path, unpacked
from tests.interop.peers.peer import DOMAIN, HOSTNAME, REJECTED, Peer

_QUEUE_FOLDERS = (
    *("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming"),
    *("private", "saved", "trace"),
)

_SERVICES = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix n - n 1 1 pickup
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 1 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
smtp      unix - - n - - smtp
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
virtual   unix - n n - - virtual
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""

_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
command_directory = {root}/usr/sbin
daemon_directory = {root}/usr/lib/postfix/sbin
shlib_directory = {root}/usr/lib/postfix
mail_owner = postfix
setgid_group = postdrop
import_environment = MAIL_CONFIG MAIL_LOGTAG POSTLOG_SERVICE POSTLOG_HOSTNAME LANG=C LD_LIBRARY_PATH
export_environment = MAIL_CONFIG LANG=C LD_LIBRARY_PATH
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = {hostname}
myorigin = {domain}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
notify_classes =
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
transport_maps =
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {folder}
virtual_mailbox_maps = static:Maildir/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
default_transport = smtp:[127.0.0.1]:{relay_port}
relay_transport = smtp:[127.0.0.1]:{relay_port}
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access inline:{{{{{rejected} = 550 5.1.1 No such person}}}}
smtpd_tls_security_level = may
smtpd_tls_chain_files = {folder}/key.pem, {folder}/cert.pem
smtpd_tls_loglevel = 1
smtp_tls_security_level = {tls_level}
smtp_tls_loglevel = 1
smtputf8_enable = yes
smtputf8_autodetect_classes = all
minimal_backoff_time = 2s
maximal_backoff_time = 4s
queue_run_delay = 2s
"""


class Postfix(Peer):
    """See :class:`~tests.interop.peers.peer.Peer`."""

    name = "postfix"
    offers_chunking = True
    offers_smtputf8 = True
    offers_dsn = True

    def prepare(self) -> None:
        self._root = unpacked("postfix", ["postfix"])
        ensure_user("postfix", groups=["postdrop"])
        owner, drop = pwd.getpwnam("postfix"), grp.getgrnam("postdrop")
        etc = self.folder / "etc"
        etc.mkdir()
        self._make_spool(owner.pw_uid, drop.gr_gid)
        self.make_maildir("postfix")
        shutil.chown(self.folder / "Maildir", "postfix")
        (etc / "main.cf").write_text(
            _MAIN.format(
                folder=self.folder,
                root=self._root,
                hostname=HOSTNAME,
                domain=DOMAIN,
                uid=owner.pw_uid,
                gid=owner.pw_gid,
                relay_port=self.relay_port,
                rejected=REJECTED,
                tls_level="encrypt" if self.relay_tls else "may",
            )
        )
        (etc / "master.cf").write_text(_SERVICES.format(port=self.port))
        (etc / "dynamicmaps.cf").touch()

    def _make_spool(self, owner: int, drop_group: int) -> None:
        """What ``postfix check`` would make."""
        spool = self.folder / "spool"
        spool.mkdir(mode=0o755)
        for name in _QUEUE_FOLDERS:
            folder = spool / name
            folder.mkdir(mode=0o700)
            os.chown(folder, owner, 0)
        for name, mode in (("maildrop", 0o1730), ("public", 0o2710)):
            folder = spool / name
            folder.mkdir()
            os.chown(folder, owner, drop_group)
            folder.chmod(mode)
        (spool / "pid").mkdir(mode=0o755)
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        os.chown(data, owner, -1)

    def environment(self) -> Mapping[str, str]:
        return {
            **super().environment(),
            "LD_LIBRARY_PATH": library_path(self._root),
            "MAIL_CONFIG": str(self.folder / "etc"),
            "POSTLOG_SERVICE": "postlog",
        }

    def command(self) -> Sequence[str]:
        master = self._root / "usr/lib/postfix/sbin/master"
        return [str(master), "-c", str(self.folder / "etc"), "-d"]

    def sendmail_command(self, sender: str, recipients: Sequence[str]) -> Sequence[str]:
        sendmail = self._root / "usr/sbin/sendmail"
        return [str(sendmail), "-i", "-f", sender, "--", *recipients]
