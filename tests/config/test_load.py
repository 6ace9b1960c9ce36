"""From the file to settings: what is right is taken, and everything that is wrong is told at once."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.app.settings import LogFormat, Service
from mailsrv.config.load import load, parse
from mailsrv.config.partial import is_whole
from mailsrv.config.problems import ConfigurationError, is_secret, show_value
from mailsrv.config.reference import write_reference
from mailsrv.config.rules import check_rules
from mailsrv.config.sample import section_record, sections, write_sample
from mailsrv.config.schema import Settings
from mailsrv.config.show import as_table
from mailsrv.config.structure import Structurer, describe, is_path, record_fields
from mailsrv.wire.tls_mode import TlsMode

ROOT = Path(__file__).resolve().parents[2]

GOOD = """
hostname = "mail.example.test"
state_dir = "state"

[tls]
certificate = "cert.pem"
key = "/absolute/key.pem"

[[listen]]
service = "imap"
endpoint = "tcp:143"
tls = "starttls"

[[listen]]
service = "lmtp"
endpoint = "unix:lmtp.sock"

[[domain]]
name = "example.test"

[[directory]]
type = "passwd-file"
path = "../users"
"""


def problems(text: str) -> dict[str, str]:
    with pytest.raises(ConfigurationError) as raised:
        parse(text, "/etc/mailsrv/mailsrv.toml")
    return {problem.key: str(problem) for problem in raised.value.problems}


def test_a_good_file_becomes_settings_with_paths_from_its_folder():
    settings = parse(GOOD, "/etc/mailsrv/mailsrv.toml")
    assert settings.state_dir == "/etc/mailsrv/state"
    assert settings.tls.certificate == "/etc/mailsrv/cert.pem"
    assert settings.tls.key == "/absolute/key.pem"
    assert settings.directory[0].path == "/etc/users"
    assert settings.store.path == "/etc/mailsrv/mail/{domain}/{local}"
    assert settings.listen[0].service is Service.IMAP
    assert settings.listen[0].tls is TlsMode.STARTTLS
    assert settings.listen[1].endpoint == "unix:/etc/mailsrv/lmtp.sock"
    assert settings.log.format is LogFormat.AUTO


def test_every_mistake_is_told_at_once_with_file_key_value_and_what_is_right():
    with pytest.raises(ConfigurationError) as raised:
        parse(
            'hostnam = "x"\nstate_dir = 3\nworkers = "two"\n[imap]\nnestin = 3\n'
            '[[listen]]\nservice = "imp"\nendpoint = "tcp:143"\n[[listen]]\nservice = "imap"\nendpoint = true\n',
            "/etc/m.toml",
        )
    text = str(raised.value)
    assert '/etc/m.toml: hostnam = "x": unknown key; did you mean "hostname"?' in text
    assert "/etc/m.toml: hostname: missing; expected text in quotes" in text
    assert "state_dir = 3: expected text in quotes" in text
    assert show_value("servers", ("a", 1)) == '["a", 1]'
    assert 'workers = "two": expected a whole number' in text
    assert 'imap.nestin = 3: unknown key; did you mean "nesting"?' in text
    assert 'listen[0].service = "imp": expected one of' in text
    assert 'did you mean "imap"?' in text
    assert "listen[1].endpoint = true: expected text in quotes" in text
    assert 'listen[1].tls = "none": nobody could log in here' in text
    assert "10 mistakes in /etc/m.toml" in text


@pytest.mark.parametrize(
    ("change", "key", "says"),
    [
        (("workers", 'hostname = "mail', 'workers = 0\nhostname = "mail'), "workers", ">= 1"),
        (("host", "mail.example.test", "not a name"), "hostname", "expected a host name"),
        (("tls", '[tls]\ncertificate = "cert.pem"\nkey = "/absolute/key.pem"', ""), "tls.key", "starttls"),
        (("endpoint", "tcp:143", "tcp:imap"), "listen[0].endpoint", "port number"),
        (("endpoint", "tcp:143", "143"), "listen[0].endpoint", "endpoint string"),
        (("endpoint", "unix:lmtp.sock", "tcp:0143"), "listen[1].endpoint", "the same place as listen[0]"),
        (("mode", "unix:lmtp.sock", "unix:lmtp.sock:mode=rw"), "listen[1].endpoint", "octal mode"),
        (("systemd", "tcp:143", "systemd:domain=INET"), "listen[0].endpoint", "name="),
        (("domain", '[[domain]]\nname = "example.test"', ""), "domain", "at least one"),
        (("domain", 'name = "example.test"', 'name = "@"'), "domain[0].name", "domain"),
        (("domain", 'name = "example.test"', 'name = "a.test"\naliases = ["A.test"]'), "domain[0].aliases[0]", "same"),
        (("directory", '[[directory]]\ntype = "passwd-file"\npath = "../users"', ""), "directory", "passwd-file"),
        (("path", 'path = "../users"', ""), "directory[0].path", "missing"),
        (("plain", 'tls = "starttls"', ""), "listen[0].tls", "nobody could log in"),
        (("lmtp", 'unix:lmtp.sock"', 'unix:lmtp.sock"\ntls = "starttls"'), "listen[1].tls", "LMTP"),
        (("lmtp", 'unix:lmtp.sock"', 'unix:l"\nplaintext_networks = []'), "listen[1].plaintext_networks", "LMTP"),
        (
            ("net", 'tcp:143"', 'tcp:143"\nplaintext_networks = ["10.0.0.1/8"]'),
            "listen[0].plaintext_networks",
            "192",
        ),
        (("net", "[tls]", '[limits]\nexempt_networks = ["x"]\n[tls]'), "limits.exempt_networks", "network"),
        (("auth", "[tls]", '[auth]\nplaintext_networks = ["x"]\n[tls]'), "auth.plaintext_networks", "network"),
        (("auth", "[tls]", '[auth]\ndefault_domain = "other.test"\n[tls]'), "auth.default_domain", "[[domain]]"),
        (("store", "[tls]", '[store]\npath = "/all/in/one"\n[tls]'), "store.path", "{local}"),
        (("filter", "[tls]", "[[filter]]\n[tls]"), "filter[0].use", "missing"),
        (("bind", "[tls]", '[relay]\nbind_ipv4 = "::1"\n[tls]'), "relay.bind_ipv4", "an IPv4 address"),
        (("own", "[tls]", '[relay]\nown_addresses = ["mail"]\n[tls]'), "relay.own_addresses", "IP addresses"),
        (("helo", "[tls]", '[relay]\nhelo_name = "a b"\n[tls]'), "relay.helo_name", "a host name"),
        (("contact", "[tls]", '[tls_reports]\ncontact = "me"\n[tls]'), "tls_reports.contact", "an address"),
        (("table", "state_dir", "imap = 3\nstate_dir"), "imap", "a table"),
    ],
)
def test_impossible_combinations_are_told(change, key, says):
    _, old, new = change
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    # A key of the top level has to stand before the tables.
    found = problems(text)
    assert key in found, found
    assert says in found[key]


def test_workers_cannot_inherit_other_endpoint_types_and_memory_is_not_shared():
    text = GOOD.replace("tcp:143", "ssl:143:privateKey=key.pem").replace("hostname", "workers = 2\nhostname", 1)
    text += '[store]\ntype = "memory"\n'
    found = problems(text)
    assert "tcp, tcp6, unix" in found["listen[0].endpoint"]
    assert "workers = 1" in found["store.type"]


def test_an_account_is_shared_in_one_table():
    table = '[[shared]]\naccount = "support@example.test"\nreaders = ["a@example.test"]\n'
    assert parse(GOOD + table, "/x").shared[0].readers == ("a@example.test",)
    found = problems(GOOD + table + table.replace("support", "SUPPORT"))
    assert "the same account as shared[0]" in found["shared[1].account"]
    assert "expected an address" in problems(GOOD + table.replace("a@example.test", "a b"))["shared[0].readers"]
    assert parse(GOOD + "[sharing]\nmailboxes = 0\n", "/x").sharing.mailboxes == 0


def test_two_domains_need_the_domain_in_the_path():
    text = GOOD + '[[domain]]\nname = "other.test"\n[store]\npath = "/mail/{local}"\n'
    assert "{domain}" in problems(text)["store.path"]
    assert parse(GOOD + '[store]\npath = "/mail/{local}"\n', "/x").store.path == "/mail/{local}"


def test_a_file_that_is_no_toml_or_not_there_is_told_with_its_name(tmp_path):
    path = tmp_path / "x.toml"
    with pytest.raises(ConfigurationError, match=r"x\.toml: cannot be read: No such file"):
        load(str(path))
    path.write_bytes(b"hostname = \n")
    with pytest.raises(ConfigurationError, match=r"x\.toml: is not TOML: .*line 1"):
        load(str(path))
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        load(str(path))


def test_mistakes_of_every_kind_are_told_together():
    text = GOOD.replace('"imap"', '"smtp"').replace("unix:lmtp.sock", "tcp:70000").replace("mail.example.test", "a b")
    text = text.replace('path = "../users"', "") + '[limits]\nexempt_networks = ["x"]\n[filters]\n[[filter]]\n'
    assert set(problems(text)) == {
        "hostname",
        "listen[0].service",
        "listen[1].endpoint",
        "directory[0].path",
        "filter[0].use",
        "filters",
        "limits.exempt_networks",
    }


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", str(10**30)])
def test_numbers_without_end_are_refused(value):
    assert "expected" in problems(GOOD + f"[server]\ndrain_seconds = {value}\n")["server.drain_seconds"]
    assert "expected" in problems(GOOD + f"[server]\nbacklog = {value}\n")["server.backlog"]


def test_secrets_under_wrong_names_are_not_shown():
    text = GOOD + 'bind_password = "hunter2"\nbind_pw = "hunter2"\npassword = 12345\npassphrases = ["hunter2"]\n'
    found = problems(text)
    assert found["directory[0].bind_pw"].startswith("directory[0].bind_pw = (hidden): unknown key")
    assert not any("hunter2" in said or "12345" in said for said in found.values())
    assert len(found) == 4


@pytest.mark.parametrize(
    ("change", "key", "says"),
    [
        (("[tls]", '"a\\nb" = 1\n[tls]'), '"a\\nb"', '"a\\nb" = 1: unknown key'),
        (('"state"', "1979-05-27"), "state_dir", "state_dir = 1979-05-27: expected text"),
        (('"state"', '""'), "state_dir", "expected the path of a folder"),
        (('"state"', '"state"\nfilter = "x"'), "filter", "an array of tables, each under [[filter]]"),
        (('"state"', '"state"\nfilter = ["x"]'), "filter[0]", "expected a table, [[filter]]"),
        (('"imap"', '"smtp"'), "listen[0].service", '"mx", "submission", "lmtp", "imap", "pop3"'),
        (('"unix:lmtp.sock"', '"tcp6:143"'), "listen[1].endpoint", "the same place as listen[0]"),
        (('"unix:lmtp.sock"', '"tcp:interface=0.0.0.0:port=143"'), "listen[1].endpoint", "the same place"),
        (
            ('"unix:lmtp.sock"', '"x"\nproxy_protocol_from = ["x"]'),
            "listen[1].proxy_protocol_from",
            "expected networks",
        ),
    ],
)
def test_mistakes_are_told_in_words_that_help(change: tuple[str, str], key: str, says: str):
    found = problems(GOOD.replace(change[0], change[1], 1))
    assert says in found[key]
    assert 'did you mean "lmtp"' not in found[key]


def test_values_are_shown_in_errors_but_short_and_on_one_line():
    found = problems(GOOD.replace("mail.example.test", "x" * 300 + "\\n"))
    assert len(found["hostname"]) < 500
    assert "\n" not in found["hostname"]


@given(
    st.recursive(
        st.one_of(st.booleans(), st.integers(), st.text(max_size=8), st.floats(allow_nan=False)),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
        max_leaves=5,
    ),
    st.sampled_from(list(record_fields(Settings))),
)
def test_any_value_anywhere_is_taken_or_told_never_a_traceback(value, key):
    structurer = Structurer("/")
    record = structurer.record(Settings, {**tomllib.loads(GOOD), key: value}, "")
    assert is_whole(record) != bool(structurer.problems)
    check_rules(record)


def test_the_sample_is_what_etc_holds_and_is_good():
    # `make sample` writes it anew.
    assert (ROOT / "etc" / "mailsrv.toml").read_text() == write_sample()
    settings = load(str(ROOT / "etc" / "mailsrv.toml"))
    assert settings.hostname == "mail.example.test"


def test_every_setting_of_the_sample_may_be_used_as_it_stands():
    text = "\n".join(
        line.removeprefix("#") if line.startswith("#") and not line.startswith("# ") and "=" in line else line
        for line in write_sample().splitlines()
        if "quota" not in line and "plaintext" not in line
    )
    settings = parse(text.replace("#[[", "[["), "/etc/mailsrv/mailsrv.toml")
    assert settings.log.level.value == "info"


def test_the_demo_configuration_is_good():
    settings = load(str(ROOT / "etc" / "demo.toml"))
    assert {listen.service for listen in settings.listen} == set(Service)


def test_every_setting_is_explained_and_has_a_type_a_file_can_express():
    page = write_reference()
    records: list[Any] = [Settings, *(section.record_type for section in sections())]
    for record in records:
        for key, attribute in record_fields(record).items():
            if section_record(attribute) is None:
                assert attribute.metadata.get("help"), f"{record.__name__}.{key} has no help"
                assert describe(attribute.type)
                assert f"``{key}``" in page


def test_paths_are_recognised():
    paths = {
        f"{section.key}.{key}"
        for section in sections()
        for key, attribute in record_fields(section.record_type).items()
        if is_path(attribute)
    }
    assert paths == {
        "directory.bind_password_file",
        "directory.ca_file",
        "directory.client_certificate_file",
        "directory.client_key_file",
        "directory.path",
        "dkim.key_dir",
        "gssapi.keytab_file",
        "log.path",
        "oauth.ca_file",
        "oauth.client_secret_file",
        "oauth.jwks_file",
        "route.password_file",
        "sendmail.spool_dir",
        "store.path",
        "tls.certificate",
        "tls.key",
        "tls.more_certificates",
        "tls.client_ca_file",
        "tls.client_crl_file",
        "tls_client.ca_file",
    }


def test_where_a_secret_is_may_be_shown():
    assert is_secret("bind_password")
    assert not is_secret("directory[0].bind_password_file")
    assert not is_secret("directory[0].password_attribute")


def test_what_is_shown_makes_the_same_settings_again():
    settings = parse(GOOD, "/etc/mailsrv/mailsrv.toml")
    table = as_table(settings)
    assert table["listen"][0]["tls"] == "starttls"
    again = as_table(attrs.evolve(settings))
    assert again == table
    changed = as_table(settings, unlike_defaults_in="/etc/mailsrv")
    # Its default starts at the folder, too.
    assert "store" not in changed
    assert changed["tls"] == {
        "certificate": "/etc/mailsrv/cert.pem",
        "key": "/absolute/key.pem",
    }
