"""``mailsrvctl mailbox`` and ``mailsrvctl journal``, beside a server that runs; mail that was put aside comes back."""

from __future__ import annotations

import json
import time

import pytest

from mailsrv.cli import main
from tests.scenarios.server import ALICE, BOB, WholeServer

MESSAGE = b"From: someone@example.org\r\nSubject: one\r\n\r\nHello\r\n"


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_r_dur_5_mail_put_aside_is_listed_and_comes_back_with_a_reload(tmp_path, capsys, workers):
    folder = tmp_path / "s"
    sections = {
        "journal": "stuck_after = 1\nretry_first = 0.05",
        "smtp": "greeting_delay_seconds = 0.0",
    }
    with WholeServer(folder, workers=workers, sections=sections) as server:
        config = ("--config", server.config_path)
        assert run(capsys, *config, "journal", "stuck", "--json") == (0, "[]\n", "")
        server.deliver(ALICE, MESSAGE)
        # Bob's account cannot be made: a file is in its place.
        in_the_way = server.mail_folder / "example.test" / "bob"
        in_the_way.write_text("")
        server.deliver(BOB, MESSAGE)
        wait_until(lambda: run(capsys, *config, "journal", "stuck")[1])
        _, out, _ = run(capsys, *config, "journal", "stuck", "--json")
        [stuck] = json.loads(out)
        assert (stuck["account"], stuck["mailbox"], stuck["is_content_complete"]) == (BOB, "INBOX", True)
        assert stuck["error"]

        server.reload()
        assert server.wait_for_event("still cannot be delivered")
        in_the_way.unlink()
        server.reload()
        wait_until(lambda: run(capsys, *config, "journal", "stuck")[1] == "")
        [message] = server.messages(BOB)
        assert message.endswith(MESSAGE.partition(b"\r\n\r\n")[2])

        wait_until(lambda: len(server.messages(ALICE)) == 1)
        status, out, _ = run(capsys, *config, "mailbox", "check", "alice", "--json")
        report = json.loads(out)
        assert (status, report["is_sound"], report["messages"]) == (0, True, 1)

    [file] = [path for path in (server.mail_folder / "example.test" / "alice").rglob("*") if path.parent.name == "new"]
    file.write_bytes(b"shorter")
    status, out, _ = run(capsys, *config, "mailbox", "check", ALICE)
    assert status == 1
    assert "broken: INBOX" in out
    status, _, err = run(capsys, *config, "mailbox", "check", "nobody")
    assert (status, err) == (1, "mailsrvctl: nobody@example.test has no mailboxes here\n")
