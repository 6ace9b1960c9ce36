"""``mailsrvctl queue``: what it prints, what it changes, what it answers to the shell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mailsrv.cli import main
from tests.queue.queue_setting import BODY, A, B, QueueSetting


@pytest.fixture
def queue(tmp_path: Path):
    setting = QueueSetting(tmp_path / "state").start()
    yield setting
    setting.stop()


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = tmp_path / "mailsrv.toml"
    config.write_text(
        'hostname = "mail.example.test"\nstate_dir = "state"\n'
        '[[listen]]\nservice = "mx"\nendpoint = "tcp:0:interface=127.0.0.1"\ntls = "none"\n'
        '[[domain]]\nname = "example.test"\n'
        '[[directory]]\ntype = "passwd-file"\npath = "passwd"\n'
    )
    (tmp_path / "passwd").write_text("")
    (tmp_path / "state").mkdir(exist_ok=True)

    def call(*arguments: object) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["--config", str(config), "queue", *map(str, arguments)])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return call


def test_without_a_queue_it_says_so(run):
    status, out, err = run("list")
    assert (status, out) == (1, "")
    assert "no queue" in err


def test_list_and_filters(queue: QueueSetting, run):
    queue.enqueue(("u@a.test", A), ("v@b.test", B))
    queue.enqueue(("w@a.test", A), sender=None)
    status, out, _ = run("list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines() if line.startswith(" ")] == [
        "<u@a.test>",
        "<v@b.test>",
        "<w@a.test>",
    ]
    status, out, _ = run("list", "--json", "--destination", "mx:a.*", "--limit", "1")
    [message] = [json.loads(line) for line in out.splitlines()]
    assert message["sender"] == "sender@example.org"
    assert [each["address"] for each in message["recipients"]] == ["u@a.test"]
    assert "<w@a.test>" in run("list", "--sender", "<>")[1]
    assert run("list", "--older", "1x")[0] == 2


def test_show_has_recipients_history_and_header(queue: QueueSetting, run):
    queue.enqueue(("u@a.test", A))
    queue.store.applier.take_touched()
    [message] = [json.loads(line) for line in run("list", "--json")[1].splitlines()]
    assert run("hold", message["id"])[0] == 0
    status, out, _ = run("show", message["transaction_id"], "--json")
    [shown] = json.loads(out)
    assert status == 0
    assert shown["header"].encode() == BODY.partition(b"\r\n\r\n")[0].replace(b"\r\n", b"\r\n")
    assert [event["text"] for event in shown["history"]] == ["hold by the administrator"]
    text = run("show", message["id"])[1]
    assert "Subject: one" in text
    assert "held" in text
    assert run("show", "unknown")[0] == 1


def test_what_others_wrote_steers_no_terminal(queue: QueueSetting, run):
    queue.enqueue(("u@a.test", A), content=b"Subject: \x1b[31mred\r\n\r\n")
    queue.store.applier.take_touched()
    [message] = [json.loads(line) for line in run("list", "--json")[1].splitlines()]
    assert "\x1b" not in run("show", message["id"])[1]


def test_folded_fields_are_shown_as_they_read(queue: QueueSetting, run):
    queue.enqueue(("u@a.test", A), content=b"Received: by us\r\n\tid 1\r\n\r\n")
    queue.store.applier.take_touched()
    [message] = [json.loads(line) for line in run("list", "--json")[1].splitlines()]
    assert "\nReceived: by us\n        id 1\n" in run("show", message["id"])[1]


def test_changes_need_a_filter_or_all_and_not_both(queue: QueueSetting, run):
    queue.enqueue(("u@a.test", A))
    assert run("hold")[0] == 2
    assert run("hold", "--all", "--sender", "*")[0] == 2
    assert run("hold", "no-such-message")[0] == 1
    assert run("hold", "--all", "--json")[:2] == (0, '{"command": "hold", "recipients": 1}\n')
    assert run("hold", "--all")[0] == 1
    assert queue.waiting() == {}
    assert run("release", "--destination", "mx:a.test")[0] == 0
    assert queue.waiting() == {"mx:a.test": 1}


def test_reroute_flush_and_requeue(queue: QueueSetting, run):
    queue.enqueue(("u@a.test", A))
    assert run("reroute", "--all")[0] == 2
    assert run("reroute", "--all", "--to", "nowhere:x")[0] == 2
    assert run("reroute", "--recipient", "u@*", "--to", "smtp:relay.test:25")[0] == 0
    assert queue.waiting() == {"smtp:relay.test:25": 1}
    assert run("flush", "--all")[0] == run("requeue", "--all")[0] == 0


def test_mail_is_not_rerouted_to_what_cannot_be(queue: QueueSetting, run):
    queue.enqueue(("u@a.test", A))
    for nowhere in ("mx:", "mx:a..test", "smtp:relay.test:99999", "smtp:", "lmtp:here", "local:x", "reject:no"):
        assert run("reroute", "--all", "--to", nowhere)[0] == 2, nowhere
    assert queue.waiting() == {"mx:a.test": 1}
    # As a rule that names it, with its password, writes it.
    assert run("reroute", "--all", "--to", "smtp:Relay.Test")[0] == 0
    assert queue.waiting() == {"smtp:relay.test:25": 1}


def test_everything_is_dropped_only_when_confirmed(queue: QueueSetting, run, monkeypatch: pytest.MonkeyPatch):
    queue.enqueue(("u@a.test", A))
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    assert run("drop", "--all")[0] == 1
    assert queue.waiting() == {"mx:a.test": 1}
    assert run("drop", "--all", "--yes")[0] == 0
    assert queue.waiting() == {}


def test_stats(queue: QueueSetting, run):
    queue.enqueue(("u@a.test", A), ("v@b.test", B))
    status, out, _ = run("stats", "--json")
    assert status == 0
    found = json.loads(out)
    assert found["recipients"] == {"waiting": 2, "active": 0, "held": 0}
    assert [each["destination"] for each in found["destinations"]] == ["mx:a.test", "mx:b.test"]
    assert run("stats")[1].splitlines() == [
        f"1 message, {len(BODY)} octets; recipients: 2 waiting, 0 active, 0 held",
        "0 messages that left are remembered",
        "         1  mx:a.test  due",
        "         1  mx:b.test  due",
    ]
