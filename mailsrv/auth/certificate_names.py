"""Whose account a client's certificate is for: the names its issuer vouches for, by the settings' choice of kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cryptography import x509
from cryptography.x509.oid import NameOID

from mailsrv.address import Address
from mailsrv.auth.names import parse_user_name
from mailsrv.auth.settings import CertificateName

_SMTP_UTF8_MAILBOX = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9")  # RFC 9598 3
_USER_PRINCIPAL_NAME = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
_UTF8_STRING = 0x0C


def certificate_accounts(
    certificate: x509.Certificate, kinds: Sequence[CertificateName], default_domain: str
) -> tuple[Address, ...]:
    """The accounts it names, each once: by the first of ``kinds`` that it has any name of. Most have one."""
    for kind in kinds:
        try:
            names = {parse_user_name(name, default_domain): None for name in NAME_KINDS[kind](certificate)}
        except ValueError:
            # Extensions that cannot be read name nobody.
            return ()
        found = tuple(name for name in names if name is not None)
        if found:
            return found
    return ()


def _mailboxes(certificate: x509.Certificate) -> Iterator[str]:
    """rfc822Name, and SmtpUTF8Mailbox for what that cannot hold (RFC 9598 3: never for an ASCII local part)."""
    alternatives = _alternatives(certificate)
    if alternatives is not None:
        yield from (name for name in alternatives.get_values_for_type(x509.RFC822Name) if "@" in name)
        for name in _other_names(alternatives, _SMTP_UTF8_MAILBOX):
            if not name.rpartition("@")[0].isascii():
                yield name


def _principal_names(certificate: x509.Certificate) -> Iterator[str]:
    alternatives = _alternatives(certificate)
    if alternatives is not None:
        yield from _other_names(alternatives, _USER_PRINCIPAL_NAME)


def _subject(kind: x509.ObjectIdentifier) -> Callable[[x509.Certificate], Iterator[str]]:
    def names(certificate: x509.Certificate) -> Iterator[str]:
        for attribute in certificate.subject.get_attributes_for_oid(kind):
            if isinstance(attribute.value, str):
                yield attribute.value

    return names


NAME_KINDS: dict[CertificateName, Callable[[x509.Certificate], Iterator[str]]] = {
    CertificateName.EMAIL: _mailboxes,
    CertificateName.UPN: _principal_names,
    CertificateName.SUBJECT_EMAIL: _subject(NameOID.EMAIL_ADDRESS),
    CertificateName.SUBJECT_UID: _subject(NameOID.USER_ID),
    CertificateName.SUBJECT_CN: _subject(NameOID.COMMON_NAME),
}


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _other_names(alternatives: x509.SubjectAlternativeName, kind: x509.ObjectIdentifier) -> Iterator[str]:
    for other in alternatives.get_values_for_type(x509.OtherName):
        if other.type_id == kind:
            name = decode_utf8_string(other.value)
            if name is not None:
                yield name


def decode_utf8_string(octets: bytes) -> str | None:
    """A UTF8String in DER (X.690 8.14, 10.1); None for anything else, and for what is longer than any name."""
    if len(octets) < 2 or octets[0] != _UTF8_STRING:
        return None
    size, begin = octets[1], 2
    if size == 0x81:
        # The long form, for lengths the short one cannot say.
        if len(octets) < 3 or octets[2] < 0x80:
            return None
        size, begin = octets[2], 3
    elif size == 0x82:
        size, begin = int.from_bytes(octets[2:4], "big"), 4
        if len(octets) < 4 or size < 0x100:
            return None
    elif size >= 0x80:
        return None
    if len(octets) != begin + size:
        return None
    try:
        return octets[begin:].decode("utf-8")
    except UnicodeDecodeError:
        return None
