"""A server of the smallest kind, to test start, stop, reload and workers with: run as a program.

``python trivial_server.py CONFIG`` is what twistd would do; ``python trivial_server.py worker-1`` a
worker. A connection is greeted with the process id and the run's id; ``die`` kills the process, ``hold``
keeps the connection busy over a drain, anything else is echoed.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger, globalLogBeginner
from twisted.protocols.basic import LineReceiver

from mailsrv.app import worker
from mailsrv.app.logging import make_log_writer
from mailsrv.app.reload import load_configuration
from mailsrv.app.server import ReloadRefused
from mailsrv.app.service import MailService
from mailsrv.app.supervisor import SupervisorService
from mailsrv.app.systemd import ServiceManager

_log = Logger()


class Greeter(LineReceiver):
    delimiter = b"\n"
    is_busy = False

    def connectionMade(self):
        self.factory.sessions.add(self)
        self.sendLine(f"hello {os.getpid()} {self.factory.run_id}".encode())

    def lineReceived(self, line):
        if line == b"die":
            os.kill(os.getpid(), 9)
        self.is_busy = line == b"hold"
        self.sendLine(line)

    def connectionLost(self, reason=connectionDone):
        self.factory.sessions.discard(self)
        if not self.factory.sessions and self.factory.waiting:
            self.factory.waiting.pop().callback(None)


class GreeterFactory(Factory):
    protocol = Greeter

    def __init__(self, run_id):
        self.run_id = run_id
        self.sessions: set[Any] = set()
        self.waiting: list[Deferred[None]] = []

    def drain(self):
        if not self.sessions:
            return succeed(None)
        self.waiting.append(Deferred())
        waiting = self.waiting[0]
        for session in list(self.sessions):
            if not session.is_busy:
                session.sendLine(b"bye")
                session.transport.loseConnection()
        return waiting

    def abort_all(self):
        for session in list(self.sessions):
            session.transport.abortConnection()


class TrivialServer:
    def __init__(self, settings, run_id, can_start=True):
        self.state_dir = settings.state_dir
        self.can_start = not os.path.exists(os.path.join(settings.state_dir, "broken"))
        factory: Any = GreeterFactory(run_id)
        self.factories = [factory for _ in settings.listen]
        self.drainables = [factory]

    def start(self):
        if not self.can_start:
            raise RuntimeError("the store is broken")
        _log.info("replaying")
        from twisted.internet import reactor

        seconds = float(os.environ.get("START_SECONDS", "0"))
        if "UNEVEN_START" in os.environ:
            # All but the first to come here are slow.
            with contextlib.suppress(FileExistsError):
                os.mkdir(os.path.join(self.state_dir, "first"))
                seconds = 0.0
        return deferLater(reactor, seconds, _log.info, "replayed")

    def begin_sending(self):
        _log.info("sending")

    def stop(self):
        return succeed(None)

    def reload(self, settings):
        if settings.log.path == "refuse-this":
            return fail(ReloadRefused("the key cannot be read"))
        return succeed(["everything"])


def main(argument):
    if argument.startswith("worker-"):
        if "WORKERS_CANNOT_START" in os.environ:
            raise ImportError("a module is missing")
        return worker.main(lambda settings, reactor, start: TrivialServer(settings, start.run_id.hex()))
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    configuration = load_configuration(argument)
    log_path = argument + ".log"
    log_writer = make_log_writer(configuration.settings.log, path=log_path)
    globalLogBeginner.beginLoggingTo([log_writer], redirectStandardIO=False)
    manager = ServiceManager.from_environment(os.environ, os.getpid())
    service: Any
    if configuration.settings.workers == 1:
        service = MailService(
            configuration,
            lambda settings, reactor: TrivialServer(settings, "one"),
            reactor,
            manager=manager,
            log_writer=log_writer,
        )
    else:
        service = SupervisorService(
            configuration,
            reactor,
            manager=manager,
            log_writer=log_writer,
            log_path=log_path,
            command=(sys.executable, __file__),
        )
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
