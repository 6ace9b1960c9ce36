"""``twistd mailsrv``: options, the log, and the service.

The configuration is read while the options are: a mistake in it is an ordinary usage error on the
terminal, before anything is bound or forked.
"""

from __future__ import annotations

import errno
import os
import pwd
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.logger import ILogObserver, LogPublisher, globalLogPublisher
from twisted.python import usage

from mailsrv.app.logging import LogWriter, make_log_writer
from mailsrv.app.privileges import may_use
from mailsrv.app.reload import LoadedConfiguration, load_configuration
from mailsrv.app.service import MailService
from mailsrv.app.supervisor import SupervisorService
from mailsrv.app.systemd import ServiceManager
from mailsrv.config.places import default_path
from mailsrv.config.problems import ConfigurationError


class Options(usage.Options):
    """What follows ``mailsrv`` on twistd's command line."""

    synopsis = "[--config FILE]"
    longdesc = "A complete mail server: SMTP, submission, LMTP, IMAP and POP3."

    parent: Any
    optParameters: ClassVar = [
        ["config", "c", None, "The configuration file [default: $MAILSRV_CONFIG or /etc/mailsrv/mailsrv.toml]"],
    ]

    configuration: LoadedConfiguration
    log_writer: LogWriter | None = None
    log_path = ""
    is_daemon = False
    run_as: tuple[int, int] | None = None
    """Whom the service itself has to become: a user without a passwd entry, which twistd wants to look up."""

    def postOptions(self) -> None:
        path = os.path.abspath(self["config"] or default_path())
        try:
            self.configuration = load_configuration(path)
        except ConfigurationError as error:
            raise SystemExit(f"mailsrv: {error}") from error
        self.is_daemon = self.parent is not None and not (self.parent["nodaemon"] or self.parent["debug"])
        try:
            self._take_over_log()
        except OSError as error:
            raise SystemExit(f"mailsrv: the log cannot be written: {error}") from error
        self._take_over_unknown_user()

    def _take_over_log(self) -> None:
        """Write the log ourselves, unless twistd was asked for syslog or an observer of its own.

        twistd's ``--logfile`` wins over ``[log] path``; a daemon without either gets a file in state_dir.
        """
        twistd = self.parent
        if twistd is None or twistd.get("syslog") or twistd.get("logger"):
            return
        settings = self.configuration.settings
        path = twistd["logfile"] or settings.log.path
        if path == "-":
            path = ""
        elif not path and self.is_daemon:
            make_state_dir(settings.state_dir, self.owner())
            path = os.path.join(settings.state_dir, "mailsrv.log")
        self.log_path = os.path.abspath(path) if path else ""
        self.log_writer = make_log_writer(settings.log, path=self.log_path, owner=self.owner())
        globalLogPublisher.addObserver(self.log_writer)
        # twistd takes the name of a factory only: one that makes an observer of nothing.
        twistd["logger"] = f"{__name__}.observer_of_nothing"

    def _take_over_unknown_user(self) -> None:
        uid = self.parent["uid"] if self.parent is not None else None
        if uid is None:
            return
        try:
            pwd.getpwuid(uid)
        except KeyError:
            self.run_as = self.owner()
            self.parent["uid"] = self.parent["gid"] = None

    def owner(self) -> tuple[int, int] | None:
        """Whom the server's files are to belong to, where twistd starts as root and is told ``--uid``."""
        if self.run_as is not None:
            return self.run_as
        uid = self.parent["uid"] if self.parent is not None else None
        if uid is None or os.geteuid() != 0:
            return None
        gid = self.parent["gid"]
        try:
            return uid, gid if gid is not None else pwd.getpwuid(uid).pw_gid
        except KeyError:
            raise SystemExit(f"mailsrv: user {uid} has no passwd entry, so twistd --gid is needed too") from None

    def prepare_state_dir(self) -> None:
        """Make state_dir for the user the server is going to run as. OSError where that user could not use it."""
        path, owner = self.configuration.settings.state_dir, self.owner()
        make_state_dir(path, owner)
        if not may_use(path, owner):
            user = owner[0] if owner is not None else os.geteuid()
            raise PermissionError(
                errno.EACCES, f"user {user} may not write there; expected a folder of that user's", path
            )


def observer_of_nothing() -> ILogObserver:
    """What twistd logs to while :class:`LogWriter` writes the log."""
    return LogPublisher()


def make_state_dir(path: str, owner: tuple[int, int] | None) -> None:
    """Make the folder (0700) if it is not there."""
    if os.path.isdir(path):
        return
    os.makedirs(path, mode=0o700)
    if owner is not None:
        os.chown(path, *owner)


def makeService(options: Options) -> IService:
    """The service twistd runs: the server itself, or with ``workers`` > 1 its supervisor."""
    from twisted.internet import reactor

    from mailsrv.app.build import build_server
    from mailsrv.app.policy_files import check_files

    configuration = options.configuration
    manager = ServiceManager.from_environment(os.environ, os.getpid())
    try:
        options.prepare_state_dir()
    except OSError as error:
        raise SystemExit(f"mailsrv: state_dir {error.filename} cannot be used: {error.strerror}") from error
    common: dict[str, Any] = {
        "manager": manager,
        "log_writer": options.log_writer,
        "owner": options.owner(),
        "run_as": options.run_as,
        "is_daemon": options.is_daemon,
    }
    if configuration.settings.workers == 1:
        return MailService(configuration, build_server, reactor, **common)
    return SupervisorService(configuration, reactor, log_path=options.log_path, check=check_files, **common)
