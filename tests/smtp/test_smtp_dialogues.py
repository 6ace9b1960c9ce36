"""The golden dialogues, with a receiver that answers at once and with one that takes a turn of the reactor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mailsrv.smtp.settings import Service, Verification
from mailsrv.testing.dialogue import case_id, find_dialogues, run_dialogue
from mailsrv.wire.tls_mode import TlsMode
from tests.smtp.smtp_harness import CLIENT, HOST, STRANGER, make_server

FOLDER = Path(__file__).parent.parent / "dialogues" / "smtp"


@pytest.mark.parametrize("is_slow", [False, True], ids=["at-once", "later"])
@pytest.mark.parametrize(("dialogue", "mode"), find_dialogues(FOLDER), ids=case_id)
def test_dialogue(dialogue, mode, is_slow):
    options = dict(dialogue.options)
    plaintext = ("127.0.0.0/8",) if options.pop("plaintext", "") else ()
    peer = STRANGER if options.pop("stranger", "") else CLIENT
    is_tls = bool(options.pop("tls", ""))
    service = Service(options.pop("service", "mx"))
    messages = options.pop("messages", None)
    changes: dict[str, Any] = {}
    for name in ("extensions_off", "xclient_networks"):
        if name in options:
            changes[name] = tuple(options.pop(name).split(","))
    for name in ("verify", "expand"):
        if name in options:
            changes[name] = Verification(options.pop(name))
    changes |= {name: float(value) if "." in value else int(value) for name, value in options.items()}
    server = make_server(
        service=service,
        plaintext=plaintext,
        tls_mode=TlsMode.IMPLICIT if is_tls else TlsMode.STARTTLS,
        is_slow=is_slow,
        **changes,
    )
    run_dialogue(
        dialogue,
        lambda: server.factory.buildProtocol(peer),
        mode=mode,
        clock=server.clock,
        hooks={"drain": server.factory.drain},
        peer=peer,
        host=HOST,
        is_tls=is_tls,
    )
    if messages is not None:
        assert len(server.receiver.messages) == int(messages)
