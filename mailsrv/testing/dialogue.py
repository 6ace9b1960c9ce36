r"""Golden dialogues: what a client and a server say, in a file that a user of the protocol can read.

A dialogue is run against any Twisted protocol, in memory, and in several ways (:class:`Mode`): each
client line whole, octet by octet, and all lines sent ahead in small chunks. The same answers are
expected each time. In a test::

    @pytest.mark.parametrize(("dialogue", "mode"), find_dialogues(FOLDER), ids=case_id)
    def test_dialogue(dialogue, mode):
        clock = Clock()
        factory = make_factory(clock, **dialogue.options)
        run_dialogue(dialogue, lambda: factory.buildProtocol(CLIENT_ADDRESS), mode=mode, clock=clock)

The file
--------

===================  ====================================================================================
``# text``           A comment; empty lines are ignored too.
``@with KEY=VALUE``  An option for the test to read from ``dialogue.options`` before it builds the server.
``@modes NAME …``    The modes to run in: ``whole``, ``octets``, ``pipelined``. Default: the first two.
``C: text``          The client sends the text in UTF-8, and CRLF. ``${name}`` is replaced by a variable.
``C< text``          The client sends just these octets, no CRLF. ``\r \n \t \0 \\ \xNN`` stand for octets,
                     and ``\*COUNT{text}`` for many of them: ``\*2000{x}``.
``S: text``          The server's next line is this; ``...`` stands for any octets, also none.
``S~ regex``         The server's next line matches the whole regular expression; named groups
                     (``(?P<name>…)``) become variables.
``S* text``          Lines of the server are skipped up to the first that is like ``text`` (as ``S:``).
``S? text``          The server's next line may be this; if it is another, it is left for what follows.
``S< text``          The server's next octets are exactly these (escapes as in ``C<``), whatever lines they form.
``S+ N text``        The next N lines are all like ``text``.
``S{`` … ``S}``      The ``S: `` and ``S~ `` lines between come in any order.
``@silent``          The server has nothing more to say by now.
``@advance SECONDS`` The clock goes on.
``@sync``            Pipelined mode: wait here for all answers before going on (a no-op elsewhere).
``@do NAME``         Call ``hooks["NAME"]()``: change something behind the server's back.
``@tls``             The server must have begun TLS (STARTTLS); what follows is inside it.
``@eof``             The client closes the connection.
``@closed``          The server must have closed the connection, after all it said.
``@open``            The server must not have closed it.
===================  ====================================================================================

Output that no ``S`` line expects is a failure: before each ``C`` (except in pipelined mode, where the
order of answers is checked, not their moment), before each ``@`` line except ``@with``, ``@modes``,
``@do`` and ``@advance``, and at the end. A directive is a point where the pipelined mode waits for
all answers; so put ``@sync`` where a client has to (after DATA, AUTH, an IMAP literal).
"""

from __future__ import annotations

import enum
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IAddress, IHandshakeListener, IProtocol, ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import alsoProvides


class Mode(enum.Enum):
    """How the client's octets reach the server."""

    WHOLE = "whole"
    """Each line in a segment of its own, after the answers to the one before."""
    OCTETS = "octets"
    """Each octet in a segment of its own."""
    PIPELINED = "pipelined"
    """Everything up to the next directive without waiting for answers, in chunks that cut lines anywhere."""


class DialogueFailed(AssertionError):
    """The server said something else. The text shows the dialogue so far."""


@frozen
class Step:
    """One line of the file: what kind, its text, and where it stands."""

    kind: str
    text: str
    line_number: int
    alternatives: tuple[Step, ...] = ()
    """The lines of a ``S{`` block."""


@frozen
class Dialogue:
    """A dialogue that was read from a file."""

    name: str
    steps: tuple[Step, ...]
    options: Mapping[str, str]
    modes: tuple[Mode, ...]


