"""A real OpenLDAP server on loopback, from a temporary folder, as a plain process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from attrs import define, field

from tests.ports import lasting_port

WAIT_SECONDS = 20
BASE = "dc=example,dc=test"
ADMIN = f"cn=admin,{BASE}"
ADMIN_PASSWORD = "admin's own"
SERVICE = f"cn=mailsrv,{BASE}"
SERVICE_PASSWORD = "service's own"

# Attributes that slapd has not: the usual mail schema, and the shapes of Active Directory and FreeIPA.
SCHEMA = """\
attributetype ( 1.3.6.1.4.1.55555.1.1 NAME 'mailAlternateAddress' EQUALITY caseIgnoreMatch
    SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.55555.1.2 NAME 'mailQuota' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.3 NAME 'mailForwardingAddress' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.55555.1.4 NAME 'sAMAccountName' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.5 NAME 'userPrincipalName' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.6 NAME 'proxyAddresses' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.55555.1.7 NAME 'userAccountControl' EQUALITY integerMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.8 NAME 'accountExpires' EQUALITY integerMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.9 NAME 'nsAccountLock' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.10 NAME 'krbPrincipalName' EQUALITY caseExactMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.55555.1.11 NAME 'krbPrincipalExpiration' EQUALITY generalizedTimeMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.24 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.12 NAME 'authOrig' EQUALITY distinguishedNameMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )
