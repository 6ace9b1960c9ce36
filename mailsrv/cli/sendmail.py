"""``mailsrv-sendmail``: mail from cron, scripts and programs, with sendmail's options and exit statuses (sysexits.h).

Needs no secret and no rights. The message is handed over at the Unix socket where the server takes submissions
(the first ``[[listen]]`` of service ``submission`` with a ``unix:`` endpoint), where it knows who asks. While
it is down, and where it says "later", the message is left in the drop folder, synced, and the server takes it when
it is back (:mod:`mailsrv.delivery.drop_folder`). Success means that one of the two has it.

The configuration is read leniently, and only what is needed of it: a mistake elsewhere in the file is no
reason not to take cron's mail.
"""

from __future__ import annotations

import os
import pwd
import re
import smtplib
import socket
import sys
import time
import tomllib
from collections.abc import Sequence
from typing import Any, BinaryIO, NoReturn

from attrs import frozen

from mailsrv.address import Address, AddressError, parse_mailbox
from mailsrv.cli.sendmail_message import PreparedMessage, cut_at_dot, prepare
from mailsrv.cli.sendmail_options import SendmailOptions, UsageError, parse_options
from mailsrv.config.places import default_path
from mailsrv.delivery.drop_folder import DroppedMessage, drop
from mailsrv.delivery.settings import SendmailSettings
from mailsrv.interfaces.envelope import BodyType, Notify, RecipientParameters
from mailsrv.message import parse_addresses

TIMEOUT_SECONDS = 60.0
_PROGRAM = "mailsrv-sendmail"
# What stands between colons, except those behind a backslash.
_PART = re.compile(r"(?:[^:\\]|\\.)+")


class Failure(Exception):
    """Why it did not work, with the exit status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Later(Exception):
    """The server cannot take it now."""


@frozen
class Places:
    """What the configuration says to a program that sends."""

    domain: str
    hostname: str
    socket_path: str
    """"" where the server listens at none."""
    spool_dir: str
    message_octets: int


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The script."""
    try:
        status = run(sys.argv[1:] if arguments is None else arguments, sys.stdin.buffer)
    except UsageError as error:
        status = _complain(os.EX_USAGE, str(error))
    except Failure as error:
        status = _complain(error.status, str(error))
    sys.exit(status)


def _complain(status: int, text: str) -> int:
    sys.stderr.write(f"{_PROGRAM}: {text}\n")
    return status


def run(arguments: Sequence[str], standard_input: BinaryIO) -> int:
    """The exit status. Raises UsageError and Failure."""
    options = parse_options(arguments)
    if options.does_nothing:
        return os.EX_OK
    if options.shows_queue or options.flushes_queue:
        what = "list" if options.shows_queue else "flush"
        raise Failure(os.EX_UNAVAILABLE, f"the administrator's command for that is: mailsrvctl queue {what}")
    places = read_places(options.config_path or default_path())
    user = _user()
    sender = _sender(options, user, places.domain)
    if not options.recipients and not options.takes_recipients_from_header:
        raise UsageError("no recipients: name them, or have them read from the header with -t")
    octets = standard_input.read(places.message_octets + 1)
    if len(octets) > places.message_octets:
        raise Failure(os.EX_DATAERR, f"the message has more than {places.message_octets} octets")
    if options.ends_at_dot:
        octets = cut_at_dot(octets)
    now = time.time()
    message = prepare(
        octets,
        sender=sender or _address(user, places.domain),
        full_name=options.full_name,
        domain=places.domain,
        hostname=places.hostname,
        reads_recipients=options.takes_recipients_from_header,
        seconds=int(now),
        offset_minutes=time.localtime(now).tm_gmtoff // 60,
    )
    named = [*_operands(options.recipients, places.domain), *message.header_recipients]
    recipients = list(dict.fromkeys(_address(each, places.domain) for each in named))
    if not recipients:
        raise UsageError("no recipients: the header names none")
    return _hand_over(places, _Letter(options, sender, recipients, message))


@frozen
class _Letter:
    """What is to be handed over, with its envelope."""

    options: SendmailOptions
    sender: Address | None
    recipients: list[Address]
    message: PreparedMessage

    @property
    def needs_smtputf8(self) -> bool:
        """Whether something in it or on it is not ASCII (RFC 6531)."""
        is_ascii = all(each.is_ascii for each in self.recipients) and (self.sender is None or self.sender.is_ascii)
        return not is_ascii or self.message.needs_smtputf8