_LINE = re.compile(r"([CS][:<~*?+]) ?(.*)|(S\{|S\})\s*|@(\w+)(?:\s+(.*))?")
_KINDS = frozenset({"C:", "C<", "S:", "S~", "S*", "S?", "S<", "S+"})
_DIRECTIVES = frozenset({"silent", "advance", "sync", "do", "tls", "eof", "closed", "open"})


def parse_dialogue(text: str, name: str = "dialogue") -> Dialogue:
    """Read the text of a dialogue file; raises ``ValueError`` with the line number."""
    steps: list[Step] = []
    options: dict[str, str] = {}
    modes: tuple[Mode, ...] = (Mode.WHOLE, Mode.OCTETS)
    block: list[Step] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{name}, line {number}: not understood: {line!r}")
        kind, argument, brace, directive, rest = match.groups()
        rest = (rest or "").strip()
        if brace == "S{":
            block = []
        elif brace == "S}":
            if block is None:
                raise ValueError(f"{name}, line {number}: S}} without S{{")
            steps.append(Step("S{", "", number, tuple(block)))
            block = None
        elif directive == "with":
            key, _, value = rest.partition("=")
            options[key.strip()] = value.strip()
        elif directive == "modes":
            modes = tuple(Mode(word) for word in rest.split())
        elif directive:
            if directive not in _DIRECTIVES:
                raise ValueError(f"{name}, line {number}: unknown directive @{directive}")
            steps.append(Step("@" + directive, rest, number))
        elif kind not in _KINDS or (block is not None and kind not in {"S:", "S~"}):
            raise ValueError(f"{name}, line {number}: {kind} cannot stand here")
        else:
            (steps if block is None else block).append(Step(kind, argument, number))
    if block is not None:
        raise ValueError(f"{name}: S{{ without S}}")
    return Dialogue(name, tuple(steps), options, modes)


def load_dialogue(path: Path) -> Dialogue:
    """The dialogue in a file."""
    return parse_dialogue(path.read_text(encoding="utf-8"), path.stem)


def find_dialogues(folder: Path) -> list[tuple[Dialogue, Mode]]:
    """Every ``*.txt`` of a folder in every mode it asks for, sorted by name; fails where there is none."""
    cases = [
        (dialogue, mode)
        for path in sorted(folder.glob("*.txt"))
        for dialogue in [load_dialogue(path)]
        for mode in dialogue.modes
    ]
    if not cases:
        raise ValueError(f"no dialogues in {folder}")
    return cases


def case_id(value: object) -> str:
    """For ``ids=`` of pytest's parametrize."""
    if isinstance(value, Dialogue):
        return value.name
    return value.value if isinstance(value, Mode) else repr(value)


@define
class TlsHandle:
    """What :meth:`DialogueTransport.getHandle` answers: the questions a protocol asks of a pyOpenSSL connection."""

    protocol_version: str = "TLSv1.3"
    cipher: str = "TLS_AES_256_GCM_SHA384"

    def get_protocol_version_name(self) -> str:
        return self.protocol_version

    def get_cipher_name(self) -> str:
        return self.cipher


