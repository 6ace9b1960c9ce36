"""The change bus between workers: stream sockets in one folder (DESIGN decision 10).

Each worker listens on a Unix socket in the folder, and connects to every other it finds there; it
sends on the connections it made and hears on those it accepted. What a peer does not take at once
waits in a set of what changed, so notices coalesce, and however slow a peer is there is no more
than one waiting for each mailbox. A set that grows past its bound becomes the one notice
"anything may have changed".

Notices are frames: one octet of version, two of length, the account in UTF-8, mailbox id and
mod-sequence in eight octets each, all big-endian (R-INJ-4: nothing is quoted or parsed as text).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.interfaces.changes import ChangeNotice, IChangeBus
from mailsrv.store.bus import LocalChangeBus

_HEAD = struct.Struct(">BH")
_NUMBERS = struct.Struct(">QQ")
_VERSION = 1
_SUFFIX = ".changes"
_LONGEST_ACCOUNT = 1024
_LOOK_EVERY_SECONDS = 1.0
_FRAMES_AT_ONCE = 500

EVERYTHING = ChangeNotice("", 0, 0)
"""Anything may have changed: every listener is told."""


def format_notice(notice: ChangeNotice) -> bytes:
    """The frame of a notice."""
    account = notice.account.encode("utf-8", "surrogatepass")
    return _HEAD.pack(_VERSION, len(account)) + account + _NUMBERS.pack(notice.mailbox_id, notice.mod_seq)


class NoticeParser:
    """Octets in, notices out; keeps at most one unfinished frame."""

    def __init__(self) -> None:
        self._octets = bytearray()

    def receive_octets(self, data: bytes) -> list[ChangeNotice]:
        """The notices completed by ``data``; ValueError for what is none."""
        octets = self._octets
        octets += data
        notices = []
        at = 0
        while len(octets) - at >= _HEAD.size:
            version, length = _HEAD.unpack_from(octets, at)
            if version != _VERSION or length > _LONGEST_ACCOUNT:
                raise ValueError("not a notice")
            end = at + _HEAD.size + length + _NUMBERS.size
            if len(octets) < end:
                break
            account = octets[at + _HEAD.size : end - _NUMBERS.size].decode("utf-8", "surrogatepass")
            notices.append(ChangeNotice(account, *_NUMBERS.unpack_from(octets, end - _NUMBERS.size)))
            at = end
        del octets[:at]
        return notices


@implementer(IPushProducer)
class _Sender(Protocol):
    """A connection to another worker, for sending."""

    def __init__(self, bus: WorkerChangeBus, path: str) -> None:
        self._bus = bus
        self._path = path
        self._dirty: dict[tuple[str, int], ChangeNotice] = {}
        self._is_paused = False
        self._flush_call: IDelayedCall | None = None

    def connectionMade(self) -> None:
        if self.transport is not None:
            self.transport.registerProducer(self, True)  # type: ignore[attr-defined]

    def send(self, notice: ChangeNotice) -> None:
        """Soon; together with what else changes."""
        dirty = self._dirty
        key = (notice.account, notice.mailbox_id)
        known = dirty.get(key)
        if known is not None and known.mod_seq >= notice.mod_seq:
            return
        if len(dirty) >= self._bus.most_waiting:
            dirty.clear()
            notice = EVERYTHING
            key = ("", 0)
        dirty[key] = notice
        if not self._is_paused and self._flush_call is None:
            self._flush_call = self._bus.reactor.callLater(0, self._flush)

    def _flush(self) -> None:
        self._flush_call = None
        transport = self.transport
        while self._dirty and not self._is_paused and transport is not None:
            keys = list(self._dirty)[:_FRAMES_AT_ONCE]
            transport.write(b"".join(format_notice(self._dirty.pop(key)) for key in keys))

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False
        self._flush()

    def stopProducing(self) -> None:
        """The connection is gone; ``connectionLost`` follows."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._flush_call is not None and self._flush_call.active():
            self._flush_call.cancel()
        self._bus.sender_lost(self._path, self)


class _SenderFactory(ClientFactory):
    noisy = False

    def __init__(self, bus: WorkerChangeBus, path: str) -> None:
        self._bus = bus
        self._path = path

    def buildProtocol(self, addr: Any) -> _Sender:
        sender = _Sender(self._bus, self._path)
        self._bus.sender_made(self._path, sender)
        return sender

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._bus.sender_failed(self._path, reason)