def _hand_over(places: Places, letter: _Letter) -> int:
    why = "the server listens at no Unix socket"
    if places.socket_path:
        try:
            return _submit(places, letter)
        except _Later as error:
            why = str(error)
    given = RecipientParameters(letter.options.notify)
    dropped = DroppedMessage(
        letter.sender,
        tuple((recipient, given) for recipient in letter.recipients),
        letter.message.octets,
        BodyType.EIGHT_BIT if letter.message.is_8bit else BodyType.SEVEN_BIT,
        is_smtputf8=letter.needs_smtputf8,
        return_content=letter.options.return_content,
        envelope_id=letter.options.envelope_id,
    )
    try:
        drop(places.spool_dir, dropped)
    except OSError as error:
        text = f"{why}, and the message cannot be left in {places.spool_dir}: {error.strerror}"
        raise Failure(os.EX_TEMPFAIL, text) from error
    return os.EX_OK


# At the server's socket


class _UnixSmtp(smtplib.SMTP):
    """The client of the standard library at a Unix socket; ``host`` is its path."""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(host)
        except BaseException:
            connection.close()
            raise
        return connection


def _submit(places: Places, letter: _Letter) -> int:
    """The exit status. Raises _Later, and nobody has the message then, as far as one can know."""
    try:
        client = _UnixSmtp(local_hostname="localhost", timeout=TIMEOUT_SECONDS)
        try:
            _expect(client.connect(places.socket_path, 25), os.EX_UNAVAILABLE)
            _expect(client.ehlo(), os.EX_PROTOCOL)
            return _transact(client, letter)
        finally:
            client.close()
    except (OSError, smtplib.SMTPException) as error:
        # A connection that was lost behind the last dot leaves it open whether the server has it (RFC 1047).
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise _Later(f"the server does not answer ({reason})") from error


def _transact(client: smtplib.SMTP, letter: _Letter) -> int:
    options, recipients, message = letter.options, letter.recipients, letter.message
    is_utf8 = letter.needs_smtputf8
    if is_utf8:
        if not client.has_extn("smtputf8"):
            raise Failure(os.EX_UNAVAILABLE, "the server takes no addresses or header fields beyond ASCII")
        client.command_encoding = "utf-8"
    has_dsn = client.has_extn("dsn")
    arguments = [f"size={len(message.octets)}"] if client.has_extn("size") else []
    if message.is_8bit and client.has_extn("8bitmime"):
        arguments.append("body=8bitmime")
    if is_utf8:
        arguments.append("smtputf8")
    if has_dsn and options.return_content is not None:
        arguments.append(f"ret={options.return_content.value}")
    if has_dsn and options.envelope_id:
        arguments.append(f"envid={_xtext(options.envelope_id)}")
    _expect(client.docmd("MAIL", " ".join([f"FROM:<{letter.sender or ''}>", *arguments])), os.EX_NOPERM)
    notify = _notify(options.notify) if has_dsn and options.notify else ""
    refusals: list[tuple[Address, tuple[int, bytes]]] = []
    for recipient in recipients:
        reply = client.docmd("RCPT", f"TO:<{recipient}>{notify}")
        if 400 <= reply[0] < 500:
            # All wait, so that the others do not get it twice.
            raise _Later(f"the server says: {_text(reply)}")
        if reply[0] // 100 != 2:
            refusals.append((recipient, reply))
    for recipient, reply in refusals:
        _complain(0, f"{recipient}: {_text(reply)}")
    if len(refusals) == len(recipients):
        return _status_of(refusals[0][1])
    _expect(client.data(message.octets), os.EX_UNAVAILABLE)
    # The reply to QUIT is nobody's business any more.
    client.putcmd("quit")
    return _status_of(refusals[0][1]) if refusals else os.EX_OK


def _expect(reply: tuple[int, bytes], status: int) -> None:
    code = reply[0]
    if 400 <= code < 500 or code <= 0:
        raise _Later(f"the server says: {_text(reply)}")
    if code // 100 != 2:
        raise Failure(status, _text(reply))


