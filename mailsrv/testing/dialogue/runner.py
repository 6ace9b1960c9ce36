"""One run of a dialogue: the client's lines go out in the way of its mode, the server's are compared as they come."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from attrs import define, field
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.task import Clock

from mailsrv.testing.dialogue.script import Dialogue, Mode, Step, unescape
from mailsrv.testing.dialogue.transport import DialogueTransport

_PATIENCE = 25
_CHUNK_SIZES = (1, 7, 3, 64, 2, 29)


class DialogueFailed(AssertionError):
    """The server said something else. The text shows the dialogue so far."""


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


def _octets_of(octets: bytes) -> Iterator[bytes]:
    return (octets[index : index + 1] for index in range(len(octets)))
