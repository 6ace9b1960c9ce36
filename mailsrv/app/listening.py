"""Listeners: bound and queueing connections first, accepting them only when the server is ready.

The kernel takes connections from the moment of :func:`bind`, which may need root; they wait in the
backlog until :meth:`BoundSocket.accept` gives the socket to the reactor (journal replayed, keys
read). The same descriptors are inherited by workers.

``tcp``, ``tcp6``, ``unix`` and ``systemd`` endpoint strings are bound here, without the reactor.
Any other Twisted endpoint type is left to its own plugin (:class:`PluginListener`): it listens when
the server is ready, and in one process only.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import Any

from attrs import define, field
from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

from mailsrv.app.endpoints import SYSTEMD_FAMILIES, EndpointDescription, EndpointError, parse_endpoint


@define
class BoundSocket:
    """A socket that listens; nobody accepts from it yet."""

    socket: socket.socket = field(repr=False)
    file_identity: tuple[str, tuple[int, int]] | None = None
    """A socket file of ours, removed at :meth:`close`: its path, and what tells it from a later one there."""

    @property
    def family(self) -> int:
        return self.socket.family

    @property
    def address(self) -> str:
        """``host:port``, ``[host]:port`` or a path."""
        return format_address(self.socket)

    def accept(self, reactor: Any, factory: IProtocolFactory) -> IListeningPort:
        """Let the reactor accept connections for ``factory``. The socket given to the reactor is a duplicate."""
        return adopt(reactor, self.socket.fileno(), self.family, factory)

    def close(self) -> None:
        """Stop listening, and remove the socket file if it still is ours."""
        self.socket.close()
        if self.file_identity is not None:
            path, identity = self.file_identity
            try:
                if _identity(path) == identity:
                    os.unlink(path)
            except OSError:
                # Gone, or its folder belongs to the user we no longer are: the next start clears it away.
                return


class _InheritedUnixPort(unix.Port):
    """A Unix listener whose file belongs to whoever bound it: neither its mode nor its name is touched here."""

    # shutdown(2) would end the socket for the other processes that listen at it too.
    _shouldShutdown = False

    def startListening(self) -> None:
        tcp._reservedFD.reserve()
        factory: Any = self.factory
        factory.doStart()
        listening: Any = self._preexistingSocket
        self._preexistingSocket = None
        self.socket = listening
        # As twisted's own ports do: the socket's method becomes the port's.
        vars(self)["fileno"] = listening.fileno
        self.connected = True
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Any) -> None:
        tcp.Port.connectionLost(self, reason)


def adopt(reactor: Any, descriptor: int, family: int, factory: IProtocolFactory) -> IListeningPort:
    """Accept connections for ``factory`` from a listening descriptor, which stays open for its owner."""
    if family == socket.AF_UNIX:
        port = _InheritedUnixPort._fromListeningDescriptor(reactor, descriptor, factory)
        port.startListening()
        inherited: IListeningPort = port
        return inherited
    adopted: IListeningPort = reactor.adoptStreamPort(descriptor, family, factory)
    return adopted


def bind(description: EndpointDescription, backlog: int, owner: tuple[int, int] | None = None) -> BoundSocket:
    """Bind and listen, non-blocking. Raises OSError as the kernel does, EndpointError for systemd's names.

    ``owner``: the user and group the server is going to run as, where root binds; a socket file belongs to them.
    """
    if description.kind == "unix":
        return _bind_unix(description, backlog, owner)
    if description.kind == "systemd":
        return _take_from_systemd(description)
    family = socket.AF_INET6 if description.kind == "tcp6" else socket.AF_INET
    interface = description.argument("interface", "")
    if ":" in interface:
        family = socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((interface, description.number("port")))
        listener.listen(description.number("backlog", backlog))
    except BaseException:
        listener.close()
        raise
    return BoundSocket(listener)


def _bind_unix(description: EndpointDescription, backlog: int, owner: tuple[int, int] | None) -> BoundSocket:
    path = description.argument("address")
    _remove_stale_socket(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode is right from the first moment: a chmod after the bind would leave a gap.
    previous = os.umask(0o777 & ~description.mode)
    try:
        listener.setblocking(False)
        listener.bind(path)
        if owner is not None:
            # The mode is about the server's user and group. Whoever may write in the folder cannot lead us elsewhere.
            os.chown(path, *owner, follow_symlinks=False)
        listener.listen(description.number("backlog", backlog))
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(previous)
    return BoundSocket(listener, (path, _identity(path)))


def _identity(path: str) -> tuple[int, int]:
    """Inode numbers are used again; the time of making goes with them."""
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns


def _remove_stale_socket(path: str) -> None:
    """Remove a socket file nobody listens at any more; anything else in the way is left to fail the bind."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.setblocking(False)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except BlockingIOError:
        return  # somebody listens, with a full backlog
    finally:
        probe.close()


def _take_from_systemd(description: EndpointDescription) -> BoundSocket:
    """A socket that systemd bound (sd_listen_fds(3)), by its ``FileDescriptorName=`` or its number."""
    domain = description.argument("domain")
    wanted = next(f"{key}={description.options[key]}" for key in ("name", "index") if key in description.options)
    try:
        # Twisted read $LISTEN_FDS when it was imported and has removed it since: it has to be asked.
        endpoint: Any = serverFromString(None, f"systemd:domain={domain}:{wanted}")
        listener = socket.socket(fileno=os.dup(endpoint.fileno))
    except (KeyError, IndexError, OSError):
        raise EndpointError(f"systemd passed no socket with {wanted} to this process") from None
    listener.setblocking(False)
    if listener.family != SYSTEMD_FAMILIES[domain]:
        listener.close()
        raise EndpointError(f"the socket with {wanted} that systemd passed is of another domain")
    return BoundSocket(listener)


def format_address(bound: socket.socket) -> str:
    """The local address of a socket as an administrator writes it."""
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return os.fsdecode(name)
    return f"[{name[0]}]:{name[1]}" if bound.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


class PluginListener:
    """A listener of an endpoint type that only its plugin knows how to bind."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.address = endpoint

    def listen(self, reactor: Any, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Bind and accept in one step."""
        return maybeDeferred(serverFromString(reactor, self.endpoint).listen, factory)

    def close(self) -> None:
        """Nothing is bound before :meth:`listen`."""


Listener = BoundSocket | PluginListener


def open_listener(endpoint: str, backlog: int, owner: tuple[int, int] | None = None) -> Listener:
    """What an endpoint string stands for, bound where that can be done before accepting; see :func:`bind`."""
    description = parse_endpoint(endpoint)
    return bind(description, backlog, owner) if description.is_inheritable else PluginListener(endpoint)


def start_accepting(listener: Listener, reactor: Any, factory: IProtocolFactory) -> Deferred[IListeningPort]:
    """Begin to accept connections for ``factory``."""
    if isinstance(listener, PluginListener):
        return listener.listen(reactor, factory)
    return succeed(listener.accept(reactor, factory))
