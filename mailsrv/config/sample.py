"""The sample configuration, made from the settings records: ``etc/mailsrv.toml``.

What a server needs to start stands there with values to change; everything else stands there
commented out with its default, and each with its explanation.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

import attrs
from attrs import frozen

from mailsrv.config.schema import Settings
from mailsrv.config.show import default_of, plain
from mailsrv.config.structure import describe, record_fields

_WIDTH = 110
_UNITS = {"s": "seconds"}

_HEADER = """\
# mailsrv: the configuration of one server.
#
# Everything that can be set stands here. Lines that begin with "#" and a key show the default: remove
# the "#" to change it. Relative paths start at this file's folder. After a change:
#
#     mailsrvctl config check --files && systemctl reload mailsrv
"""

# What the sample sets rather than shows: a server for one domain, ready but for names and files.
STARTING_VALUES: Mapping[str, Any] = {
    "hostname": "mail.example.test",
    "state_dir": "/var/lib/mailsrv",
    "tls": {"certificate": "/etc/mailsrv/tls/fullchain.pem", "key": "/etc/mailsrv/tls/privkey.pem"},
    "store": {"path": "/var/lib/mailsrv/mail/{domain}/{local}"},
    "auth": {"default_domain": "example.test"},
    "listen": [
        {"service": "mx", "endpoint": "tcp6:25:interface=\\:\\:", "tls": "starttls"},
        {"service": "submission", "endpoint": "tcp6:465:interface=\\:\\:", "tls": "implicit"},
        {"service": "submission", "endpoint": "tcp6:587:interface=\\:\\:", "tls": "starttls"},
        {"service": "imap", "endpoint": "tcp6:993:interface=\\:\\:", "tls": "implicit"},
        {"service": "imap", "endpoint": "tcp6:143:interface=\\:\\:", "tls": "starttls"},
        {"service": "pop3", "endpoint": "tcp6:995:interface=\\:\\:", "tls": "implicit"},
        {"service": "lmtp", "endpoint": "unix:/run/mailsrv/lmtp.sock:mode=660"},
        {"service": "submission", "endpoint": "unix:/run/mailsrv/submission.sock:mode=666"},
    ],
    "domain": [{"name": "example.test"}],
    "directory": [{"type": "passwd-file", "path": "users.passwd"}],
}

INTRODUCTIONS: Mapping[str, str] = {
    "tls": "The certificate. Without this table no listener may offer TLS.",
    "listen": "Where the server listens; one table for each place. Ports below 1024 need systemd's sockets "
    '(endpoint = "systemd:domain=INET6:name=mx"), CAP_NET_BIND_SERVICE, or a start as root with twistd --uid.',
    "domain": "Mail for these domains is delivered here.",
    "directory": "Where users and aliases are looked up; asked in order.",
    "list": "Who may send to lists, and under their addresses.",
    "store": "Where users' mail is kept.",
    "auth": "Who may log in, and what happens after failures.",
    "gssapi": "Log-in by Kerberos ticket.",
    "access": "Who may log in to which service from where: the first rule that fits decides; none: allowed.",
    "sessions": "How soon a session ends whose user is disabled, gone, or has another password.",
    "passwords": "How new passwords are hashed, and how many hashes are computed at a time.",
    "filter": "Filters are asked in this order.",
    "delivery": "What happens to a message on its way into the mailboxes.",
    "route": "Where mail goes; the first rule that matches wins. Without any: local domains are local, the rest by MX.",
    "sendmail": "Mail of programs on this machine (mailsrv-sendmail). It is handed over at a [[listen]] of service "
    "submission with a unix: endpoint, where the system says who they are, or left in a folder while it is down.",
    "queue": "Mail on its way to other hosts. `mailsrvctl queue` shows and changes it.",
    "relay": "Connections to other hosts.",
    "dns": "How the DNS is asked.",
    "tls_policy": "TLS demanded of certain domains; without a rule DANE and MTA-STS decide, else TLS where offered.",
    "tls_client": "TLS towards other hosts.",
    "mta_sts": "Policies that other domains publish about TLS to their hosts (RFC 8461).",
    "tls_reports": "Telling other domains once a day how TLS to their hosts went (RFC 8460).",
    "dkim": "Signatures on outgoing mail.",
    "log": "Where the log goes and how it reads.",
    "server": "How the server starts and stops.",
    "limits": "How many connections from where.",
    "smtp": "SMTP, submission and LMTP sessions.",
    "imap": "IMAP sessions.",
    "pop3": "POP3 sessions.",
    "message": "How much of a message is looked at; past a bound its octets are kept as they are.",
    "journal": "Where accepted mail is made durable before it is acknowledged.",
    "submission": "What a user may send, so that a stolen password does little damage (`mailsrvctl rates`).",
}
"""Sections in the order they are written, each with what it is about."""


def write_sample() -> str:
    """The whole file."""
    return "\n".join([_HEADER, *_sections()])


@frozen
class Section:
    """A table of the file, or an array of tables."""

    key: str
    record_type: type[Any]
    is_array: bool
    introduction: str = ""

    @property
    def heading(self) -> str:
        return f"[[{self.key}]]" if self.is_array else f"[{self.key}]"

    @property
    def fields(self) -> dict[str, attrs.Attribute[Any]]:
        """Its own; those that are tables themselves (``[queue.retry]``) are sections."""
        fields = record_fields(self.record_type)
        if self.is_array:
            return fields
        return {name: attribute for name, attribute in fields.items() if section_record(attribute) is None}

    def tables(self) -> Iterator[Section]:
        """The tables in it."""
        if not self.is_array:
            for name, attribute in record_fields(self.record_type).items():
                record_type = section_record(attribute)
                if record_type is not None:
                    is_array = get_origin(attribute.type) is tuple
                    yield Section(f"{self.key}.{name}", record_type, is_array, explanation(attribute))


def sections() -> list[Section]:
    """All of them in the order a reader wants, which is that of INTRODUCTIONS."""
    order = list(INTRODUCTIONS)
    found = []
    for key, attribute in record_fields(Settings).items():
        record_type = section_record(attribute)
        if record_type is not None:
            is_array = get_origin(attribute.type) is tuple
            found.append(Section(key, record_type, is_array, INTRODUCTIONS.get(key, "")))
    found.sort(key=lambda section: order.index(section.key) if section.key in order else len(order))
    return [part for section in found for part in (section, *section.tables())]


def section_record(attribute: attrs.Attribute[Any]) -> type[Any] | None:
    """The record type of a field that is a table or an array of tables."""
    expected: Any = attribute.type
    if get_origin(expected) is tuple:
        expected = get_args(expected)[0]
    return expected if attrs.has(expected) else None


def _sections() -> Iterator[str]:
    top_level = [
        _field(key, attribute, STARTING_VALUES)
        for key, attribute in record_fields(Settings).items()
        if section_record(attribute) is None
    ]
    yield "\n".join(top_level)
    for section in sections():
        if section.is_array:
            yield from _array(section)
        else:
            yield _table(section, STARTING_VALUES.get(section.key, {}))


def _array(section: Section) -> Iterator[str]:
    values: Sequence[Mapping[str, Any]] = STARTING_VALUES.get(section.key, ())
    if not values:
        # An array nobody has to have: all of it commented out.
        text = _table(section, {})
        yield "\n".join(line if line.startswith("#") or not line else f"#{line}" for line in text.splitlines()) + "\n"
        return
    # Every key is explained with the first table; the others say only what is theirs.
    yield _table(section, values[0])
    for value in values[1:]:
        yield "\n".join([section.heading, *(f"{name} = {_toml(item)}" for name, item in value.items()), ""])


def _table(section: Section, values: Mapping[str, Any]) -> str:
    introduction = _comment(section.introduction)
    fields = [_field(name, attribute, values) for name, attribute in section.fields.items()]
    return f"{introduction}{section.heading}\n" + "\n".join(fields)


def _field(key: str, attribute: attrs.Attribute[Any], values: Mapping[str, Any]) -> str:
    return _comment(explanation(attribute)) + _setting(key, attribute, values) + "\n"


def _setting(key: str, attribute: attrs.Attribute[Any], values: Mapping[str, Any]) -> str:
    if key in values:
        return f"{key} = {_toml(values[key])}"
    default = default_of(attribute)
    if default is attrs.NOTHING:
        return f"{key} = {_toml(example_of(attribute, ''))}"
    if default is None or default == "":
        return f"#{key} = {_toml(example_of(attribute, 0 if 'int' in str(attribute.type) else ''))}"
    return f"#{key} = {_toml(plain(default))}"


def explanation(attribute: attrs.Attribute[Any]) -> str:
    """What a field means, with unit, choices and whether it is unset by default."""
    parts = [str(attribute.metadata.get("help", "")).strip()]
    unit = attribute.metadata.get("unit")
    if unit:
        parts.append(f"In {_UNITS.get(unit, unit)}.")
    kind = describe(attribute.type)
    if kind.startswith("one of"):
        parts.append(kind[0].upper() + kind[1:] + ".")
    if default_of(attribute) is None or (default_of(attribute) == "" and "example" in attribute.metadata):
        parts.append("Not set by default.")
    return " ".join(part if part.endswith((".", "?", "!", ":")) else f"{part}." for part in parts if part)


def example_of(attribute: attrs.Attribute[Any], otherwise: Any) -> Any:
    """A value that shows how the field is written."""
    example = attribute.metadata.get("example", otherwise)
    if isinstance(example, str) and example.startswith("[") and example.endswith("]"):
        return json.loads(example)
    return example


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _WIDTH))


def _toml(value: Any) -> str:
    """TOML's basic strings, numbers, booleans and arrays read like JSON's."""
    return json.dumps(value, ensure_ascii=False)
