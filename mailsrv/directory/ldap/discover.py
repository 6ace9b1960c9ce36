"""What a server says about itself to somebody it does not know: the beginning of a configuration. Blocks."""

from __future__ import annotations

import json
import time

from attrs import frozen

from mailsrv.directory.ldap.client import TlsFiles
from mailsrv.directory.ldap.connection import LdapConnection, LdapEntry
from mailsrv.directory.ldap.search import entry_at
from mailsrv.directory.ldap.servers import LdapServer, parse_server
from mailsrv.directory.ldap.trouble import LdapTrouble

# RFC 4512 5.1, and what vendors add.
_ROOT = (
    "objectClass",
    "namingContexts",
    "defaultNamingContext",
    "vendorName",
    "vendorVersion",
    "supportedCapabilities",
    "supportedControl",
    "supportedExtension",
    "supportedSASLMechanisms",
    "forestFunctionality",
    "dnsHostName",
)
_ACTIVE_DIRECTORY = "1.2.840.113556.1.4.800"
_START_TLS = "1.3.6.1.4.1.1466.20037"
_PAGED_RESULTS = "1.2.840.113556.1.4.319"


@frozen
class Discovery:
    """What was found."""

    uri: str
    preset: str
    why: str
    base: str
    bases: tuple[str, ...]
    tls: str
    """The TLS version, or why there is none."""
    is_encrypted: bool
    has_paged_results: bool
    mechanisms: tuple[str, ...]

    def table(self) -> str:
        """A ``[[directory]]`` to go on with."""
        lines = [
            "[[directory]]",
            'type = "ldap"',
            f"uri = [{_quoted(self.uri)}]",
            f"preset = {_quoted(self.preset)}",
            f"base = {_quoted(self.base)}",
        ]
        if not self.is_encrypted and self.uri.startswith("ldap:"):
            lines.append("#starttls = false                        # passwords would travel readable")
        lines += [
            '#ca_file = "/etc/mailsrv/ldap-ca.pem"    # where the system does not know the authority',
            '#bind_dn = "…"                           # the account that searches are made with',
            '#bind_password_file = "/etc/mailsrv/ldap.secret"',
        ]
        lines.append("#domains = true                           # mail for the domains it lists is delivered here")
        return "\n".join(lines)


def discover(uri: str, *, ca_file: str = "", seconds: float = 10.0) -> Discovery:
    """Ask one server, by TLS where it can. Raises ValueError for what is no URI, and LdapTrouble."""
    deadline = time.monotonic() + seconds
    server = parse_server(uri, starttls=True)
    if server.socket_path:
        server = parse_server(uri, starttls=False)
    connection, refusal = _open(server, ca_file, deadline)
    try:
        tls = refusal or connection.tls_version or "none"
        found = connection.search(entry_at("", _ROOT), deadline)
    finally:
        connection.close()
    if not found:
        raise LdapTrouble("the server shows no root entry (RFC 4512 5.1)")
    return _read(uri, found[0], tls, is_encrypted=not refusal and not server.socket_path)


def _open(server: LdapServer, ca_file: str, deadline: float) -> tuple[LdapConnection, str]:
    if server.socket_path:
        return LdapConnection(server, None, deadline), ""
    context = TlsFiles(ca_file).context()
    try:
        return LdapConnection(server, context, deadline), ""
    except LdapTrouble as error:
        if not server.starttls:
            raise
        # Nothing secret is said here: the root entry is for everybody.
        plain = parse_server(server.uri, starttls=False)
        return LdapConnection(plain, None, deadline), f"none: {error}"


def _read(uri: str, root: LdapEntry, tls: str, *, is_encrypted: bool) -> Discovery:
    bases = root.texts("namingContexts")
    preset, why = _guess(root, bases)
    base = root.first("defaultNamingContext") or next((each for each in bases if each.lower().startswith("dc=")), "")
    base = base or next(iter(bases), "")
    if preset == "freeipa" and base:
        # The compat tree has everybody a second time.
        base = f"cn=accounts,{base}"
    return Discovery(
        uri=uri,
        preset=preset,
        why=why,
        base=base,
        bases=bases,
        tls=tls,
        is_encrypted=is_encrypted,
        has_paged_results=_PAGED_RESULTS in root.texts("supportedControl"),
        mechanisms=root.texts("supportedSASLMechanisms"),
    )


def _guess(root: LdapEntry, bases: tuple[str, ...]) -> tuple[str, str]:
    vendor = root.first("vendorName")
    if _ACTIVE_DIRECTORY in root.texts("supportedCapabilities"):
        if "samba" in vendor.lower():
            return "samba-ad", f"it has Active Directory's capabilities, and the vendor is {vendor}"
        return "active-directory", "it has Active Directory's capabilities"
    if "389 project" in vendor.lower() and "o=ipaca" in bases:
        return "freeipa", "389 Directory Server with the tree of FreeIPA's authority"
    if "389 project" in vendor.lower():
        return "freeipa", "389 Directory Server; FreeIPA is its usual form"
    if "openldaprootdse" in {each.lower() for each in root.texts("objectClass")}:
        return "openldap", "its root entry is OpenLDAP's"
    return "openldap", "nothing speaks for another"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
