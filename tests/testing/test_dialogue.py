"""The dialogue runner sees what it should see, in every mode."""

from __future__ import annotations

import pytest
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.protocols.basic import LineReceiver

from mailsrv.testing.dialogue import DialogueFailed, DialogueTransport, Mode, parse_dialogue, run_dialogue, unescape


class Shouter(LineReceiver):
    """Answers each line in capitals; LATER after a second; TLS starts it; BYE ends."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def connectionMade(self) -> None:
        self.sendLine(b"HELLO <42@x>")

    def lineReceived(self, line: bytes) -> None:
        if line == b"later":
            self.clock.callLater(1, self.sendLine, b"LATER")
        elif line == b"tls":
            self.sendLine(b"GO")
            self.transport.startTLS(None)  # type: ignore[union-attr]
        elif line == b"bye":
            self.sendLine(b"BYE")
            self.transport.loseConnection()  # type: ignore[union-attr]
        elif line == b"two":
            self.sendLine(b"* 1")
            self.sendLine(b"* 2")
        else:
            self.sendLine(line.upper())


GOOD = r"""
# a comment
@with greeting=loud
S~ HELLO <(?P<number>\d+)@x>
C: ab ${number}
S: AB 42
C< raw\x41\r\n
S: R...A
C: two
S{
S: * 2
S~ \* [1]
S}
C: a
S: A
C< \*3{b}\r\n
S? NOT THIS
S* BBB
C: x
S+ 1 X
C: later
@silent
@advance 1
S: LATER
C: tls
S: GO
@tls
@open
C: bye
S< BYE\r\n
@closed
"""


def run(text: str, mode: Mode = Mode.WHOLE, **options):
    clock = Clock()
    return run_dialogue(parse_dialogue(text), lambda: Shouter(clock), mode=mode, clock=clock, **options)


@pytest.mark.parametrize("mode", Mode)
def test_a_good_dialogue_passes(mode):
    run(GOOD, mode)
    assert parse_dialogue(GOOD).options == {"greeting": "loud"}


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("S: WRONG", "said 'HELLO"),
        ("S: HELLO ...\nS: more", "said nothing"),
        ("C: early\n", "also said b'HELLO"),
        ("S: HELLO ...\nC: a\n", "also said"),
        ("S: HELLO ...\n@closed", "did not close"),
        ("S: HELLO ...\n@tls", "did not start TLS"),
        ("S: HELLO ...\nC: bye\nS: BYE\n@open", "closed the connection"),
        ("S: HELLO ...\nC: two\nS{\nS: * 1\nS: * 3\nS}", "none of: * 3"),
        ("S: HELLO ...\nC: later\nS: LATER", "said nothing"),
        ("S* NEVER", "said nothing"),
        ("S< HELP", "said b'HELL"),
    ],
)
def test_a_wrong_dialogue_fails(text, complaint, mode):
    if mode is Mode.PIPELINED and text.startswith("C:"):
        complaint = "also said"
    with pytest.raises(DialogueFailed, match=complaint.replace("*", r"\*")):
        run(text, mode)


@pytest.mark.parametrize("text", ["X: a", "@jump", "S{\nC: a\nS}", "S}", "S{\nS: a", "C- a"])
def test_a_file_that_is_not_understood_is_refused(text):
    with pytest.raises(ValueError, match=r"line|S\{"):
        parse_dialogue(text)


def test_escapes():
    assert unescape(r"a\r\n\0\t\\\x7f\*3{\r\n}é") == b"a\r\n\0\t\\\x7f\r\n\r\n\r\n" + "é".encode()


def test_the_transport_holds_input_back_while_the_protocol_does_not_read():
    got: list[bytes] = []

    class Slow(Protocol):
        def dataReceived(self, data):
            got.append(data)
            self.transport.pauseProducing()  # type: ignore[union-attr]

    protocol = Slow()
    transport = DialogueTransport(protocol)
    protocol.makeConnection(transport)
    transport.deliver(b"one")
    transport.deliver(b"two")
    assert got == [b"one"]
    assert transport.has_unread_input
    transport.resumeProducing()
    transport.pump()
    assert got == [b"one", b"two"]
