"""EXTERNAL as the checker decides about it: whose certificate it is, and what the others are told."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.task import Clock

from mailsrv.address import Address
from mailsrv.auth.access import AccessRules
from mailsrv.auth.certificate_names import certificate_accounts, decode_utf8_string
from mailsrv.auth.external_checker import ExternalChecker
from mailsrv.auth.offer import MechanismOffer
from mailsrv.auth.rules import LoginRules
from mailsrv.auth.settings import AuthSettings, CertificateName
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.directory.passwd_file import PasswdFile
from mailsrv.directory.passwords.hashing import HashingPool
from mailsrv.directory.settings import PasswordSettings
from mailsrv.directory.watched_file import FileWatching
from mailsrv.errors import Unavailable
from mailsrv.interfaces.account import InvalidCredentials, SaslCredentials
from mailsrv.sasl import SaslError
from tests.tls.authority import SMTP_UTF8_MAILBOX, USER_PRINCIPAL_NAME, email, issue, other_name

USERS = """\
alice@example.test:{PLAIN}sesame
bob@example.test:{PLAIN}sesame
blocked@example.test:{PLAIN}sesame::::::nologin=
elsewhere@example.test:{PLAIN}sesame::::::allow_nets=198.51.100.0/24
двое@example.test:{PLAIN}sesame
"""
CA = issue(None, is_ca=True)
ALICE = issue(CA, email("Alice@Example.Test")).certificate
BOTH = issue(CA, email("alice@example.test"), email("bob@example.test")).certificate


class Case:
    def __init__(self, folder: Any, **settings: Any) -> None:
        self.clock = Clock()
        path = folder / "passwd"
        path.write_text(USERS)
        hashing = HashingPool(PasswordSettings(), reactor=None, run_in_thread=maybeDeferred)  # type: ignore[arg-type]
        self.directory = PasswdFile(str(path), FileWatching(self.clock, maybeDeferred), hashing=hashing)
        self.settings = AuthSettings(default_domain="example.test", **settings)
        self.throttle = LoginThrottle(self.settings, clock=self.clock)
        self.offer = MechanismOffer(self.settings, self.directory)
        self.checker = ExternalChecker(
            self.directory,
            self.settings,
            LoginRules(self.settings, self.clock, AccessRules()),
            throttle=self.throttle,
        )

    def log_in(self, certificate: x509.Certificate | None, authzid: bytes = b"", address: str = "192.0.2.1") -> Any:
        """The account, or the error; waits out the delay."""

        async def nobody_asks(_challenge: bytes) -> bytes:
            raise AssertionError("EXTERNAL has no challenge")

        credentials = SaslCredentials("EXTERNAL", authzid, nobody_asks, address, "imap", certificate=certificate)
        answers: list[Any] = []
        Deferred.fromCoroutine(self.checker(credentials)).addBoth(answers.append)
        self.waited = 0
        while not answers and self.waited < 30:
            self.clock.advance(1)
            self.waited += 1
        answer = getattr(answers[0], "value", answers[0])
        return answer if isinstance(answer, Exception) else str(answer.user.address)


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


def test_the_named_account_is_let_in_at_once(case):
    assert case.log_in(ALICE) == "alice@example.test"
    assert case.waited == 0
    for authzid in (b"alice", b"ALICE@example.test"):
        assert case.log_in(ALICE, authzid) == "alice@example.test"


def test_of_several_accounts_the_client_says_which(case):
    assert case.log_in(BOTH, b"bob") == "bob@example.test"
    assert case.log_in(BOTH, b"alice") == "alice@example.test"
    assert isinstance(case.log_in(BOTH), InvalidCredentials)


def test_r_auth_6_all_failures_are_alike(case):
    failures = [case.log_in(None), case.log_in(issue(CA).certificate)]
    failures += [case.log_in(ALICE, authzid) for authzid in (b"bob", b"nobody", b"no such name@")]
    failures += [
        case.log_in(issue(CA, email(f"{name}@example.test")).certificate) for name in ("nobody", "blocked", "elsewhere")
    ]
    assert {type(error) for error in failures} == {InvalidCredentials}
    assert len({str(error.text) for error in failures}) == 1


def test_r_auth_7_a_directory_that_is_down_is_no_wrong_certificate(case):
    case.directory.find_user = lambda _address: fail(Unavailable())
    assert isinstance(case.log_in(ALICE), Unavailable)
    assert case.waited == 0


def test_where_a_user_may_log_in_from_holds(case):
    assert case.log_in(issue(CA, email("elsewhere@example.test")).certificate, address="198.51.100.7") == (
        "elsewhere@example.test"
    )


def test_r_nat_1_the_same_certificate_counts_once_and_a_good_one_is_never_refused(tmp_path):
    case = Case(tmp_path, failures_per_user=3, failures_per_network=3)
    nobody = issue(CA, email("nobody@example.test")).certificate
    for _ in range(6):
        assert isinstance(case.log_in(nobody), InvalidCredentials)
    assert case.waited == 2
    for name in ("a", "b", "c", "d"):
        case.log_in(issue(CA, email(f"{name}@example.test")).certificate)
    assert case.waited > 2
    assert case.log_in(ALICE) == "alice@example.test"


@pytest.mark.parametrize("authzid", [b"\xff", b"al\0ice", b"alice\r\n", b"a" * 1025, b"\xc2\x80"])
def test_r_ctl_1_what_no_identity_is_ends_the_exchange(case, authzid):
    assert isinstance(case.log_in(ALICE, authzid), SaslError)


@given(st.binary(max_size=40))
def test_any_identity_ends_in_an_answer(tmp_path_factory, octets):
    answer = Case(tmp_path_factory.mktemp("any")).log_in(ALICE, octets)
    assert answer == "alice@example.test" or isinstance(answer, SaslError | InvalidCredentials)


def test_it_is_offered_under_tls_to_certificates_with_an_account(case):
    assert case.offer(True, ALICE)[0] == "EXTERNAL"
    assert "EXTERNAL" not in case.offer(True, issue(CA).certificate)
    assert "EXTERNAL" not in case.offer(True)
    assert "EXTERNAL" not in case.offer(False, ALICE)


# --- the names in a certificate


def accounts(certificate: x509.Certificate, *kinds: CertificateName) -> list[str]:
    return [str(one) for one in certificate_accounts(certificate, kinds, "example.test")]


def subject(kind: x509.ObjectIdentifier, text: str) -> x509.Certificate:
    return issue(CA, common_name="Alice Example", subject=(x509.NameAttribute(kind, text),)).certificate


def test_each_kind_of_name():
    assert accounts(ALICE, CertificateName.EMAIL) == ["alice@example.test"]
    upn = issue(CA, other_name(USER_PRINCIPAL_NAME, "Alice@corp.test")).certificate
    assert accounts(upn, CertificateName.UPN) == ["alice@corp.test"]
    assert accounts(upn, CertificateName.EMAIL) == []
    assert accounts(subject(NameOID.EMAIL_ADDRESS, "al@corp.test"), CertificateName.SUBJECT_EMAIL) == ["al@corp.test"]
    assert accounts(subject(NameOID.USER_ID, "alice"), CertificateName.SUBJECT_UID) == ["alice@example.test"]
    assert accounts(issue(CA, common_name="alice").certificate, CertificateName.SUBJECT_CN) == ["alice@example.test"]
    # What is no user name.
    assert accounts(subject(NameOID.USER_ID, "alice"), CertificateName.SUBJECT_CN) == []


def test_the_first_kind_that_is_there_counts():
    both = issue(CA, email("alice@example.test"), other_name(USER_PRINCIPAL_NAME, "bob@example.test")).certificate
    assert accounts(both, CertificateName.UPN, CertificateName.EMAIL) == ["bob@example.test"]
    assert accounts(both, CertificateName.SUBJECT_UID, CertificateName.EMAIL) == ["alice@example.test"]


def test_internationalized_mailboxes(case):
    smtp_utf8 = issue(CA, other_name(SMTP_UTF8_MAILBOX, "Двое@example.test")).certificate
    assert accounts(smtp_utf8, CertificateName.EMAIL) == ["двое@example.test"]
    assert case.log_in(smtp_utf8) == "двое@example.test"
    # RFC 9598 3: an ASCII local part stands in an rfc822Name, which constraints on names are about.
    ascii_only = issue(CA, other_name(SMTP_UTF8_MAILBOX, "alice@example.test")).certificate
    assert accounts(ascii_only, CertificateName.EMAIL) == []


@pytest.mark.parametrize(
    "name", ["alice", "@example.test", "al ice@example.test", "alice@exa mple", "*@example.test\0"]
)
def test_r_inj_3_what_is_no_address_names_nobody(name):
    unparsed = x509.RFC822Name._init_without_validation(name)
    assert accounts(issue(CA, unparsed).certificate, CertificateName.EMAIL) == []


@given(st.text(max_size=400))
def test_utf8_strings_are_read_as_written(text):
    octets = text.encode("utf-8", "replace")
    size = len(octets)
    length = bytes((size,)) if size < 128 else bytes((0x81, size)) if size < 256 else bytes((0x82, *divmod(size, 256)))
    assert decode_utf8_string(b"\x0c" + length + octets) == octets.decode()


@given(st.binary(max_size=300))
def test_any_octets_are_a_text_or_none(octets):
    for candidate in (octets, b"\x0c" + octets, b"\x0c\x81" + octets, b"\x0c\x82" + octets):
        assert isinstance(decode_utf8_string(candidate), str | None)


@pytest.mark.parametrize("octets", [b"\x0c\x81\x01a", b"\x0c\x82\x00\x80" + b"a" * 128, b"\x0c\x80", b"\x0c\x02a"])
def test_lengths_have_one_way_to_be_written(octets):
    assert decode_utf8_string(octets) is None


def test_an_address_is_compared_as_one():
    assert certificate_accounts(BOTH, (CertificateName.EMAIL,), "") == (
        Address("alice", "example.test"),
        Address("bob", "example.test"),
    )