class DialogueTransport(StringTransport):
    """A transport in memory that behaves as a real one where it matters.

    It holds client octets back while the protocol has paused reading, drops them once the
    protocol closed the connection, tells ``connectionLost`` later and not inside
    ``loseConnection``, asks producers for more, and knows ``startTLS``.
    """

    def __init__(
        self,
        protocol: IProtocol | None = None,
        host: IAddress | None = None,
        peer: IAddress | None = None,
        *,
        is_tls: bool = False,
    ) -> None:
        super().__init__(hostAddress=host, peerAddress=peer)
        self.protocol = protocol
        self.is_tls = is_tls
        self.is_aborted = False
        self.is_gone = False
        self.tls_started = 0
        """How often the protocol began TLS."""
        self.write_calls = 0
        self._incoming: deque[bytes] = deque()
        self._is_delivering = False
        self._handshake_is_due = False
        if is_tls:
            self._begin_tls()
        self._client_closed = False

    def write(self, data: bytes) -> None:
        """Take what the server says. After the end it is lost, as on a real connection."""
        self.write_calls += 1
        if not self.is_gone:
            super().write(data)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def startTLS(self, context_factory: object, normal: bool = True) -> None:
        """Remember that TLS is on. Octets that were not yet delivered are lost, as they would be garbage."""
        self.tls_started += 1
        self._incoming.clear()
        self._begin_tls()

    def _begin_tls(self) -> None:
        self.is_tls = True
        self._handshake_is_due = True
        alsoProvides(self, ISSLTransport)

    def getHandle(self) -> TlsHandle:
        return TlsHandle()

    def getPeerCertificate(self) -> None:
        return None

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Accepted, as there is nothing to delay."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Accepted, as there is nothing to keep alive."""

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.disconnecting = True
        self.is_aborted = True

    def take(self) -> bytes:
        """What the server has said since the last call."""
        octets: bytes = self.value()
        self.clear()
        return octets

    def deliver(self, octets: bytes) -> None:
        """The client sends; the protocol gets it as soon as it reads."""
        self._incoming.append(octets)
        self.pump()

    def close_from_client(self) -> None:
        """The client closes; the protocol learns of it after what was sent before."""
        self._client_closed = True
        self.pump()

    def pump(self) -> None:
        """Do what a reactor would in its next turns: deliver input, ask producers, tell the end."""
        if self._is_delivering or self.protocol is None:
            return
        self._is_delivering = True
        try:
            if self._handshake_is_due:
                self._handshake_is_due = False
                if IHandshakeListener.providedBy(self.protocol):
                    self.protocol.handshakeCompleted()
            while self._incoming and self.producerState == "producing" and not self.disconnecting:
                self.protocol.dataReceived(self._incoming.popleft())
            self._ask_producer()
            if self.is_gone:
                return
            can_read_end = self._client_closed and not self._incoming and self.producerState == "producing"
            if self.is_aborted or (self.disconnecting and self.producer is None) or can_read_end:
                self.is_gone = True
                reason = ConnectionAborted() if self.is_aborted else ConnectionDone()
                self.protocol.connectionLost(Failure(reason))
        finally:
            self._is_delivering = False

    def _ask_producer(self) -> None:
        for _ in range(100_000):
            if self.producer is None or self.streaming:
                return
            self.producer.resumeProducing()

    @property
    def has_unread_input(self) -> bool:
        """Whether client octets wait because the protocol does not read."""
        return bool(self._incoming)


_PATIENCE = 25
_CHUNK_SIZES = (1, 7, 3, 64, 2, 29)


