"""MTA-STS (RFC 8461): what records and policies say, what is kept, and when it is fetched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.testing.resolver import MemoryResolver
from mailsrv.tls.client_settings import MtaStsSettings
from mailsrv.tls.https import HttpsAnswer, HttpsError
from mailsrv.tls.mta_sts import (
    StsError,
    StsMode,
    StsPolicy,
    format_policy,
    matches_pattern,
    parse_id,
    parse_policy,
)
from mailsrv.tls.mta_sts_files import StoredPolicy, StsFiles
from mailsrv.tls.mta_sts_policies import StsFinding, StsPolicies

TEXT = b"version: STSv1\r\nmode: enforce\r\nmx: Mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"
POLICY = StsPolicy(StsMode.ENFORCE, 604800, ("mail.example.com", "*.example.net"))


class TestTheRecord:
    @pytest.mark.parametrize(
        "text",
        [b"v=STSv1; id=20160831085700Z;", b"v=STSv1;id=20160831085700Z", b"v = STSv1 ; x=y; id = 20160831085700Z ;"],
    )
    def test_its_id(self, text: bytes) -> None:
        assert parse_id([b"something else", text]) == "20160831085700Z"

    @pytest.mark.parametrize(
        "text", [b"", b"v=STSv1", b"v=STSv1; id=", b"v=STSv1; id=a-b", b"v=STSv10; id=a", b"v=STSv1; id=a; id=b"]
    )
    def test_none(self, text: bytes) -> None:
        assert parse_id([text]) is None

    def test_two_are_none(self) -> None:
        assert parse_id([b"v=STSv1; id=a", b"v=STSv1; id=b"]) is None

    @given(st.lists(st.binary(max_size=100)))
    def test_any_octets(self, texts: list[bytes]) -> None:
        assert parse_id(texts) is None or parse_id(texts)


class TestThePolicy:
    def test_as_in_the_rfc(self) -> None:
        assert parse_policy(TEXT) == POLICY
        assert parse_policy(TEXT.replace(b"\r\n", b"\n")) == POLICY
        assert parse_policy(TEXT + b"later: field\nmode: none\n\n") == POLICY

    def test_age_is_bounded(self) -> None:
        assert parse_policy(TEXT.replace(b"604800", b"9999999999")).max_age == 31_557_600

    def test_none_needs_no_mx(self) -> None:
        assert parse_policy(b"version: STSv1\nmode: none\nmax_age: 0") == StsPolicy(StsMode.NONE, 0)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"STSv1", b"STSv2"),
            (b"enforce", b"Enforce"),
            (b"mx: ", b"nx: "),
            (b"max_age", b"maximum"),
            (b"604800", b"-1"),
            (b"604800", b"12345678901"),
            (b"*.example.net", b"mail.*.net"),
            (b"*.example.net", b"*"),
            (b"*.example.net", b"a..b"),
            (b"*.example.net", b"x" * 300 + b".net"),
            (b"mode", b"\xff"),
            (b"mode:", b"no field"),
        ],
    )
    def test_what_is_none(self, old: bytes, new: bytes) -> None:
        with pytest.raises(StsError):
            parse_policy(TEXT.replace(old, new))

    def test_too_many_hosts(self) -> None:
        with pytest.raises(StsError, match="more than 100"):
            parse_policy(TEXT + b"".join(b"mx: mx%d.example.net\n" % number for number in range(100)))

    @given(st.binary(max_size=300))
    def test_any_octets(self, octets: bytes) -> None:
        try:
            policy = parse_policy(octets)
        except StsError:
            return
        assert parse_policy("\n".join(format_policy(policy)).encode()) == policy

    @given(st.lists(st.sampled_from([*TEXT.split(b"\r\n"), b"mode: testing", b"max_age: 1", b"x", b""])))
    def test_any_lines(self, lines: list[bytes]) -> None:
        try:
            policy = parse_policy(b"\n".join(lines))
        except StsError:
            return
        assert parse_policy("\n".join(format_policy(policy)).encode()) == policy

    def test_one_label_for_the_star(self) -> None:
        assert matches_pattern("mx.example.net", POLICY.patterns)
        assert matches_pattern("mail.example.com", POLICY.patterns)
        for host in ("example.net", "a.mx.example.net", "mailexample.com", "x.mail.example.com", "", "net"):
            assert not matches_pattern(host, POLICY.patterns)


class TestFiles:
    def test_kept_and_bounded(self, tmp_path: Path) -> None:
        files = StsFiles(str(tmp_path / "mta-sts"), 3)
        stored = StoredPolicy(POLICY, "id1", 1000.0)
        assert files.read("example.test") is None
        files.write("example.test", stored)
        assert files.read("example.test") == stored
        for number in range(50):
            files.write(f"d{number}.test", stored)
            os.utime(tmp_path / "mta-sts" / f"d{number}.test", (number, number))
        assert len(list((tmp_path / "mta-sts").iterdir())) <= 3
        assert oct((tmp_path / "mta-sts").stat().st_mode & 0o777) == "0o700"

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"id": 1}', '{"id": "a", "fetched": [], "policy": 3}'])
    def test_what_cannot_be_read_is_not_there(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "example.test").write_text(text)
        assert StsFiles(str(tmp_path), 3).read("example.test") is None

    @pytest.mark.parametrize("domain", ["../x", "a/b", ".new-1", "", "x" * 254, "a\0b"])
    def test_names_that_lead_elsewhere(self, tmp_path: Path, domain: str) -> None:
        files = StsFiles(str(tmp_path / "mta-sts"), 3)
        files.write(domain, StoredPolicy(POLICY, "id1", 1000.0))
        assert files.read(domain) is None
        assert list(tmp_path.iterdir()) == []


class FakeHttps:
    """Answers with what it is told."""

    def __init__(self) -> None:
        self.answer: Any = HttpsAnswer(200, "text/plain", TEXT)
        self.urls: list[str] = []
        self.held: Deferred[None] | None = None

    async def request(self, method: str, url: str, **options: object) -> HttpsAnswer:
        assert method == "GET"
        self.urls.append(url)
        if self.held is not None:
            await self.held
        answer: HttpsAnswer = await (fail(self.answer) if isinstance(self.answer, Exception) else succeed(self.answer))
        return answer


class StsPoliciesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.resolver = MemoryResolver()
        self.resolver.add_texts("_mta-sts.example.test", b"v=STSv1; id=one")
        self.https: Any = FakeHttps()
        self.folder = self.mktemp()
        self.policies = self.make()

    def make(self) -> StsPolicies:
        return StsPolicies(
            MtaStsSettings(), self.resolver, self.https, self.folder, self.clock, in_thread=maybeDeferred
        )

    def find(self, policies: StsPolicies | None = None) -> StsFinding:
        return self.successResultOf(Deferred.fromCoroutine((policies or self.policies).find("example.test")))

    def change_id(self, *records: bytes) -> None:
        self.resolver._texts["_mta-sts.example.test"][:] = records

    def test_fetched_once_and_kept_over_a_restart(self) -> None:
        for policies in (self.policies, self.policies, self.make()):
            found = self.find(policies)
            assert found.stored is not None
            assert (found.stored.policy, found.stored.policy_id, found.fault) == (POLICY, "one", "")
        assert self.https.urls == ["https://mta-sts.example.test/.well-known/mta-sts.txt"]

    def test_no_record_no_policy_no_fetch(self) -> None:
        self.change_id()
        assert self.find() == StsFinding()
        assert self.https.urls == []

    def test_what_is_kept_counts_without_record_and_without_dns(self) -> None:
        self.find()
        self.change_id()
        assert self.find().stored is not None
        self.resolver.failures.add("TXT _mta-sts.example.test")
        assert self.find().stored is not None
        self.clock.advance(604_801)
        assert self.find().stored is None

    def test_a_new_id_is_a_new_fetch(self) -> None:
        self.find()
        self.change_id(b"v=STSv1; id=two")
        self.https.answer = HttpsAnswer(200, "text/plain", TEXT.replace(b"enforce", b"testing"))
        found = self.find()
        assert found.stored is not None
        assert (found.stored.policy.mode, found.stored.policy_id) == (StsMode.TESTING, "two")

    def test_a_failing_fetch_leaves_what_is_kept_and_is_not_repeated_at_once(self) -> None:
        self.find()
        self.change_id(b"v=STSv1; id=two")
        self.https.answer = HttpsError("an answer of 404")
        for _ in range(2):
            found = self.find()
            assert found.stored is not None
            assert (found.stored.policy_id, found.fault) == ("one", "sts-policy-fetch-error")
        assert len(self.https.urls) == 2
        self.clock.advance(301)
        self.find()
        assert len(self.https.urls) == 3

    def test_what_is_no_good(self) -> None:
        for answer, fault in (
            (HttpsAnswer(302, "text/plain", TEXT), "sts-policy-fetch-error"),
            (HttpsAnswer(200, "text/html", TEXT), "sts-policy-fetch-error"),
            (HttpsAnswer(200, "text/plain", b"nothing"), "sts-policy-invalid"),
            (OSError("no way there"), "sts-policy-fetch-error"),
        ):
            self.https.answer = answer
            found = self.find()
            assert (found.stored, found.fault) == (None, fault), answer
            self.clock.advance(301)

    def test_refreshed_before_it_expires_while_nobody_waits(self) -> None:
        self.find()
        self.clock.advance(604_800 / 2 + 1)
        self.https.held = Deferred()
        assert self.find().stored is not None
        assert self.find().stored is not None
        assert len(self.https.urls) == 2
        self.https.held.callback(None)
        self.clock.advance(604_800 / 2 + 1)
        self.https.held = None
        assert self.find().stored is not None

    def test_all_wait_for_one_fetch(self) -> None:
        self.https.held = Deferred()
        waiting = [Deferred.fromCoroutine(self.policies.find("example.test")) for _ in range(3)]
        waiting[0].cancel()
        self.failureResultOf(waiting[0])
        self.https.held.callback(None)
        for one in waiting[1:]:
            assert self.successResultOf(one).stored is not None
        assert len(self.https.urls) == 1

    def test_what_another_worker_fetched_is_taken(self) -> None:
        other = self.make()
        self.change_id()
        assert self.find(other).stored is None
        self.change_id(b"v=STSv1; id=one")
        self.find()
        assert self.find(other).stored is not None
        assert len(self.https.urls) == 1

    def test_what_another_worker_fetched_counts_though_the_record_is_gone(self) -> None:
        other = self.make()
        self.change_id()
        assert self.find(other).stored is None
        self.change_id(b"v=STSv1; id=one")
        self.find()
        # Somebody takes the record away from now on (RFC 8461 10.2).
        self.change_id()
        self.clock.advance(61)
        assert self.find(other).stored is not None

    def test_a_disk_that_takes_nothing_changes_nothing(self) -> None:
        Path(self.folder).write_text("in the way")
        assert self.find().stored is not None
