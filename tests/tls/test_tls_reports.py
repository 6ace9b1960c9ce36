"""TLS reports (RFC 8460): what is counted, kept, put together and sent."""

from __future__ import annotations

import gzip
import json
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.address import Address
from mailsrv.errors import Unavailable
from mailsrv.interfaces.resolver import TlsaRecord
from mailsrv.interfaces.tls_policy import HostTlsPolicy, TlsLevel, TlsResult
from mailsrv.testing.resolver import MemoryResolver
from mailsrv.tls.client_settings import TlsReportSettings
from mailsrv.tls.https import HttpsAnswer
from mailsrv.tls.report_files import ReportFiles
from mailsrv.tls.report_sender import TlsReports
from mailsrv.tls.reports import DayCounts, make_report, parse_destinations

SETTINGS = TlsReportSettings(True, "Example Ltd", "tls@sender.test", max_domains=3, max_failures=2)
DAY_SECONDS = 86_400
HOST = "mx.example.test"
DANE = HostTlsPolicy(HOST, TlsLevel.DANE, "dane", tlsa=(TlsaRecord(3, 1, 1, bytes(32)),))
STS = HostTlsPolicy(HOST, TlsLevel.VERIFY, "mta-sts")
STS_LINES = ("version: STSv1", "mode: enforce", f"mx: {HOST}", "max_age: 86400")


def result(policy: HostTlsPolicy = STS, result_type: str = "", domain: str = "example.test") -> TlsResult:
    return TlsResult(domain, HOST, "192.0.2.1", policy, result_type, "why" if result_type else "", "192.0.2.200")


def test_reports_need_to_say_who_sends_them() -> None:
    with pytest.raises(ValueError, match="organization and contact"):
        TlsReportSettings(enabled=True)


class TestDestinations:
    def test_mail_and_web(self) -> None:
        text = b"v=TLSRPTv1; rua=mailto:tls@example.test, https://report.example.test/v1/tlsrpt"
        assert parse_destinations([b"v=spf1 -all", text]) == (
            "mailto:tls@example.test",
            "https://report.example.test/v1/tlsrpt",
        )

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"v=TLSRPTv1",
            b"v=TLSRPTv1;",
            b"v=TLSRPTv1; rua=http://example.test",
            b"v=TLSRPTv2; rua=mailto:a@b",
            b"v=TLSRPTv1; rua=mailto:\xff",
            b"v=TLSRPTv1; rua=https://a b/",
        ],
    )
    def test_none(self, text: bytes) -> None:
        assert parse_destinations([text]) == ()

    def test_two_records_are_none_and_many_destinations_are_five(self) -> None:
        text = b"v=TLSRPTv1; rua=" + b",".join(b"mailto:t%d@example.test" % number for number in range(99))
        assert len(parse_destinations([text])) == 5
        assert parse_destinations([text, text]) == ()

    @given(st.binary(max_size=200))
    def test_any_octets(self, octets: bytes) -> None:
        for uri in parse_destinations([b"v=TLSRPTv1;" + octets]):
            assert uri.isascii()
            assert uri.isprintable()