@define
class DialogueRunner:
    """One run of a dialogue. Made by :func:`run_dialogue`; public for tests that go on afterwards."""

    dialogue: Dialogue
    protocol: IProtocol
    transport: DialogueTransport
    mode: Mode
    clock: Clock | None
    pump_more: Callable[[], object] | None
    hooks: Mapping[str, Callable[[], object]]
    variables: dict[str, str]
    transcript: list[str] = field(factory=list)
    _output: bytes = b""
    _waiting: list[Step] = field(factory=list)
    """Pipelined mode: expectations whose turn has not come."""
    _unsent: bytearray = field(factory=bytearray)

    def run(self) -> None:
        """All steps, and that nothing is left over."""
        for step in self.dialogue.steps:
            if step.kind[0] == "C":
                self._send(step)
            elif step.kind[0] == "S":
                if self.mode is Mode.PIPELINED:
                    self._waiting.append(step)
                else:
                    self._expect(step)
            else:
                self._catch_up()
                self._direct(step)
        self._catch_up()
        self._expect_silence(None)

    def pump(self) -> None:
        """Let everything happen that can happen without time passing."""
        self.transport.pump()
        if self.clock is not None:
            self.clock.advance(0)
        if self.pump_more is not None:
            self.pump_more()
        self.transport.pump()
        self._output += self.transport.take()

    def _send(self, step: Step) -> None:
        if self.mode is Mode.PIPELINED and "${" in step.text:
            self._catch_up()
        text = self._substitute(step.text)
        octets = unescape(text) if step.kind == "C<" else text.encode("utf-8") + b"\r\n"
        if self.mode is Mode.PIPELINED:
            self._unsent += octets
            self.transcript.append(f"{step.kind} {text}")
            return
        self.pump()
        self._expect_silence(step)
        self.transcript.append(f"{step.kind} {text}")
        for chunk in [octets] if self.mode is Mode.WHOLE else _octets_of(octets):
            self.transport.deliver(chunk)
            if self.mode is Mode.OCTETS and self.clock is not None:
                self.clock.advance(0)
        self.pump()

    def _catch_up(self) -> None:
        """Pipelined mode: send what was collected, then look at the answers."""
        octets = bytes(self._unsent)
        self._unsent.clear()
        position = 0
        turn = 0
        while position < len(octets):
            size = _CHUNK_SIZES[turn % len(_CHUNK_SIZES)]
            self.transport.deliver(octets[position : position + size])
            position += size
            turn += 1
        if octets:
            self.pump()
        waiting, self._waiting = self._waiting, []
        for step in waiting:
            self._expect(step)

    def _direct(self, step: Step) -> None:
        name, argument = step.kind[1:], step.text
        self.transcript.append(f"{step.kind} {argument}".rstrip())
        if name == "advance":
            if self.clock is None:
                raise ValueError("@advance needs a clock")
            self.clock.advance(float(argument))
            self.pump()
            return
        if name == "do":
            self.hooks[argument]()
            self.pump()
            return
        self.pump()
        self._expect_silence(step)
        if name == "tls":
            self._check(self.transport.tls_started > 0, step, "the server did not start TLS")
        elif name == "eof":
            self.transport.close_from_client()
            self.pump()
        elif name == "closed":
            self._wait_until(lambda: self.transport.disconnecting or self.transport.is_gone)
            self._check(self.transport.disconnecting, step, "the server did not close the connection")
        elif name == "open":
            self._check(not self.transport.disconnecting, step, "the server closed the connection")

    def _expect(self, step: Step) -> None:
        if step.kind == "S<":
            self._expect_octets(step)
        elif step.kind == "S*":
            while not self._matches(step, self._next_line(step)):
                pass
        elif step.kind == "S?":
            line = self._peek_line()
            if line is not None and self._matches(step, line):
                self._next_line(step)
        elif step.kind == "S+":
            count, _, text = step.text.partition(" ")
            for _ in range(int(count)):
                self._expect(Step("S:", text, step.line_number))
        elif step.kind == "S{":
            self._expect_in_any_order(step)
        else:
            line = self._next_line(step)
            self._check(self._matches(step, line), step, f"the server said {line!r}")

    def _expect_octets(self, step: Step) -> None:
        expected = unescape(self._substitute(step.text))
        self._wait_until(lambda: len(self._output) >= len(expected))
        found, self._output = self._output[: len(expected)], self._output[len(expected) :]
        self._check(found == expected, step, f"the server said {found!r}")
        self.transcript.append(f"S< {found!r}")

    def _expect_in_any_order(self, step: Step) -> None:
        missing = list(step.alternatives)
        while missing:
            line = self._next_line(step)
            for alternative in missing:
                if self._matches(alternative, line):
                    missing.remove(alternative)
                    break
            else:
                wanted = "; ".join(alternative.text for alternative in missing)
                self._check(False, step, f"the server said {line!r}, none of: {wanted}")

    def _matches(self, step: Step, line: str) -> bool:
        if step.kind == "S~":
            match = re.fullmatch(self._substitute(step.text, re.escape), line)
            if match is not None:
                self.variables.update({name: value or "" for name, value in match.groupdict().items()})
            return match is not None
        pattern = ".*".join(map(re.escape, self._substitute(step.text).split("...")))
        return re.fullmatch(pattern, line, re.DOTALL) is not None

    def _next_line(self, step: Step) -> str:
        line = self._peek_line()
        if line is None:
            said = f"the server said nothing more than {self._output!r}" if self._output else "the server said nothing"
            self._check(False, step, said)
            return ""
        self._output = self._output[self._output.index(b"\r\n") + 2 :]
        self.transcript.append(f"S: {line}")
        return line

    def _peek_line(self) -> str | None:
        self._wait_until(lambda: b"\r\n" in self._output)
        line, found, _ = self._output.partition(b"\r\n")
        return line.decode("utf-8", "surrogateescape") if found else None

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        for _ in range(_PATIENCE):
            if condition():
                return
            self.pump()

    def _expect_silence(self, step: Step | None) -> None:
        self._check(not self._output, step, f"the server also said {self._output!r}")

    def _check(self, condition: bool, step: Step | None, complaint: str) -> None:
        if condition:
            return
        place = f"line {step.line_number}: {step.kind} {step.text}".rstrip() if step else "end"
        so_far = "\n".join(f"    {line}" for line in self.transcript[-40:])
        raise DialogueFailed(
            f"{self.dialogue.name} ({self.mode.value}), {place}\n{complaint}\nthe dialogue so far:\n{so_far}"
        )

    def _substitute(self, text: str, quote: Callable[[str], str] = str) -> str:
        return re.sub(r"\$\{(\w+)\}", lambda match: quote(self.variables[match.group(1)]), text)


