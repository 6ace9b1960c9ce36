"""``mailsrvctl dns``: what a domain should have, and what a DNS in memory has of it."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import mailsrv.cli.dns
from mailsrv.cli import main
from mailsrv.interfaces.resolver import ServiceRecord, TlsaRecord
from mailsrv.mailauth.keys import parse_private_key
from mailsrv.testing.resolver import MemoryResolver
from mailsrv.tls.self_signed import write_self_signed

CONFIG = """
hostname = "mail.example.test"
state_dir = "state"
[tls]
certificate = "cert.pem"
key = "key.pem"
[[listen]]
service = "mx"
endpoint = "tcp:25"
tls = "starttls"
[[listen]]
service = "imap"
endpoint = "tcp:10993"
tls = "implicit"
[[listen]]
service = "submission"
endpoint = "systemd:domain=INET:index=0"
tls = "implicit"
[[domain]]
name = "example.test"
[[directory]]
type = "passwd-file"
path = "passwd"
"""
ADDRESSES = ("2001:db8::25", "192.0.2.25")


class Bench:
    """A configuration, a DNS, and the command."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], resolver: MemoryResolver) -> None:
        self.resolver = resolver
        self._capsys = capsys
        self._config = folder / "mailsrv.toml"
        certificate = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.key_digest = hashlib.sha256(key).digest()

    def run(self, *arguments: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["--config", str(self._config), *arguments])
        captured = self._capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    def wanted(self) -> dict[str, Any]:
        table: dict[str, Any] = json.loads(self.run("dns", "show", "example.test", "--json")[1])
        return table

    def publish_everything(self) -> None:
        resolver = self.resolver
        for record in self.wanted()["records"]:
            name, kind = record["name"], record["type"]
            for value in record["values"]:
                if kind == "MX":
                    resolver.add_mx(name, value.split()[1])
                elif kind == "TXT":
                    resolver.add_texts(name, value.encode())
                elif kind == "TLSA":
                    resolver.add_tlsa(name, TlsaRecord(3, 1, 1, bytes.fromhex(value.split()[3])))
                elif kind == "SRV":
                    priority, weight, port, host = value.split()
                    resolver.add_services(name, ServiceRecord(int(priority), int(weight), int(port), host.rstrip(".")))
                elif kind == "CNAME":
                    resolver.canonical[name] = value
        resolver.add_addresses("mail.example.test", *ADDRESSES)
        for address in ADDRESSES:
            resolver.add_pointers(address, "mail.example.test")

    def check(self, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
        status, out, _ = self.run("dns", "check", "example.test", "--json", *arguments)
        table = json.loads(out)
        assert table["ok"] is (status == 0)
        return status, table["records"]

    def wrong(self) -> tuple[int, list[tuple[str, str]]]:
        status, rows = self.check()
        return status, [(row["outcome"], row["name"]) for row in rows if row["outcome"] != "ok"]


@pytest.fixture(scope="module", autouse=True)
def _keys_are_read_once() -> Iterator[None]:
    """OpenSSL looks for a long time whether what is read is a key; all commands here read the same few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mailsrv.mailauth.key_store.parse_private_key", functools.cache(parse_private_key))
        yield


@pytest.fixture(scope="module")
def with_a_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration, a certificate and a key to sign with; making one takes its time."""
    folder = tmp_path_factory.mktemp("configured")
    (folder / "mailsrv.toml").write_text(CONFIG)
    (folder / "passwd").touch()
    write_self_signed("mail.example.test", str(folder / "cert.pem"), str(folder / "key.pem"))
    with pytest.raises(SystemExit) as ended:
        main(
            ["--config", str(folder / "mailsrv.toml"), "dkim", "new", "example.test", "--selector", "one", "--activate"]
        )
    assert ended.value.code == 0
    return folder


@pytest.fixture
def bench(with_a_key, tmp_path, capsys, monkeypatch) -> Bench:
    resolver = MemoryResolver()
    monkeypatch.setattr(mailsrv.cli.dns, "open_resolver", lambda settings: resolver)
    shutil.copytree(with_a_key, tmp_path, dirs_exist_ok=True)
    capsys.readouterr()
    return Bench(tmp_path, capsys, resolver)


def test_every_record_is_shown(bench):
    table = bench.wanted()
    counted = Counter((record["purpose"], record["type"]) for record in table["records"])
    assert counted == {
        ("mx", "MX"): 1,
        ("host", "A/AAAA"): 1,
        ("spf", "TXT"): 1,
        ("dkim", "TXT"): 1,
        ("dmarc", "TXT"): 1,
        ("mta-sts", "TXT"): 1,
        ("mta-sts", "CNAME"): 1,
        ("tls-rpt", "TXT"): 1,
        ("dane", "TLSA"): 1,
        ("clients", "SRV"): 6,
        ("autoconfig", "CNAME"): 1,
        ("autoconfig", "SRV"): 1,
    }
    values = {record["name"]: record["values"] for record in table["records"]}
    assert values["_25._tcp.mail.example.test"] == [f"3 1 1 {bench.key_digest.hex()}"]
    assert values["_imaps._tcp.example.test"] == ["0 1 10993 mail.example.test"]
    assert values["_submissions._tcp.example.test"] == ["0 1 465 mail.example.test"]
    assert values["_pop3._tcp.example.test"] == ["0 0 0 ."]
    assert table["mta_sts_policy"].splitlines()[2] == "mx: mail.example.test"


def test_zone_lines_can_be_put_into_a_zone(bench):
    status, out, _ = bench.run("dns", "show", "example.test", "--zone", "--address", "192.0.2.25")
    assert status == 0
    lines = out.replace('"\n    "', '" "').splitlines()
    assert all(re.fullmatch(r"\S+\. 3600 IN (MX|A|PTR|TXT|TLSA|SRV|CNAME) \S.*", line) for line in lines)
    assert "example.test. 3600 IN MX 10 mail.example.test." in lines
    assert "mail.example.test. 3600 IN A 192.0.2.25" in lines
    assert "25.2.0.192.in-addr.arpa. 3600 IN PTR mail.example.test." in lines
    assert '_dmarc.example.test. 3600 IN TXT "v=DMARC1; p=quarantine; rua=mailto:postmaster@example.test"' in lines
    assert "_pop3._tcp.example.test. 3600 IN SRV 0 0 0 ." in lines


def test_for_people_each_record_is_explained(bench):
    out = bench.run("dns", "show", "example.test")[1]
    assert "; required: where mail is delivered\nexample.test. 3600 IN MX" in out
    assert "; mail.example.test. needs A and AAAA records" in out
    assert "https://mta-sts.example.test/.well-known/mta-sts.txt" in out
    assert "CAA" in out


def test_a_domain_that_has_everything_is_good(bench):
    bench.publish_everything()
    assert bench.wrong() == (0, [])
    status, out, _ = bench.run("dns", "check", "example.test")
    assert status == 0
    assert {line.split()[0] for line in out.splitlines()} == {"ok"}
    assert "PTR     192.0.2.25" in out


def test_an_empty_dns_lacks_everything(bench):
    status, rows = bench.check()
    assert status == 1
    assert {row["outcome"] for row in rows} == {"missing"}
    failing = {row["purpose"] for row in rows if row["is_failure"]}
    assert failing == {"mx", "host", "spf", "dkim"}


def test_what_is_optional_may_be_missing(bench):
    bench.resolver.add_mx("example.test", "mail.example.test", preference=5)
    bench.resolver.add_addresses("mail.example.test", *ADDRESSES)
    bench.resolver.add_texts("example.test", b"some-verification=1", b"v=spf1 ip4:192.0.2.0/24 -all")
    [dkim] = [record for record in bench.wanted()["records"] if record["purpose"] == "dkim"]
    bench.resolver.add_texts(dkim["name"], dkim["values"][0].replace("; ", " ;").encode())
    status, rows = bench.check()
    assert status == 0
    assert [row["purpose"] for row in rows if row["outcome"] == "ok"] == ["mx", "host", "spf", "dkim"]


@pytest.mark.parametrize(
    ("spf", "outcome"),
    [
        ((b"v=spf1 a:mail.example.test ~all",), "ok"),
        ((b"V=SPF1 +MX/24 include:x.test -all",), "ok"),
        ((b"v=spf1 ip6:2001:db8::/32 -all",), "ok"),
        ((b"v=spf1 include:x.test -all",), "differs"),
        ((b"v=spf1 -mx ?a:mail.example.test -all",), "differs"),
        ((b"v=spf1 ip4:nonsense -all",), "differs"),
        ((b"v=spf1 mx -all", b"v=spf1 -all"), "differs"),
        ((b"v=spf10 mx -all",), "missing"),
    ],
)
def test_spf_is_judged_by_what_it_says(bench, spf, outcome):
    bench.resolver.add_addresses("mail.example.test", *ADDRESSES)
    bench.resolver.add_texts("example.test", *spf)
    [row] = [row for row in bench.check()[1] if row["purpose"] == "spf"]
    assert row["outcome"] == outcome


def test_other_texts_are_judged_by_what_they_say(bench):
    bench.publish_everything()
    bench.resolver._texts["_dmarc.example.test"] = [b"v=DMARC1; p=reject"]
    bench.resolver._texts["_mta-sts.example.test"] = [b"v=STSv1; id=20240101"]
    assert bench.wrong() == (0, [])
    bench.resolver._texts["_dmarc.example.test"] = [b"v=DMARC1; p=maybe"]
    bench.resolver._texts["_smtp._tls.example.test"] = [b"v=TLSRPTv1"]
    assert bench.wrong() == (0, [("differs", "_dmarc.example.test"), ("differs", "_smtp._tls.example.test")])


def test_a_wrong_key_or_certificate_is_a_failure(bench):
    bench.publish_everything()
    bench.resolver._texts["one._domainkey.example.test"] = [b"v=DKIM1; p=AAAA"]
    assert bench.wrong() == (1, [("differs", "one._domainkey.example.test")])
    bench.resolver._texts.clear()
    bench.resolver._tlsa.clear()
    bench.publish_everything()
    bench.resolver._tlsa["_25._tcp.mail.example.test"] = [TlsaRecord(3, 1, 1, bytes(32))]
    assert bench.wrong()[1] == [("differs", "_25._tcp.mail.example.test")]
    out = bench.run("dns", "check", "example.test")[1]
    assert f"wanted    3 1 1 {bench.key_digest.hex()}\n        published 3 1 1 {bytes(32).hex()}" in out


def test_another_mx_is_extra_or_wrong(bench):
    bench.publish_everything()
    bench.resolver.add_mx("example.test", "backup.example.net", preference=20)
    assert bench.wrong() == (0, [("extra", "example.test")])
    del bench.resolver._mail_exchanges["example.test"][0]
    assert bench.wrong() == (1, [("differs", "example.test")])


def test_a_host_that_is_an_alias_or_elsewhere_is_wrong(bench):
    bench.publish_everything()
    assert bench.check("--address", "192.0.2.99")[0] == 1
    assert bench.check("--address", "192.0.2.25", "--address", "2001:db8::25")[0] == 0
    bench.resolver.canonical["mail.example.test"] = "other.example.test"
    bench.resolver.add_addresses("other.example.test", *ADDRESSES)
    status, rows = bench.check()
    assert status == 1
    assert any("CNAME" in row["remark"] for row in rows)


def test_keys_before_and_after_their_time(bench):
    bench.publish_everything()
    bench.run("dkim", "new", "example.test", "--selector", "two", "--algorithm", "ed25519")
    assert bench.wrong() == (0, [("missing", "two._domainkey.example.test")])
    bench.run("dkim", "activate", "example.test", "--selector", "two")
    assert bench.wrong() == (1, [("missing", "two._domainkey.example.test")])
    bench.run("dkim", "retire", "example.test", "--selector", "two")
    bench.run("dkim", "retire", "example.test", "--selector", "one")
    assert bench.wrong() == (0, [("extra", "one._domainkey.example.test")])
    assert "mailsrvctl dkim new" in bench.run("dns", "show", "example.test")[1]


def test_a_key_that_waits_is_to_be_activated(bench):
    bench.run("dkim", "retire", "example.test", "--selector", "one")
    bench.run("dkim", "new", "example.test", "--selector", "two", "--algorithm", "ed25519")
    assert "dkim activate example.test --selector two, when" in bench.run("dns", "show", "example.test")[1]


def test_a_dns_that_does_not_answer_is_told(bench):
    bench.publish_everything()
    bench.resolver.failures |= {"MX example.test", "_dmarc.example.test", "PTR 192.0.2.25"}
    status, wrong = bench.wrong()
    assert status == 1
    assert wrong == [("unknown", "example.test"), ("unknown", "192.0.2.25"), ("unknown", "_dmarc.example.test")]


def test_mistakes(bench):
    assert bench.run("dns", "show", "elsewhere.test")[0] == 1
    assert bench.run("dns", "check", "example.test", "--address", "here")[0] == 2