class TestCounts:
    def test_bounded_and_summed(self) -> None:
        counts = DayCounts("2026-01-01")
        for number in range(5):
            counts.count(result(domain=f"d{number}.test"), (), SETTINGS)
        assert len(counts.domains) == 3
        for kind in ("a", "b", "c", "a"):
            counts.count(result(result_type=kind, domain="d0.test"), (), SETTINGS)
        (policy,) = counts.domains["d0.test"].values()
        assert (policy.successes, policy.failed, len(policy.failures)) == (1, 4, 2)
        assert policy.failures["a", HOST, "192.0.2.1", "192.0.2.200"] == (2, "why")

    def test_our_own_address_is_told(self) -> None:
        counts = DayCounts("2026-01-01")
        counts.count(result(result_type="certificate-expired"), (), SETTINGS)
        table = json.loads(json.dumps(counts.as_table()))
        merged = DayCounts("2026-01-01")
        merged.merge(table, SETTINGS)
        (failure,) = table["domains"]["example.test"][0]["failures"]
        del failure[3]
        merged.merge(table, SETTINGS)
        policies = merged.domains["example.test"].values()
        report = json.loads(make_report("example.test", "2026-01-01", policies, SETTINGS, "1").content)
        first, second = report["policies"][0]["failure-details"]
        assert (first["sending-mta-ip"], first["receiving-ip"]) == ("192.0.2.200", "192.0.2.1")
        assert "sending-mta-ip" not in second

    @given(
        st.lists(
            st.builds(
                result,
                st.sampled_from([DANE, STS]),
                st.sampled_from(["", "certificate-expired", "validation-failure", "x"]),
                st.sampled_from(["a.test", "b.test", "c.test", "d.test"]),
            )
        )
    )
    def test_two_workers_are_as_good_as_one(self, results: list[TlsResult]) -> None:
        halves = [DayCounts("2026-01-01"), DayCounts("2026-01-01")]
        for number, one in enumerate(results):
            halves[number % 2].count(one, (), SETTINGS)
        merged = DayCounts("2026-01-01")
        for half in halves:
            merged.merge(json.loads(json.dumps(half.as_table())), SETTINGS)
        assert len(merged.domains) <= 3
        for name, policies in merged.domains.items():
            expected = [one for one in results if one.domain == name]
            counted = sum(one.successes + one.failed for one in policies.values())
            # A half that was full of domains may have passed over some.
            assert counted <= len(expected)
            assert all(len(one.failures) <= 2 for one in policies.values())


class TestFilesOnDisk:
    def test_what_cannot_be_read_is_passed_over(self, tmp_path: Path) -> None:
        folder = tmp_path / "2026-01-01"
        folder.mkdir()
        for number, text in enumerate(["", "{", "[]", '{"domains": 3}', '{"domains": {"a.test": [{}]}}', "\xff"]):
            (folder / f"worker-{number}").write_text(text)
        counts, done = ReportFiles(str(tmp_path), SETTINGS).read("2026-01-01")
        assert not any(counts.domains.values())
        assert done == set()

    def test_one_at_a_time(self, tmp_path: Path) -> None:
        first, second = (ReportFiles(str(tmp_path), SETTINGS) for _ in range(2))
        assert first.lock()
        assert not second.lock()
        first.unlock()
        assert second.lock()
        second.unlock()


class FakeHttps:
    """Takes reports, or says the status it is told to say."""

    def __init__(self) -> None:
        self.status = 201
        self.bodies: list[tuple[str, bytes]] = []

    async def request(self, method: str, url: str, *, body: Any, content_type: str, **options: object) -> HttpsAnswer:
        assert (method, content_type) == ("POST", "application/tlsrpt+gzip")
        self.bodies.append((url, body._inputFile.read()))
        return HttpsAnswer(self.status, "", b"")


class ReportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(20_000 * DAY_SECONDS + 10 * 3600)
        self.resolver = MemoryResolver()
        self.https: Any = FakeHttps()
        self.mails: list[tuple[Address, bytes]] = []
        self.refusal: Exception | None = None
        self.folder = self.mktemp()
        self.reports = self.make()

    def make(self) -> TlsReports:
        return TlsReports(
            SETTINGS,
            self.folder,
            self.resolver,
            self.https,
            self.clock,
            send_mail=self.send_mail,
            policy_strings=lambda domain: STS_LINES,
            in_thread=maybeDeferred,
        )

    def send_mail(self, recipient: Address, content: bytes) -> Deferred[None]:
        if self.refusal is not None:
            return fail(self.refusal)
        self.mails.append((recipient, content))
        return succeed(None)

    def ask_for_reports(self, uri: bytes, domain: str = "example.test") -> None:
        self.resolver.add_texts(f"_smtp._tls.{domain}", b"v=TLSRPTv1; rua=" + uri)

    def send(self) -> bool:
        return self.successResultOf(Deferred.fromCoroutine(self.reports.send_due()))

    def test_a_day_of_two_workers_by_mail(self) -> None:
        self.ask_for_reports(b"mailto:tls%2Dreports@example.test?x=y")
        other = self.make()
        self.reports.count(result(DANE))
        self.reports.count(result(DANE, "certificate-not-trusted"))
        other.count(result(DANE, "certificate-not-trusted"))
        other.count(result(STS))
        self.successResultOf(other.flush())
        assert self.send()
        assert self.mails == []
        self.clock.advance(DAY_SECONDS)
        assert self.send()
        ((recipient, content),) = self.mails
        assert str(recipient) == "tls-reports@example.test"
        message = message_from_bytes(content, policy=default)
        assert message.get_content_type() == "multipart/report"
        assert message["Content-Type"].params["report-type"] == "tlsrpt"
        assert (message["TLS-Report-Domain"], message["TLS-Report-Submitter"]) == ("example.test", "sender.test")
        assert message["From"] == "tls@sender.test"
        assert message["TLS-Required"] == "No"
        assert b"\n" not in content.replace(b"\r\n", b"")
        _, attached = message.iter_parts()
        assert attached.get_content_type() == "application/tlsrpt+gzip"
        report = json.loads(gzip.decompress(attached.get_content()))
        assert report["organization-name"] == "Example Ltd"
        assert report["date-range"] == {
            "start-datetime": "2024-10-04T00:00:00Z",
            "end-datetime": "2024-10-04T23:59:59Z",
        }
        by_type = {one["policy"]["policy-type"]: one for one in report["policies"]}
        assert by_type["tlsa"]["summary"] == {"total-successful-session-count": 1, "total-failure-session-count": 2}
        assert by_type["tlsa"]["policy"]["policy-string"] == ["3 1 1 " + "00" * 32]
        assert by_type["tlsa"]["failure-details"] == [
            {
                "result-type": "certificate-not-trusted",
                "failed-session-count": 2,
                "receiving-mx-hostname": HOST,
                "sending-mta-ip": "192.0.2.200",
                "receiving-ip": "192.0.2.1",
                "failure-reason-code": "why",
            }
        ]
        assert by_type["sts"]["policy"]["mx-host"] == [HOST]
        # It is done.
        assert self.send()
        assert len(self.mails) == 1

    def test_by_the_web(self) -> None:
        self.ask_for_reports(b"https://report.example.test/tls")
        self.reports.count(result())
        self.clock.advance(DAY_SECONDS)
        self.https.status = 503
        assert not self.send()
        self.https.status = 201
        assert self.send()
        assert self.send()
        assert [url for url, _ in self.https.bodies] == ["https://report.example.test/tls"] * 2
        assert json.loads(gzip.decompress(self.https.bodies[1][1]))["contact-info"] == "tls@sender.test"

    def test_what_fails_is_tried_again_and_only_that(self) -> None:
        self.ask_for_reports(b"mailto:a@example.test")
        self.ask_for_reports(b"https://b.test/", "b.test")
        self.reports.count(result())
        self.reports.count(result(domain="b.test"))
        self.reports.count(result(domain="quiet.test"))
        self.clock.advance(DAY_SECONDS)
        self.refusal = Unavailable()
        assert not self.send()
        assert len(self.https.bodies) == 1
        self.refusal = None
        assert self.send()
        assert (len(self.https.bodies), len(self.mails)) == (1, 1)

    def test_given_up_after_two_days(self) -> None:
        self.ask_for_reports(b"mailto:a@example.test")
        self.resolver.failures.add("_smtp._tls.example.test")
        self.reports.count(result())
        self.clock.advance(DAY_SECONDS)
        assert not self.send()
        self.clock.advance(3 * DAY_SECONDS)
        assert self.send()
        assert not [path for path in Path(self.folder).iterdir() if path.is_dir()]

    def test_while_it_runs(self) -> None:
        self.ask_for_reports(b"mailto:a@example.test")
        self.reports.start()
        self.reports.count(result())
        self.clock.pump([60] * 60)
        assert len(list(Path(self.folder).glob("*/worker-*"))) == 1
        self.clock.pump([600] * (2 * 6 * 24))
        assert len(self.mails) == 1
        self.successResultOf(self.reports.stop())
        assert self.clock.getDelayedCalls() == []

    def test_a_disk_that_takes_nothing(self) -> None:
        Path(self.folder).write_text("in the way")
        self.reports.count(result())
        self.successResultOf(self.reports.flush())
        assert not self.send()
