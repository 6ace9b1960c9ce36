"""Golden dialogues: what a client and a server say, in a file that a user of the protocol can read.

A dialogue is run against any Twisted protocol, in memory, and in several ways (:class:`Mode`): each
client line whole, octet by octet, and all lines sent ahead in small chunks. The same answers are
expected each time. In a test::

    @pytest.mark.parametrize(("dialogue", "mode"), find_dialogues(FOLDER), ids=case_id)
    def test_dialogue(dialogue, mode):
        clock = Clock()
        factory = make_factory(clock, **dialogue.options)
        run_dialogue(dialogue, lambda: factory.buildProtocol(CLIENT_ADDRESS), mode=mode, clock=clock)

How a dialogue is written stands in :mod:`~mailsrv.testing.dialogue.script`, how the server meets it in
:mod:`~mailsrv.testing.dialogue.runner` and :mod:`~mailsrv.testing.dialogue.transport`.
"""

from mailsrv.testing.dialogue.runner import DialogueFailed, DialogueRunner, run_dialogue
from mailsrv.testing.dialogue.script import (
    Dialogue,
    Mode,
    Step,
    case_id,
    find_dialogues,
    load_dialogue,
    parse_dialogue,
    unescape,
)
from mailsrv.testing.dialogue.transport import DialogueTransport, TlsHandle

__all__ = [
    "Dialogue",
    "DialogueFailed",
    "DialogueRunner",
    "DialogueTransport",
    "Mode",
    "Step",
    "TlsHandle",
    "case_id",
    "find_dialogues",
    "load_dialogue",
    "parse_dialogue",
    "run_dialogue",
    "unescape",
]
