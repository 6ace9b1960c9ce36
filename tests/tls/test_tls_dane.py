"""Certificates against TLSA records (RFC 6698, 7671, 7672), and verdicts on real handshakes in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL._util import lib

from mailsrv.interfaces.resolver import TlsaRecord
from mailsrv.interfaces.tls_policy import HostTlsPolicy, TlsLevel
from mailsrv.tls import dane
from mailsrv.tls.certificates import TlsError
from mailsrv.tls.client import ClientTls
from mailsrv.tls.client_settings import TlsClientSettings
from tests.tls.authority import Issued, issue_for_host
from tests.tls.issued import (
    ADDRESSED,
    CA,
    EXPIRED,
    HOST,
    LEAF,
    MIDDLE,
    OTHER,
    SELF,
    Handshake,
    server_context,
    tlsa,
)


def is_reused(connection: Handshake) -> bool:
    return bool(lib.SSL_session_reused(connection.client._ssl))


def verdict_of(policy: HostTlsPolicy, *chain: Issued, tls: ClientTls | None = None) -> tuple[bool, str]:
    tls = tls or ClientTls()
    verdict = tls.check(policy, Handshake(tls, policy, server_context(*chain)))
    return verdict.is_ok, verdict.result_type


def dane_policy(*records: TlsaRecord, names: tuple[str, ...] = ()) -> HostTlsPolicy:
    return HostTlsPolicy(HOST, TlsLevel.DANE, "dane", names=names, tlsa=records)


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching_type", [0, 1, 2])
class TestEveryKindOfMatch:
    def test_end_entity(self, selector: int, matching_type: int) -> None:
        record = tlsa(3, LEAF.certificate, selector, matching_type)
        assert dane.usable([record]) == (record,)
        assert verdict_of(dane_policy(record), LEAF, MIDDLE) == (True, "")
        assert verdict_of(dane_policy(record), OTHER, MIDDLE) == (False, "certificate-not-trusted")

    def test_trust_anchor(self, selector: int, matching_type: int) -> None:
        record = tlsa(2, MIDDLE.certificate, selector, matching_type)
        assert dane.usable([record]) == (record,)
        assert verdict_of(dane_policy(record), LEAF, MIDDLE) == (True, "")
        assert verdict_of(dane_policy(record), SELF) == (False, "certificate-not-trusted")


class TestDaneVerdicts:
    def test_end_entity_needs_no_name_and_no_date(self) -> None:
        assert verdict_of(dane_policy(tlsa(3, OTHER.certificate)), OTHER) == (True, "")
        assert verdict_of(dane_policy(tlsa(3, EXPIRED.certificate)), EXPIRED) == (True, "")

    def test_trust_anchor_needs_name_and_date(self) -> None:
        record = tlsa(2, CA.certificate)
        assert verdict_of(dane_policy(record), LEAF, MIDDLE, CA) == (True, "")
        assert verdict_of(dane_policy(record), OTHER, MIDDLE, CA) == (False, "certificate-host-mismatch")
        assert verdict_of(dane_policy(record, names=("other.example.test",)), OTHER, MIDDLE, CA) == (True, "")
        assert verdict_of(dane_policy(record), EXPIRED, MIDDLE, CA) == (False, "certificate-expired")

    def test_trust_anchor_whose_chain_does_not_lead_there(self) -> None:
        assert verdict_of(dane_policy(tlsa(2, CA.certificate)), SELF, CA) == (False, "certificate-not-trusted")

    def test_whole_trust_anchor_of_the_dns_need_not_be_sent(self) -> None:
        assert verdict_of(dane_policy(tlsa(2, MIDDLE.certificate, 0, 0)), LEAF) == (True, "")

    def test_one_match_is_enough(self) -> None:
        assert verdict_of(dane_policy(tlsa(3, OTHER.certificate), tlsa(3, LEAF.certificate)), LEAF) == (True, "")


class TestUsable:
    def test_pkix_usages_are_not(self) -> None:
        assert dane.usable([tlsa(0, LEAF.certificate), tlsa(1, LEAF.certificate)]) == ()

    @pytest.mark.parametrize(
        "record",
        [
            TlsaRecord(3, 1, 1, bytes(31)),
            TlsaRecord(3, 1, 2, bytes(32)),
            TlsaRecord(3, 2, 1, bytes(32)),
            TlsaRecord(3, 1, 3, bytes(32)),
            TlsaRecord(4, 1, 1, bytes(32)),
            TlsaRecord(3, 0, 0, b"no certificate"),
            TlsaRecord(3, 1, 0, b"no key"),
        ],
    )
    def test_broken_ones_are_not(self, record: TlsaRecord) -> None:
        assert dane.usable([record]) == ()

    def test_the_stronger_digest_counts(self) -> None:
        strong, weak = tlsa(3, LEAF.certificate, 1, 2), tlsa(3, LEAF.certificate, 1, 1)
        assert dane.usable([weak, strong]) == (strong,)
        assert dane.usable([weak, tlsa(3, LEAF.certificate, 0, 2)]) == (weak, tlsa(3, LEAF.certificate, 0, 2))

    @given(st.builds(TlsaRecord, st.integers(0, 4), st.integers(0, 3), st.integers(0, 3), st.binary(max_size=80)))
    def test_any_record_is_judged(self, record: TlsaRecord) -> None:
        assert dane.usable([record]) in {(), (record,)}
        assert not dane.matches(record, LEAF.certificate)


class TestTrustedCas:
    @pytest.fixture
    def tls(self, tmp_path: Path) -> ClientTls:
        path = tmp_path / "ca.pem"
        path.write_bytes(CA.certificate.public_bytes(Encoding.PEM))
        return ClientTls(TlsClientSettings(ca_file=str(path)))

    def test_verify(self, tls: ClientTls) -> None:
        policy = HostTlsPolicy(HOST, TlsLevel.VERIFY, "configured")
        assert verdict_of(policy, LEAF, MIDDLE, tls=tls) == (True, "")
        assert verdict_of(policy, LEAF, tls=tls) == (False, "certificate-not-trusted")
        assert verdict_of(policy, SELF, tls=tls) == (False, "certificate-not-trusted")
        assert verdict_of(policy, OTHER, MIDDLE, tls=tls) == (False, "certificate-host-mismatch")
        assert verdict_of(policy, EXPIRED, MIDDLE, tls=tls) == (False, "certificate-expired")

    def test_configured_names_stand_instead_of_the_host(self, tls: ClientTls) -> None:
        policy = HostTlsPolicy(HOST, TlsLevel.VERIFY, "configured", names=("other.example.test",))
        assert verdict_of(policy, OTHER, MIDDLE, tls=tls) == (True, "")
        assert verdict_of(policy, LEAF, MIDDLE, tls=tls) == (False, "certificate-host-mismatch")

    @pytest.mark.parametrize(
        "host", ["192.0.2.1", "[192.0.2.1]", "2001:db8::1", "[IPv6:2001:DB8:0::1]", "[ipv6:2001:db8::1]"]
    )
    def test_an_address_is_compared_with_addresses_alone(self, tls: ClientTls, host: str) -> None:
        policy = HostTlsPolicy(host, TlsLevel.VERIFY, "configured", names=(host,))
        assert verdict_of(policy, ADDRESSED, MIDDLE, tls=tls) == (True, "")
        assert verdict_of(policy, LEAF, MIDDLE, tls=tls) == (False, "certificate-host-mismatch")
        named = issue_for_host(host.strip("[]"), MIDDLE)
        assert verdict_of(policy, named, MIDDLE, tls=tls) == (False, "certificate-host-mismatch")

    def test_another_address_does_not_do(self, tls: ClientTls) -> None:
        policy = HostTlsPolicy("192.0.2.2", TlsLevel.VERIFY, "configured")
        assert verdict_of(policy, ADDRESSED, MIDDLE, tls=tls) == (False, "certificate-host-mismatch")

    def test_what_is_only_tested_is_reported_and_flows(self, tls: ClientTls) -> None:
        policy = HostTlsPolicy(HOST, TlsLevel.VERIFY, "mta-sts testing", is_testing=True)
        assert verdict_of(policy, SELF, tls=tls) == (True, "certificate-not-trusted")
        assert not policy.is_verified

    def test_a_file_without_certificates(self, tmp_path: Path) -> None:
        with pytest.raises(TlsError, match=r"none\.pem"):
            ClientTls(TlsClientSettings(ca_file=str(tmp_path / "none.pem")))
        with pytest.raises(TlsError, match="ciphers"):
            ClientTls(TlsClientSettings(ciphers="nothing"))


class TestAnyCertificate:
    @pytest.mark.parametrize("level", [TlsLevel.OPPORTUNISTIC, TlsLevel.ENCRYPT])
    def test_is_good_enough(self, level: TlsLevel) -> None:
        assert verdict_of(HostTlsPolicy(HOST, level, "default"), SELF) == (True, "")

    def test_sends_the_name_but_no_address(self) -> None:
        tls = ClientTls()
        named = Handshake(tls, HostTlsPolicy(HOST, TlsLevel.OPPORTUNISTIC, "default"), server_context(SELF))
        assert named.server.get_servername() == HOST.encode()
        for literal in ("192.0.2.1", "2001:db8::1", "[192.0.2.1]"):
            bare = Handshake(tls, HostTlsPolicy(literal, TlsLevel.OPPORTUNISTIC, "default"), server_context(SELF))
            assert bare.server.get_servername() is None

    def test_sessions_are_resumed_but_never_verified_ones(self) -> None:
        tls, server = ClientTls(), server_context(SELF)
        policy = HostTlsPolicy(HOST, TlsLevel.OPPORTUNISTIC, "default")
        for is_resumed in (False, True):
            connection = Handshake(tls, policy, server)
            assert is_reused(connection) is is_resumed
            connection.client.shutdown()
        verified = dane_policy(tlsa(3, SELF.certificate))
        for _ in range(2):
            connection = Handshake(tls, verified, server)
            assert not is_reused(connection)
            connection.client.shutdown()

    def test_what_may_go_on_without_tls(self) -> None:
        tls = ClientTls()
        opportunistic, encrypt = (
            HostTlsPolicy(HOST, level, "default") for level in (TlsLevel.OPPORTUNISTIC, TlsLevel.ENCRYPT)
        )
        assert tls.not_offered(opportunistic).is_ok
        assert not tls.not_offered(encrypt).is_ok
        assert tls.not_offered(encrypt).result_type == "starttls-not-supported"
        assert tls.failed_handshake(opportunistic).is_ok
        assert tls.failed_handshake(encrypt).result_type == "validation-failure"


def test_dane_that_is_demanded_and_not_there() -> None:
    assert verdict_of(dane_policy(), SELF) == (False, "dane-required")
