"""Servers that mail is relayed to, in memory: what they offer and answer is scripted, and they fail on command.

A :class:`NextHop` is one host; :mod:`mailsrv.testing.next_hop_network` puts hosts at addresses. The
conversation here is written apart from mailsrv's own engines, to be told from their mistakes.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable

from attrs import define, field, frozen

EVERYTHING = {
    "PIPELINING": "",
    "SIZE": "52428800",
    "8BITMIME": "",
    "SMTPUTF8": "",
    "CHUNKING": "",
    "BINARYMIME": "",
    "DSN": "",
    "ENHANCEDSTATUSCODES": "",
}

_REPLY = re.compile(rb"(\d\d\d-[^\r\n]*\r\n)*\d\d\d [^\r\n]*\r\n")


class Kind(enum.Enum):
    """How a step goes wrong."""

    LOSE_BEFORE = "lose before"
    """The connection is lost before the step has any effect."""
    LOSE_AFTER = "lose after"
    """It has its effect, and the reply is lost with the connection."""
    SILENT = "silent"
    """It has none, and no reply ever comes."""
    REPLY = "reply"
    """It has none, and the reply is ``octets``."""
    REPLY_AND_CLOSE = "reply and close"


@frozen
class Fault:
    """At ``step``: ``greeting``, a verb in upper case, ``content`` (its first octets), or ``end`` (of the data)."""

    step: str
    kind: Kind
    octets: bytes = b""
    skip: int = 0
    """How many such steps go well before."""
    times: int = 1


@frozen
class HopMessage:
    """A message that a host took."""

    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)
    mail_parameters: str
    recipient_parameters: tuple[str, ...]
    is_tls: bool


@define(eq=False)
class NextHop:
    """One host. Change it at any time: conversations look at it for each command."""

    keywords: dict[str, str] = field(factory=lambda: dict(EVERYTHING))
    is_lmtp: bool = False
    refused: dict[str, str] = field(factory=dict)
    """Recipients and what RCPT is answered."""
    refused_at_end: dict[str, str] = field(factory=dict)
    """LMTP: recipients and what they are answered after the data."""
    faults: list[Fault] = field(factory=list)
    tls_keywords: dict[str, str] | None = None
    """Offered inside TLS; None: the same without STARTTLS."""
    breaks_handshake: bool = False
    is_up: bool = True
    """False: connections are refused."""
    messages: list[HopMessage] = field(factory=list)
    conversations: list[HopConversation] = field(factory=list)
    _seen: dict[int, int] = field(factory=dict)

    def fault_at(self, step: str) -> Fault | None:
        """The fault to be had now."""
        for fault in self.faults:
            if fault.step != step:
                continue
            seen = self._seen.get(id(fault), 0)
            self._seen[id(fault)] = seen + 1
            if fault.skip <= seen < fault.skip + fault.times:
                return fault
        return None


@define(eq=False)
class HopConversation:
    """One connection, seen from the host: octets in, octets out."""

    hop: NextHop
    is_tls: bool = False
    is_over: bool = False
    wants_tls: bool = False
    transcript: bytearray = field(factory=bytearray)
    """Everything the client said."""
    taken: list[HopMessage] = field(factory=list)
    answered: int = 0
    """How many of them were answered: not where the reply was lost, or came behind what is no reply."""
    told: int = 0
    """How many of these answers got to the client."""
    _unread: bytearray = field(factory=bytearray)
    _out: bytearray = field(factory=bytearray)
    _is_silent: bool = False
    _reverse_path: str | None = None
    _mail_parameters: str = ""
    _recipients: list[tuple[str, str]] = field(factory=list)
    _content: bytearray | None = None
    """Of DATA."""
    _chunk_left: int = -1
    _is_last_chunk: bool = False
    _chunks: bytearray = field(factory=bytearray)
    _is_chunk_refused: bool = False
    _login: list[str] = field(factory=list)
    _is_garbled: bool = False

    def greet(self) -> bytes:
        """What the host says first."""
        self._guarded("greeting", lambda: self._say("220 hop.example ESMTP"))
        return self.take()

    def receive(self, octets: bytes) -> bytes:
        """The client sends; what the host says to it."""
        self.transcript += octets
        self._unread += octets
        while self._unread and not self.is_over and not self._is_silent and not self.wants_tls:
            if not self._step():
                break
        return self.take()

    def take(self) -> bytes:
        octets = bytes(self._out)
        self._out.clear()
        return octets

    def tls_started(self) -> None:
        """The client began TLS: whatever it said before is forgotten."""
        self.wants_tls, self.is_tls = False, True
        self._unread.clear()
        self._forget()

    # -- understanding

    def _step(self) -> bool:
        if self._chunk_left >= 0:
            return self._take_chunk()
        if self._content is not None:
            return self._take_data()
        line, found, rest = bytes(self._unread).partition(b"\r\n")
        if not found:
            return False
        self._unread = bytearray(rest)
        text = line.decode("utf-8", "replace")
        if self._login:
            self._guarded("AUTH", lambda: self._go_on_with_login(text))
            return True
        verb, _, argument = text.partition(" ")
        verb = verb.upper()
        if verb == "BDAT":
            # Its octets follow whatever it is answered (RFC 3030 2).
            size, _, last = argument.partition(" ")
            self._chunk_left, self._is_last_chunk = int(size), last.upper() == "LAST"
            return self._take_chunk() if self._unread or not self._chunk_left else True
        self._guarded(verb, lambda: self._do(verb, argument))
        return True

    def _guarded(self, step: str, act: Callable[[], None]) -> None:
        fault = self.hop.fault_at(step)
        if fault is None:
            act()
        elif fault.kind is Kind.LOSE_BEFORE:
            self.is_over = True
        elif fault.kind is Kind.LOSE_AFTER:
            said, answered = len(self._out), self.answered
            act()
            del self._out[said:]
            self.answered, self.is_over = answered, True
        elif fault.kind is Kind.SILENT:
            self._is_silent = True
        else:
            self._out += fault.octets
            self._is_garbled = self._is_garbled or _REPLY.fullmatch(fault.octets) is None
            self.is_over = fault.kind is Kind.REPLY_AND_CLOSE

    def _say(self, *lines: str) -> None:
        for number, line in enumerate(lines):
            code, _, text = line.partition(" ")
            mark = " " if number == len(lines) - 1 else "-"
            self._out += f"{code}{mark}{text}\r\n".encode()

    def _do(self, verb: str, argument: str) -> None:
        action = {
            "EHLO": lambda: self._hello(is_extended=True),
            "LHLO": lambda: self._hello(is_extended=True),
            "HELO": lambda: self._hello(is_extended=False),
            "STARTTLS": self._starttls,
            "AUTH": lambda: self._authenticate(argument),
            "MAIL": lambda: self._mail(argument),
            "RCPT": lambda: self._rcpt(argument),
            "DATA": self._data,
            "RSET": self._rset,
            "NOOP": lambda: self._say("250 2.0.0 Fine"),
            "QUIT": self._quit,
        }.get(verb)
        if action is None or (verb == "LHLO") is not (self.hop.is_lmtp and verb in {"LHLO", "EHLO", "HELO"}):
            self._say("500 5.5.1 What?")
        else:
            action()

    def _hello(self, *, is_extended: bool) -> None:
        self._forget()
        if not is_extended:
            self._say("250 hop.example")
            return
        offered = dict(self.hop.keywords)
        if self.is_tls:
            offered = dict(self.hop.tls_keywords) if self.hop.tls_keywords is not None else offered
            offered.pop("STARTTLS", None)
        self._say("250 hop.example", *(f"250 {word} {value}".rstrip() for word, value in offered.items()))

    def _starttls(self) -> None:
        self._say("220 2.0.0 Go ahead")
        self.wants_tls = True

    def _authenticate(self, argument: str) -> None:
        mechanism, _, initial = argument.partition(" ")
        self._login = [mechanism.upper()]
        if initial:
            self._go_on_with_login(initial)
        else:
            self._say("334 VXNlcm5hbWU6")

    def _go_on_with_login(self, text: str) -> None:
        self._login.append(text)
        if self._login[0] == "LOGIN" and len(self._login) < 3:
            self._say("334 UGFzc3dvcmQ6")
            return
        self._login = []
        self._say("235 2.7.0 Welcome")

    def _mail(self, argument: str) -> None:
        path, _, parameters = argument.removeprefix("FROM:").partition(">")
        if self._reverse_path is not None:
            self._say("503 5.5.1 Nested MAIL")
            return
        self._reverse_path, self._mail_parameters = path.lstrip("<"), parameters.strip()
        self._say("250 2.1.0 Fine")

    def _rcpt(self, argument: str) -> None:
        path, _, parameters = argument.removeprefix("TO:").partition(">")
        recipient = path.lstrip("<")
        if self._reverse_path is None:
            self._say("503 5.5.1 MAIL first")
        elif recipient in self.hop.refused:
            self._say(self.hop.refused[recipient])
        else:
            self._recipients.append((recipient, parameters.strip()))
            self._say("250 2.1.5 Fine")

    def _data(self) -> None:
        if not self._recipients:
            self._say("503 5.5.1 RCPT first")
            return
        self._say("354 Go on")
        self._content = bytearray()

    def _rset(self) -> None:
        self._forget()
        self._say("250 2.0.0 Forgotten")

    def _quit(self) -> None:
        self._say("221 2.0.0 Bye")
        self.is_over = True

    def _take_data(self) -> bool:
        if self._content is None:
            return False
        if not self._content:
            began = len(self._out)
            self._guarded("content", lambda: None)
            if self.is_over or self._is_silent or len(self._out) > began:
                return not self.is_over
        self._content += self._unread
        self._unread.clear()
        text = b"\r\n" + bytes(self._content)
        end = text.find(b"\r\n.\r\n")
        if end < 0:
            return False
        self._unread = bytearray(text[end + 5 :])
        self._content = None
        # RFC 5321 4.5.2, line by line.
        lines = text[2 : end + 2].split(b"\r\n")
        content = b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)
        self._guarded("end", lambda: self._finish(content))
        return True

    def _take_chunk(self) -> bool:
        taken = bytes(self._unread[: self._chunk_left])
        del self._unread[: self._chunk_left]
        self._chunks += taken
        self._chunk_left -= len(taken)
        if self._chunk_left:
            return False
        self._chunk_left = -1
        if not self._recipients or self._is_chunk_refused:
            # RFC 3030 2: once a chunk was refused, so are those behind it.
            self._chunks.clear()
            self._say("503 5.5.1 Not now")
        elif self._is_last_chunk:
            content = bytes(self._chunks)
            self._guarded("end", lambda: self._finish(content))
        else:
            said = len(self._out)
            self._guarded("BDAT", lambda: self._say("250 2.0.0 More"))
            self._is_chunk_refused = bytes(self._out[said : said + 1]) in {b"4", b"5"}
        return True

    def _finish(self, content: bytes) -> None:
        refused = self.hop.refused_at_end if self.hop.is_lmtp else {}
        taken = [pair for pair in self._recipients if pair[0] not in refused]
        if taken:
            message = HopMessage(
                self._reverse_path or "",
                tuple(recipient for recipient, _ in taken),
                content,
                self._mail_parameters,
                tuple(parameters for _, parameters in taken),
                self.is_tls,
            )
            self.hop.messages.append(message)
            self.taken.append(message)
            self.answered += not self._is_garbled
        if self.hop.is_lmtp:
            for recipient, _ in self._recipients:
                self._say(refused.get(recipient, "250 2.0.0 Kept"))
        else:
            self._say("250 2.0.0 Taken")
        self._forget()

    def _forget(self) -> None:
        self._reverse_path, self._recipients, self._content = None, [], None
        self._chunks.clear()
        self._is_chunk_refused = False