attributetype ( 1.3.6.1.4.1.55555.1.13 NAME 'dLMemSubmitPerms' EQUALITY distinguishedNameMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )
attributetype ( 1.3.6.1.4.1.55555.1.14 NAME 'unauthOrig' EQUALITY distinguishedNameMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )
attributetype ( 1.3.6.1.4.1.55555.1.15 NAME 'dLMemRejectPerms' EQUALITY distinguishedNameMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )
attributetype ( 1.3.6.1.4.1.55555.1.16 NAME 'msExchModeratedByLink' EQUALITY distinguishedNameMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )
attributetype ( 1.3.6.1.4.1.55555.1.17 NAME 'publicDelegates' EQUALITY distinguishedNameMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )
attributetype ( 1.3.6.1.4.1.55555.1.18 NAME 'msExchDelegateListLink' EQUALITY distinguishedNameMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )
attributetype ( 1.3.6.1.4.1.55555.1.19 NAME 'altRecipient' EQUALITY distinguishedNameMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )
attributetype ( 1.3.6.1.4.1.55555.1.20 NAME 'maySendAs' EQUALITY distinguishedNameMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )
attributetype ( 1.3.6.1.4.1.55555.1.21 NAME 'msExchRequireAuthToSendTo' EQUALITY booleanMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.7 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.22 NAME 'msExchEnableModeration' EQUALITY booleanMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.7 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.23 NAME 'deliverAndRedirect' EQUALITY booleanMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.7 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.24 NAME 'targetAddress' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.55555.1.25 NAME 'accessPolicy' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.55555.1.26 NAME 'mgrpAllowedBroadcaster' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.55555.1.27 NAME 'mgrpModerator' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.55555.1.28 NAME 'listAllowedUser' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.55555.1.29 NAME 'listModerator' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.55555.1.30 NAME 'lockoutTime' EQUALITY integerMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.31 NAME 'pwdLastSet' EQUALITY integerMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.32 NAME 'msDS-User-Account-Control-Computed' EQUALITY integerMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.33 NAME 'primaryGroupID' EQUALITY integerMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.34 NAME 'mDBOverHardQuotaLimit' EQUALITY integerMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.35 NAME 'objectSid' EQUALITY octetStringMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.36 NAME 'tokenGroups' EQUALITY octetStringMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 )
attributetype ( 1.3.6.1.4.1.55555.1.37 NAME 'uPNSuffixes' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.55555.1.38 NAME 'dnsRoot' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.55555.1.39 NAME 'nETBIOSName' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.40 NAME 'domainName' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.55555.1.41 NAME 'domainAliasName' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.55555.1.42 NAME 'otherNameOf' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
objectclass ( 1.3.6.1.4.1.55555.2.1 NAME 'mailUser' SUP top AUXILIARY
    MAY ( mail $ mailAlternateAddress $ mailQuota $ mailForwardingAddress $ accessPolicy $ mgrpAllowedBroadcaster
    $ mgrpModerator $ listAllowedUser $ listModerator $ maySendAs ) )
objectclass ( 1.3.6.1.4.1.55555.2.2 NAME 'user' SUP inetOrgPerson STRUCTURAL
    MAY ( sAMAccountName $ userPrincipalName $ proxyAddresses $ userAccountControl $ accountExpires $ publicDelegates
    $ msExchDelegateListLink $ altRecipient $ deliverAndRedirect $ targetAddress $ lockoutTime $ pwdLastSet
    $ msDS-User-Account-Control-Computed $ primaryGroupID $ objectSid $ tokenGroups $ mDBOverHardQuotaLimit ) )
objectclass ( 1.3.6.1.4.1.55555.2.3 NAME 'group' SUP top STRUCTURAL
    MUST cn MAY ( member $ mail $ proxyAddresses $ sAMAccountName $ description $ authOrig $ dLMemSubmitPerms
    $ unauthOrig $ dLMemRejectPerms $ msExchModeratedByLink $ msExchRequireAuthToSendTo $ msExchEnableModeration
    $ objectSid ) )
objectclass ( 1.3.6.1.4.1.55555.2.4 NAME 'ipaPerson' SUP top AUXILIARY
    MAY ( nsAccountLock $ krbPrincipalName $ krbPrincipalExpiration $ mailAlternateAddress ) )
objectclass ( 1.3.6.1.4.1.55555.2.5 NAME 'ipaUserGroup' SUP top AUXILIARY MAY ( mail ) )
objectclass ( 1.3.6.1.4.1.55555.2.6 NAME 'nsContainer' SUP top STRUCTURAL MUST cn )
objectclass ( 1.3.6.1.4.1.55555.2.7 NAME 'crossRefContainer' SUP top STRUCTURAL MUST cn MAY uPNSuffixes )
objectclass ( 1.3.6.1.4.1.55555.2.8 NAME 'crossRef' SUP top STRUCTURAL MUST cn MAY ( dnsRoot $ nETBIOSName ) )
objectclass ( 1.3.6.1.4.1.55555.2.9 NAME 'mailDomain' SUP top STRUCTURAL
    MUST domainName MAY ( domainAliasName $ otherNameOf ) )
"""

ROOT_ENTRIES = f"""\
dn: {BASE}
objectClass: organization
objectClass: dcObject
o: Example
dc: example

dn: ou=people,{BASE}
objectClass: organizationalUnit
ou: people

dn: ou=groups,{BASE}
objectClass: organizationalUnit
ou: groups

dn: {SERVICE}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: mailsrv
userPassword: {SERVICE_PASSWORD}
"""


def program(name: str) -> str:
    """Where it is; servers are not in everybody's PATH."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    assert found, f"{name} is not installed (tools/test.sh does it)"
    return found


def person(uid: str, password: str = "", *, extra: str = "", mail: str | None = None) -> str:
    """An inetOrgPerson as LDIF."""
    address = f"{uid}@example.test" if mail is None else mail
    return (
        f"dn: uid={uid},ou=people,{BASE}\nobjectClass: inetOrgPerson\nobjectClass: mailUser\n"
        f"uid: {uid}\ncn: {uid.title()} Example\nsn: Example\n"
        + (f"mail: {address}\n" if address else "")
        + (f"userPassword: {password}\n" if password else "")
        + extra
    )


@define(eq=False)
class Slapd:
    """One server. Plain and StartTLS on ``port``, LDAPS on ``tls_port``, with the certificate given."""

    folder: Path
    certificate: Path
    key: Path
    entries: tuple[str, ...] = ()
    port: int = field(factory=lasting_port)
    tls_port: int = field(factory=lasting_port)
    directives: str = ""
    readable: str = ""
    """A rule on access to passwords in front of ours."""
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Slapd:
        self.load()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def uri(self) -> str:
        return f"ldap://localhost:{self.port}"

    @property
    def tls_uri(self) -> str:
        return f"ldaps://localhost:{self.tls_port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def load(self) -> None:
        """Write the configuration and the entries."""
        data = self.folder / "data"
        data.mkdir(parents=True)
        (self.folder / "own.schema").write_text(SCHEMA)
        (self.folder / "slapd.conf").write_text(
            "".join(
                f"include /etc/ldap/schema/{name}.schema\n"
                for name in ("core", "cosine", "inetorgperson", "nis", "misc")
            )
            + f"include {self.folder}/own.schema\n"
            "modulepath /usr/lib/ldap\nmoduleload back_mdb\nmoduleload memberof\n"
            f"pidfile {self.folder}/slapd.pid\nargsfile {self.folder}/slapd.args\n"
            f"TLSCACertificateFile {self.certificate}\nTLSCertificateFile {self.certificate}\n"
            f"TLSCertificateKeyFile {self.key}\nTLSVerifyClient try\n"
            # A bind with a name and no password is let through here: it is we who must refuse it.
            "allow bind_anon_dn\nsizelimit unlimited\nthreads 4\n"
            'authz-regexp "^cn=ldap[.]example[.]test$" "' + SERVICE + '"\n'
            "database mdb\nmaxsize 104857600\n"
            f'suffix "{BASE}"\nrootdn "{ADMIN}"\nrootpw "{ADMIN_PASSWORD}"\ndirectory {data}\n'
            "index objectClass,uid,mail,mailAlternateAddress,mailLocalAddress,member,entryUUID eq\n"
            "index sAMAccountName,proxyAddresses,userPrincipalName eq\n"
            + self.readable
            + f'access to attrs=userPassword by dn.exact="{ADMIN}" write by anonymous auth by * none\n'
            f'access to * by dn.exact="{SERVICE}" read by anonymous auth by * none\n'
            "overlay memberof\nmemberof-group-oc groupOfNames\n" + self.directives
        )
        ldif = self.folder / "entries.ldif"
        ldif.write_text("\n".join((ROOT_ENTRIES, *self.entries)) + "\n")
        done = subprocess.run(
            [program("slapadd"), "-q", "-f", self.folder / "slapd.conf", "-l", ldif],
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Start and wait until it answers."""
        with (self.folder / "slapd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    program("slapd"),
                    "-h",
                    f"ldap://127.0.0.1:{self.port} ldaps://127.0.0.1:{self.tls_port}",
                    "-f",
                    self.folder / "slapd.conf",
                    "-d",
                    "0",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.tls_port), 1).close()
            except OSError:
                assert self._process.poll() is None, (self.folder / "slapd.log").read_text()
                time.sleep(0.02)
            else:
                return
        raise AssertionError("slapd does not answer")

    def kill(self) -> None:
        """At once; it may be stopped."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """It hangs: connections are made, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        # Its threads stop one after the other; when the last has, its parent is told.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
