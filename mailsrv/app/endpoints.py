"""Endpoint strings: what a listener is told about its place, taken apart and checked.

The syntax and the argument names are Twisted's. Of the four types that are bound by
:mod:`mailsrv.app.listening` each argument is checked here, so that a slip such as ``interfce=`` or an
IPv6 address without ``\\`` is a mistake in the file, and not a port open to everybody.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping

from attrs import frozen
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins

SYSTEMD_FAMILIES = {"INET": socket.AF_INET, "INET6": socket.AF_INET6, "UNIX": socket.AF_UNIX}
# The arguments of the types that workers can inherit; the first of them may be given without its name.
_ARGUMENTS = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "interface", "backlog"),
    "unix": ("address", "mode", "backlog", "lockfile"),
    "systemd": ("domain", "name", "index"),
}
INHERITABLE_KINDS = frozenset(_ARGUMENTS)
# Twisted's only other type that is no plugin.
_BUILT_IN = "ssl"


class EndpointError(ValueError):
    """An endpoint string that says nothing usable; the text is for the administrator."""


@frozen
class EndpointDescription:
    """An endpoint string taken apart: ``tcp:25:interface=::1`` → kind, positional and named arguments."""

    kind: str
    arguments: tuple[str, ...]
    options: Mapping[str, str]

    def argument(self, name: str, default: str | None = None) -> str:
        """An argument by its name; the first one of a type may also come without."""
        if self.arguments and name == _ARGUMENTS[self.kind][0]:
            return self.arguments[0]
        value = self.options.get(name, default)
        if value is None:
            raise EndpointError(f"a {self.kind}: endpoint needs {name}")
        return value

    def number(self, name: str, default: int | None = None, highest: int = 65535) -> int:
        """An argument that is a whole number."""
        text = self.argument(name, None if default is None else str(default))
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(highest)) + 2) or int(text) > highest:
            raise EndpointError(f"expected a {name} number from 0 to {highest}")
        return int(text)

    @property
    def mode(self) -> int:
        """The permissions of a ``unix:`` socket file."""
        text = self.options.get("mode", "666")
        try:
            mode = int(text, 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o777:
            raise EndpointError("expected an octal mode such as mode=660")
        return mode

    @property
    def is_inheritable(self) -> bool:
        """Whether workers can inherit its socket."""
        return self.kind in INHERITABLE_KINDS


def parse_endpoint(text: str) -> EndpointDescription:
    """Take an endpoint string apart by Twisted's rules: ``:`` between the parts, ``\\`` quotes."""
    parts: list[list[str]] = [[""]]
    position = 0
    while position < len(text):
        character = text[position]
        if character == "\\" and position + 1 < len(text):
            position += 1
            parts[-1][-1] += text[position]
        elif character == ":":
            parts.append([""])
        elif character == "=" and len(parts) > 1 and len(parts[-1]) == 1:
            parts[-1].append("")
        else:
            parts[-1][-1] += character
        position += 1
    kind = parts[0][0]
    if not kind or len(parts) == 1:
        raise EndpointError('expected an endpoint string such as "tcp:25" or "unix:/run/mailsrv/lmtp.sock"')
    description = EndpointDescription(
        kind,
        tuple(part[0] for part in parts[1:] if len(part) == 1),
        {part[0]: part[1] for part in parts[1:] if len(part) > 1},
    )
    _check(description)
    return description


def _check(description: EndpointDescription) -> None:
    kind = description.kind
    known = _ARGUMENTS.get(kind)
    if known is None:
        _check_plugin(kind)
        return
    if len(description.arguments) > 1:
        raise EndpointError(f'expected {kind}:{known[0]}:name=value…, and "\\\\:" for a colon in a value')
    for name in description.options:
        if name not in known or (description.arguments and name == known[0]):
            raise EndpointError(f"{name}= is not expected here; {kind}: has {', '.join(known)}")
    if kind == "systemd":
        _check_systemd(description)
        return
    description.number("backlog", 0)
    if kind == "unix":
        description.argument("address")
        description.mode  # noqa: B018 - raises
    else:
        description.number("port")
        _check_interface(kind, description.argument("interface", ""))


def _check_interface(kind: str, interface: str) -> None:
    try:
        address = ipaddress.ip_address(interface or "::")
    except ValueError:
        raise EndpointError("expected an IP address of this machine in interface=") from None
    if kind == "tcp6" and address.version == 4:
        raise EndpointError("expected an IPv6 address in interface=, or tcp:")


def _check_systemd(description: EndpointDescription) -> None:
    if description.argument("domain") not in SYSTEMD_FAMILIES:
        raise EndpointError("expected domain=INET, INET6 or UNIX")
    if ("name" in description.options) == ("index" in description.options):
        raise EndpointError("a systemd: endpoint needs either name= or index=")
    description.number("index", 0)


def _check_plugin(kind: str) -> None:
    """Any other type is its plugin's, which checks the rest when it listens."""
    if kind != _BUILT_IN and all(plugin.prefix != kind for plugin in getPlugins(IStreamServerEndpointStringParser)):
        own = ", ".join(f"{name}:" for name in _ARGUMENTS)
        raise EndpointError(f"expected an endpoint of type {own} or of an installed plugin of Twisted's")


def resolve_unix_path(text: str, folder: str) -> str:
    """The endpoint string with the path of a ``unix:`` endpoint made absolute, starting at ``folder``."""
    description = parse_endpoint(text)
    if description.kind != "unix":
        return text
    path = os.path.normpath(os.path.join(folder, description.argument("address")))
    rest = [f"{name}={_quote(value)}" for name, value in description.options.items() if name != "address"]
    return ":".join(["unix", _quote(path), *rest])


def _quote(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:").replace("=", "\\=")