def _status_of(reply: tuple[int, bytes]) -> int:
    words = reply[1].split(b" ", 1)[0]
    if words in (b"5.1.2", b"5.4.4"):
        return os.EX_NOHOST
    if words.startswith(b"5.7."):
        return os.EX_NOPERM
    return os.EX_NOUSER if words.startswith(b"5.1.") else os.EX_UNAVAILABLE


def _text(reply: tuple[int, bytes]) -> str:
    text = reply[1].decode("ascii", "replace")
    return f"{reply[0]} {''.join(each if each.isprintable() else ' ' for each in text)}"


def _notify(notify: Notify) -> str:
    return " NOTIFY=" + ",".join(str(each.name) for each in Notify if each & notify)


def _xtext(text: str) -> str:
    """RFC 3461 4."""
    return "".join(f"+{ord(each):02X}" if each in "+=" else each for each in text)


# Names and the configuration


def _user() -> str:
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name.lower()
    except KeyError:
        return f"uid-{uid}"


def _sender(options: SendmailOptions, user: str, domain: str) -> Address | None:
    """The reverse-path; None is the null one."""
    given = options.sender
    if given is None:
        return _address(user, domain)
    text = given.strip().removeprefix("<").removesuffix(">").strip()
    return _address(text, domain) if text else None


def _operands(operands: Sequence[str], domain: str) -> list[str]:
    """Addresses as programs write them: several with commas, or with names."""
    found: list[str] = []
    for operand in operands:
        try:
            parse_mailbox(operand)
        except AddressError:
            entries = [entry for entry in parse_addresses(operand.encode("utf-8", "surrogateescape")) if entry.mailbox]
            if not entries:
                raise Failure(os.EX_DATAERR, f"{operand!r} is no address") from None
            for entry in entries:
                mailbox, host = (
                    (entry.mailbox or b"").decode("utf-8", "replace"),
                    (entry.host or b"").decode("utf-8", "replace"),
                )
                found.append(f"{mailbox}@{host or domain}")
        else:
            found.append(operand)
    return found


def _address(text: str, domain: str) -> Address:
    try:
        return parse_mailbox(text if "@" in text else f"{text}@{domain}")
    except AddressError as error:
        raise Failure(os.EX_DATAERR, f"{text!r} is no address: {error.text}") from error


def read_places(path: str) -> Places:
    """What is needed of the configuration. Raises Failure (EX_CONFIG)."""
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise Failure(os.EX_CONFIG, f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Failure(os.EX_CONFIG, f"{path} is not TOML: {error}") from error
    folder = os.path.dirname(os.path.abspath(path))
    sendmail = _table(table, "sendmail")
    hostname = _string(table, "hostname") or socket.gethostname()
    domains = _tables(table, "domain")
    first = _string(domains[0], "name") if domains else ""
    spool_dir = _string(sendmail, "spool_dir") or os.path.join(_string(table, "state_dir"), "sendmail-spool")
    limit = sendmail.get("message_octets")
    return Places(
        domain=_string(_table(table, "auth"), "default_domain") or first or hostname,
        hostname=hostname,
        socket_path=_socket_path(table, folder),
        spool_dir=os.path.normpath(os.path.join(folder, spool_dir)),
        message_octets=limit if isinstance(limit, int) else SendmailSettings().message_octets,
    )


def _table(table: dict[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key)
    return value if isinstance(value, dict) else {}


def _tables(table: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = table.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _string(table: dict[str, Any], key: str) -> str:
    value = table.get(key)
    return value if isinstance(value, str) else ""


def _socket_path(table: dict[str, Any], folder: str) -> str:
    for listen in _tables(table, "listen"):
        if listen.get("service") != "submission":
            continue
        path = _unix_path(_string(listen, "endpoint"))
        if path:
            return os.path.normpath(os.path.join(folder, path))
    return ""


def _unix_path(endpoint: str) -> str:
    """The path in a ``unix:`` endpoint string, "" for any other. Twisted's parser would cost more than all the rest."""
    kind, _, rest = endpoint.partition(":")
    if kind != "unix":
        return ""
    parts = [part.replace("\\:", ":").replace("\\=", "=").replace("\\\\", "\\") for part in _PART.findall(rest)]
    named = [part.removeprefix("address=") for part in parts if part.startswith("address=")]
    return str((named or parts or [""])[0])
