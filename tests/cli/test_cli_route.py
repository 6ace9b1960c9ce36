"""``mailsrvctl route``: each step from an address to where its mail goes."""

from __future__ import annotations

import json
import time

import pytest

from mailsrv.cli import main
from mailsrv.config.load import load
from mailsrv.delivery.srs_secret import open_rewriting

CONFIG = """
hostname = "mail.example.test"
state_dir = "state"

[auth]
default_domain = "example.test"

[[listen]]
service = "mx"
endpoint = "tcp:2525:interface=127.0.0.1"

[[domain]]
name = "example.test"
aliases = ["example.net"]

[[domain]]
name = "lists.test"
catch_all = "alice@example.test"

[[domain]]
name = "inside.test"

[[directory]]
type = "passwd-file"
path = "users"

[[directory]]
type = "aliases"
path = "aliases"

[[route]]
to = "inside.test"
via = "lmtp:unix:/run/inside"

[[route]]
to = "blocked.example"
from = "example.test"
via = "reject:Not to them"

[[route]]
to = "dropped.example"
via = "discard"

[[route]]
to = "*"
via = "smtp:relay.example:587"
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "users").write_text("alice@example.test:{PLAIN}x::::::\nbob@example.test:{PLAIN}x::::::\n")
    (tmp_path / "aliases").write_text(
        "root: alice\nstaff: root, bob, carol@example.org\nowner-staff: bob\naway: carol@example.org\n"
        "blocked: x@blocked.example\n"
    )
    path = tmp_path / "mailsrv.toml"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def run(capsys, config):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["--config", config, "route", *arguments])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


def test_a_user_by_another_name_of_the_domain_and_a_detail(run):
    status, out, err = run("Alice+lists@example.net", "--from", "x@example.com")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "Alice+lists@example.net, from <x@example.com>",
        "  example.net is a domain of this server, a name of example.test",
        "  no rule matches alice+lists@example.test: local",
        "  alice+lists@example.test is alice@example.test with the detail 'lists'",
        "  alice@example.test is a user",
        "  → mailbox of alice@example.test, detail 'lists'",
    ]


def test_a_rule_that_drops_mail_is_named(run):
    assert run("x@dropped.example", "--login", "alice") == run("x@dropped.example", "--login", "alice@example.test")
    status, out, _ = run("x@dropped.example", "--login", "alice@example.test")
    assert status == 0
    assert '  route[2] (to = "dropped.example") matches x@dropped.example: via = "discard"\n  → dropped\n' in out


def test_a_list_with_an_owner(run):
    status, out, _ = run("staff@example.test", "--from", "x@example.com")
    assert status == 0
    assert "  staff@example.test is an alias for root@example.test, bob@example.test, carol@example.org\n" in out
    assert "  root@example.test is an alias for alice@example.test\n" in out
    assert "owner-staff@example.test is its owner" in out
    assert "  staff@example.test forwards to carol@example.org\n" in out
    assert '  route[3] (to = "*") matches carol@example.org: via = "smtp:relay.example:587"\n' in out
    assert "  the sender x@example.com becomes owner-staff@example.test\n" in out
    assert out.endswith("  → smtp:relay.example:587 for carol@example.org, from <owner-staff@example.test>\n")


def test_a_forward_with_a_rewritten_sender_and_back(run, config):
    status, out, _ = run("away@example.test", "--from", "x@example.com", "--json")
    assert status == 0
    assert json.loads(out)["results"][0]["reverse_path"] == "SRS0=…=example.com=x@example.test"
    settings = load(config)
    rewriting = open_rewriting(settings.delivery, settings.state_dir, time.time())
    assert rewriting is not None
    status, out, _ = run("away@example.test", "--from", "x@example.com", "--json")
    reverse_path = json.loads(out)["results"][0]["reverse_path"]
    assert reverse_path.startswith("SRS0=")
    status, out, _ = run(reverse_path, "--from", "<>")
    assert status == 0
    assert "it stands for the sender x@example.com" in out
    assert out.endswith("  → smtp:relay.example:587 for x@example.com, from <>\n")
    status, out, _ = run(reverse_path, "--from", "x@example.org")
    assert status == 1
    assert "takes delivery notices only" in out
    status, out, _ = run("away@example.test")
    assert "from <>" in out.splitlines()[-1]


def test_rules_catch_all_and_what_is_refused(run):
    assert run("any.body@inside.test")[1].endswith("  → lmtp:unix:/run/inside for any.body@inside.test, from <>\n")
    status, out, _ = run("nobody@lists.test")
    assert status == 0
    assert "the domain's catch-all is alice@example.test" in out
    status, out, _ = run("nobody@example.test")
    assert status == 1
    assert out.endswith("  nobody is named nobody@example.test\n  → refused: 5.1.1 No such user here\n")
    status, out, _ = run("blocked@example.test", "--from", "bob@example.test", "--json")
    assert status == 1
    assert json.loads(out)["refusal"] == {"status": "5.7.1", "text": "Not to them", "cause": "route[1]"}
    assert run("blocked@example.test", "--from", "x@example.com")[0] == 0


def test_elsewhere(run):
    status, out, _ = run("carol@example.org")
    assert status == 0
    assert "example.org is not a domain of this server" in out
    assert "only users who are logged in" in out
    assert out.endswith("  → smtp:relay.example:587 for carol@example.org, from <>\n")


def test_names_without_a_domain_are_ours_as_local_programs_write_them(run):
    assert run("alice")[:2] == run("alice@example.test")[:2]
    assert run("nobody-here")[0] == 1


def test_postmaster_is_never_refused(run):
    status, out, _ = run("postmaster")
    assert status == 0
    assert out.endswith("  → mailbox of alice@example.test\n")


def test_a_directory_that_cannot_be_read_defers(run, tmp_path):
    (tmp_path / "users").unlink()
    status, out, err = run("alice@example.test")
    assert status == 1
    assert "  → deferred: 4.3.0 " in out
    assert "users" in err


def test_wrong_use(run):
    assert run("not an address")[0] == 2
    assert run("alice@example.test", "--from", "x y")[0] == 2