class _Receiver(Protocol):
    """A connection another worker made, for hearing."""

    def __init__(self, bus: WorkerChangeBus) -> None:
        self._bus = bus
        self._parser = NoticeParser()

    def connectionMade(self) -> None:
        self._bus.receivers.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._bus.receivers.discard(self)

    def dataReceived(self, data: bytes) -> None:
        try:
            notices = self._parser.receive_octets(data)
        except ValueError:
            if self.transport is not None:
                self.transport.loseConnection()
            return
        for notice in notices:
            self._bus.heard(notice)


class _ReceiverFactory(Factory):
    noisy = False

    def __init__(self, bus: WorkerChangeBus) -> None:
        self._bus = bus

    def buildProtocol(self, addr: Any) -> _Receiver:
        return _Receiver(self._bus)


@implementer(IChangeBus)
class WorkerChangeBus:
    """``start`` once the process is the one that will serve; ``stop`` takes the socket away."""

    _log = Logger()

    def __init__(self, reactor: Any, directory: str, most_waiting: int = 4096) -> None:
        self.reactor = reactor
        self.most_waiting = most_waiting
        self._directory = directory
        self._path = f"{directory}/{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        self._local = LocalChangeBus()
        self._port: Any = None
        self._senders: dict[str, _Sender | None] = {}
        """None while the connection is being made."""
        self.receivers: set[_Receiver] = set()
        self._look_call: IDelayedCall | None = None

    def start(self) -> None:
        """Listen, and look for the others from now on."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._directory, 0o700)
        try:
            self._port = self.reactor.listenUNIX(self._path, _ReceiverFactory(self), mode=0o600)
        except CannotListenError as error:
            # Without a socket we hear of changes late, by the slow poll, but still of all of them.
            self._log.error("no socket for change notices: {error}", error=str(error))
        self._look()

    def stop(self) -> Deferred[None]:
        """Fires when the socket is gone."""
        if self._look_call is not None and self._look_call.active():
            self._look_call.cancel()
        self._look_call = None
        senders, self._senders = self._senders, {}
        for connection in (*senders.values(), *self.receivers):
            if connection is not None and connection.transport is not None:
                connection.transport.abortConnection()  # type: ignore[attr-defined]
        port, self._port = self._port, None
        return maybeDeferred(port.stopListening) if port is not None else succeed(None)

    def publish(self, notice: ChangeNotice) -> None:
        self._local.publish(notice)
        for sender in self._senders.values():
            if sender is not None:
                sender.send(notice)

    def listen(self, account: str, listener: Callable[[ChangeNotice], None]) -> Callable[[], None]:
        return self._local.listen(account, listener)

    def heard(self, notice: ChangeNotice) -> None:
        """From another worker: for the listeners here, and nobody else."""
        if notice.account:
            self._local.publish(notice)
        else:
            self._local.publish_everything()

    @property
    def peers(self) -> int:
        """Workers that are told of changes."""
        return sum(sender is not None for sender in self._senders.values())

    # The others

    def _look(self) -> None:
        try:
            names = [name for name in os.listdir(self._directory) if name.endswith(_SUFFIX)]
        except OSError:
            names = []
        for name in names:
            path = f"{self._directory}/{name}"
            if path != self._path and path not in self._senders:
                self._senders[path] = None
                self.reactor.connectUNIX(path, _SenderFactory(self, path), timeout=5)
        self._look_call = self.reactor.callLater(_LOOK_EVERY_SECONDS, self._look)

    def sender_made(self, path: str, sender: _Sender) -> None:
        if path in self._senders:
            self._senders[path] = sender
            # Before the connection there was silence: whatever happened in it is told now.
            sender.send(EVERYTHING)

    def sender_lost(self, path: str, sender: _Sender) -> None:
        if self._senders.get(path) is sender:
            del self._senders[path]

    def sender_failed(self, path: str, reason: Failure) -> None:
        self._senders.pop(path, None)
        if reason.check(ConnectionRefusedError) or "refused" in reason.getErrorMessage().lower():
            # Nobody listens: the worker was killed and left its socket, or has bound it and not come to listen.
            if _is_running(path):
                return
            with contextlib.suppress(OSError):
                os.unlink(path)


def _is_running(path: str) -> bool:
    """Whether the process that the name of a socket tells is there."""
    number = os.path.basename(path).partition("-")[0]
    if not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
