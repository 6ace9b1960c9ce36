"""Golden dialogues of IMAP: each whole, octet by octet, and some pipelined."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailsrv.interfaces.mailbox import FlagOperation
from mailsrv.testing.dialogue import Dialogue, Mode, case_id, find_dialogues, run_dialogue
from mailsrv.wire.tls_mode import TlsMode
from tests.imap.server import CLIENT, MESSAGES, Server
from tests.sharing.sharing_setting import SUPPORT

FOLDER = Path(__file__).parent.parent / "dialogues" / "imap"


@pytest.mark.parametrize(("dialogue", "mode"), find_dialogues(FOLDER), ids=case_id)
def test_dialogue(dialogue: Dialogue, mode: Mode) -> None:
    options = dialogue.options
    server = Server(
        tls=TlsMode(options.get("tls", "none")),
        plaintext=() if options.get("plaintext") == "none" else ("192.0.2.0/24",),
    )
    server.fill(options.get("messages", ""))
    if "quota" in options:
        server.account.quota_octets = int(options["quota"])
    if "shared" in options:
        server.share(options["shared"])
        server.store.account(SUPPORT).quota_octets = int(options.get("quota", 100_000))
        server.add(MESSAGES["plain"], account=SUPPORT)
        server.add(MESSAGES["umlaut"], account=SUPPORT, flags=("\\Seen",))
    inbox = server.mailbox()
    hooks = {
        "deliver": lambda: server.add(MESSAGES["plain"]),
        "flag-first": lambda: inbox.store_flags(inbox.uids[:1], FlagOperation.ADD, frozenset({"\\Answered"})),
        "expunge-first": lambda: inbox.delete_messages(inbox.uids[:1]),
        "delete-junk": lambda: server.account.delete("Junk"),
        "deliver-support": lambda: server.add(MESSAGES["plain"], account=SUPPORT),
        "share-nothing": lambda: server.share_from_now(""),
        "share-read": lambda: server.share_from_now("support:read"),
        "share-write": lambda: server.share_from_now("support:write"),
    }
    if options.get("login") == "yes":
        steps = Dialogue("login", _LOGIN + dialogue.steps, options, dialogue.modes)
    else:
        steps = dialogue
    run_dialogue(
        steps,
        lambda: server.factory.buildProtocol(CLIENT),
        mode=mode,
        clock=server.clock,
        hooks=hooks,
        peer=CLIENT,
        is_tls=options.get("tls") == "implicit",
    )
    assert server.spool.open == 0, "a spool writer was left open"


def _login_steps():
    from mailsrv.testing.dialogue import parse_dialogue

    return parse_dialogue("S: * OK ...\nC: login LOGIN alice secret\nS: login OK ...\n").steps


_LOGIN = _login_steps()
