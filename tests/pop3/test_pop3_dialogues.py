"""Golden dialogues (tests/dialogues/pop3), each whole and octet by octet."""

from pathlib import Path

import pytest
from twisted.internet.address import IPv4Address

from mailsrv.address import Address
from mailsrv.testing.dialogue import case_id, find_dialogues, run_dialogue

FOLDER = Path(__file__).parent.parent / "dialogues" / "pop3"


def message(number):
    return b"Subject: number %d\r\n\r\n. a dot\r\ntext\r\n.\r\nlast line\r\n" % number


@pytest.mark.parametrize(("dialogue", "mode"), find_dialogues(FOLDER), ids=case_id)
def test_dialogue(dialogue, mode, server_factory):
    options = dict(dialogue.options)
    messages = int(options.pop("messages", 0))
    server = server_factory(**options)
    for number in range(1, messages + 1):
        server.add(message(number))
    unlock: list = []
    account = server.store.account(Address("alice", "example.test"))

    def uids_are(*uids):
        assert list(server.inbox().uids) == list(uids)

    hooks = {
        "all-there": lambda: uids_are(*range(1, messages + 1)),
        "only-two-left": lambda: uids_are(2),
        "lock": lambda: account.lock_maildrop().addCallback(unlock.append),
        "unlock": lambda: unlock.pop()(),
        "not-locked": lambda: account.lock_maildrop().addCallback(lambda release: release()),
        "deliver": lambda: server.add(message(9)),
        "expunge-second": lambda: server.inbox().delete_messages([2]),
        "drain": server.factory.drain,
    }
    run_dialogue(
        dialogue,
        lambda: server.factory.buildProtocol(None),
        mode=mode,
        clock=server.clock,
        hooks=hooks,
        peer=IPv4Address("TCP", "127.0.0.1", 40000),
    )
