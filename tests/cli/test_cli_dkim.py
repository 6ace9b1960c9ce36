"""``mailsrvctl dkim``: a key's life as an administrator sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from mailsrv.cli import main
from mailsrv.mailauth.key_store import load_signing_keys
from mailsrv.mailauth.settings import DkimSettings

CONFIG = """
hostname = "mail.example.test"
state_dir = "state"
[[listen]]
service = "mx"
endpoint = "tcp:25"
[[domain]]
name = "example.test"
aliases = ["example.org"]
[[directory]]
type = "passwd-file"
path = "passwd"
"""


@pytest.fixture
def active_keys(tmp_path) -> Callable[[], dict[str, list[str]]]:
    return lambda: {
        domain: [key.selector for key in keys]
        for domain, keys in load_signing_keys(DkimSettings(), str(tmp_path / "state")).items()
    }


@pytest.fixture
def dkim(tmp_path, capsys):
    config = tmp_path / "mailsrv.toml"
    config.write_text(CONFIG)
    (tmp_path / "passwd").touch()

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["--config", str(config), "dkim", *arguments])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


def test_a_key_from_its_making_to_its_end(dkim, active_keys):
    status, record, told = dkim("new", "example.test", "--selector", "one")
    assert status == 0
    strings = re.findall(r'"([^"]*)"', record)
    assert record.startswith('one._domainkey.example.test. 3600 IN TXT ( "v=DKIM1; k=rsa; p=')
    assert [len(text) <= 255 for text in strings] == [True, True]
    assert "dkim activate example.test --selector one" in told
    assert active_keys() == {}

    assert dkim("activate", "example.test")[0] == 0
    assert active_keys() == {"example.test": ["one"]}
    assert dkim("new", "example.test", "--selector", "two", "--algorithm", "ed25519", "--activate")[0] == 0
    assert active_keys() == {"example.test": ["one", "two"]}

    status, _, told = dkim("retire", "example.test")
    assert (status, "2 keys" in told) == (1, True)
    assert dkim("retire", "example.test", "--selector", "one")[0] == 0
    status, _, told = dkim("retire", "example.test")
    assert status == 0
    assert "not signed any more" in told
    assert active_keys() == {}

    _, rows, _ = dkim("list", "--json")
    shown = [(row["selector"], row["algorithm"], row["bits"], row["state"]) for row in json.loads(rows)]
    assert shown == [("one", "rsa", 2048, "retired"), ("two", "ed25519", 256, "retired")]
    assert "".join(strings) == json.loads(rows)[0]["record"]
    assert "example.test  one  rsa 2048  retired\n" in dkim("list", "example.test")[1]


def test_show_prints_records_alone_or_all(dkim):
    assert dkim("show", "example.test")[0] == 1
    for selector in ("a", "b"):
        dkim("new", "example.test", "--selector", selector, "--algorithm", "ed25519")
    assert dkim("show", "example.test")[1].count(" IN TXT ") == 2
    assert "example.test  b  ed25519 256  not active yet\n" in dkim("list")[1]
    status, out, _ = dkim("show", "example.test", "--selector", "b")
    assert status == 0
    assert out.startswith("; b: published\nb._domainkey.example.test. 3600 IN TXT ")
    assert dkim("show", "example.test", "--selector", "c")[0] == 1
    assert len(json.loads(dkim("show", "example.test", "--json")[1])) == 2


def test_selectors_made_from_the_date_do_not_collide(dkim):
    for _ in range(3):
        assert dkim("new", "example.test", "--algorithm", "ed25519")[0] == 0
    selectors = {row["selector"] for row in json.loads(dkim("list", "--json")[1])}
    assert len(selectors) == 3
    assert all(re.fullmatch(r"\d{8}e(-\d)?", selector) for selector in selectors)


def test_other_names_and_the_host_name_have_keys_too(dkim, active_keys):
    for domain in ("example.org", "mail.example.test"):
        assert dkim("new", domain, "--algorithm", "ed25519", "--activate")[0] == 0
    assert set(active_keys()) == {"example.org", "mail.example.test"}


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("new", "elsewhere.test"), 1),
        (("new", "not a domain"), 2),
        (("new", "example.test", "--selector", "Not_One"), 2),
        (("new", "example.test", "--bits", "1024"), 2),
        (("retire", "example.test", "--selector", "none"), 1),
        (("activate", "example.test"), 1),
    ],
)
def test_mistakes(dkim, arguments, status):
    ended, out, err = dkim(*arguments)
    assert (ended, out) == (status, "")
    assert err


def test_a_selector_twice(dkim):
    dkim("new", "example.test", "--selector", "a", "--algorithm", "ed25519")
    status, _, err = dkim("new", "example.test", "--selector", "a", "--algorithm", "ed25519")
    assert status == 1
    assert "already" in err