def run_dialogue(
    dialogue: Dialogue,
    make_protocol: Callable[[], IProtocol | None],
    *,
    mode: Mode = Mode.WHOLE,
    clock: Clock | None = None,
    pump: Callable[[], object] | None = None,
    hooks: Mapping[str, Callable[[], object]] | None = None,
    variables: Mapping[str, str] | None = None,
    host: IAddress | None = None,
    peer: IAddress | None = None,
    is_tls: bool = False,
) -> DialogueRunner:
    """Connect a new protocol to a :class:`DialogueTransport`, and run the dialogue; raises :class:`DialogueFailed`.

    ``clock`` is the clock the protocol was given: it is advanced by 0 again and again, and by more
    only with ``@advance``. ``pump`` is called wherever an answer is waited for (let a fake thread
    pool work there). ``is_tls``: the transport says from the start that it is a TLS one.
    """
    protocol = make_protocol()
    if protocol is None:
        raise DialogueFailed("the factory refused the connection")
    transport = DialogueTransport(protocol, host, peer, is_tls=is_tls)
    runner = DialogueRunner(dialogue, protocol, transport, mode, clock, pump, hooks or {}, dict(variables or {}))
    protocol.makeConnection(transport)
    runner.pump()
    runner.run()
    return runner


_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|\*(\d+)\{([^}]*)\}|(.))", re.DOTALL)
_SIMPLE = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}


def unescape(text: str) -> bytes:
    """The octets that a ``C<`` or ``S<`` line stands for."""

    def octets_for(match: re.Match[bytes]) -> bytes:
        hexadecimal, count, repeated, simple = match.groups()
        if hexadecimal:
            return bytes([int(hexadecimal, 16)])
        if count:
            return _ESCAPE.sub(octets_for, repeated) * int(count)
        if simple not in _SIMPLE:
            raise ValueError(f"unknown escape {match.group()!r}")
        return _SIMPLE[simple]

    return _ESCAPE.sub(octets_for, text.encode("utf-8"))


def _octets_of(octets: bytes) -> Iterator[bytes]:
    return (octets[index : index + 1] for index in range(len(octets)))
