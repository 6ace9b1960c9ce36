"""Real DNS servers on loopback: Knot with signed zones, and Unbound, which validates, in front of it.

Zones: ``signed.test`` is signed; ``bogus.test`` is signed with a key that is not the trusted one;
``plain.test`` is not signed. The programs run from a folder, on ports of their own, and end with us.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import dns.dnssec
import dns.dnssectypes
import dns.message
import dns.name
import dns.query
import dns.rdataset
import dns.rdatatype
import dns.zone
from attrs import define, field
from cryptography.hazmat.primitives.asymmetric import ec

from tests.ports import lasting_port

WAIT_SECONDS = 20

SIGNED = """\
@ 300 IN SOA ns hostmaster 1 3600 600 86400 60
@ 300 IN NS ns
ns 300 IN A 127.0.0.1
@ 300 IN MX 10 mx
@ 300 IN TXT "{long_text}"
mx 300 IN A 127.0.0.1
mx 300 IN AAAA ::1
_25._tcp.mx 300 IN TLSA {tlsa}
unusable 300 IN MX 10 pkix
pkix 300 IN A 127.0.0.1
_25._tcp.pkix 300 IN TLSA 1 1 1 {zeros}
outside 300 IN MX 10 mx.plain.test.
alias 300 IN CNAME signed.test.
away 300 IN CNAME plain.test.
null 300 IN MX 0 .
{many}
{hundred}
"""
PLAIN = """\
@ 300 IN SOA ns hostmaster 1 3600 600 86400 60
@ 300 IN NS ns
ns 300 IN A 127.0.0.1
@ 300 IN MX 10 mx
mx 300 IN A 127.0.0.1
_25._tcp.mx 300 IN TLSA {tlsa}
"""


def program(name: str) -> str:
    """Where it is; servers are not in everybody's PATH."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    assert found, f"{name} is not installed (tools/test.sh does it)"
    return found


def sign(name: str, text: str) -> tuple[str, str]:
    """The zone with signatures and NSEC records, and its trust anchor."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = dns.dnssec.make_dnskey(key.public_key(), dns.dnssectypes.Algorithm.ECDSAP256SHA256, flags=257)
    zone = dns.zone.from_text(text, origin=name, relativize=False)
    dns.dnssec.sign_zone(zone, keys=[(key, public)], dnskey_ttl=300, lifetime=86_400, add_dnskey=True)
    return zone.to_text(relativize=False), f"{name}. IN DNSKEY {public.to_text()}"


@define(eq=False)
class DnsServers:
    """Both programs; ``tlsa`` is what ``_25._tcp.mx`` of the zones has (as in a zone file).

    ``more`` has further lines for zones, by name.
    """

    folder: Path
    tlsa: str
    more: Mapping[str, str] = field(factory=dict)
    authority_port: int = field(factory=lasting_port)
    resolver_port: int = field(factory=lasting_port)
    _processes: list[subprocess.Popen[bytes]] = field(factory=list)

    def __enter__(self) -> DnsServers:
        anchors = self._write_zones()
        self._write_configurations(anchors)
        try:
            self._start("knotd", "-c", self.folder / "knot.conf")
            self._start("unbound", "-d", "-p", "-c", self.folder / "unbound.conf")
            for port, zone in ((self.authority_port, "signed.test"), (self.resolver_port, "plain.test")):
                self._wait_for(port, zone)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log_text(self) -> str:
        """What both said."""
        return "".join(path.read_text(errors="replace") for path in self.folder.glob("*.log"))

    def _write_zones(self) -> list[str]:
        values = {
            "tlsa": self.tlsa,
            "zeros": "00" * 32,
            "long_text": '" "'.join("x" * 250 for _ in range(12)),
            "many": "\n".join(f"many 300 IN MX {number} mx{number}" for number in range(150)),
            "hundred": "\n".join(f"hundred 300 IN MX {number} mx{number}" for number in range(100)),
        }
        plain = PLAIN.format(**values) + self.more.get("plain.test", "")
        (self.folder / "plain.test.zone").write_text(f"$ORIGIN plain.test.\n{plain}")
        anchors = []
        for name in ("signed.test", "bogus.test"):
            text, anchor = sign(name, SIGNED.format(**values) + self.more.get(name, ""))
            (self.folder / f"{name}.zone").write_text(text + "\n")
            if name == "bogus.test":
                # Another key is the trusted one.
                anchor = sign(name, PLAIN.format(**values))[1]
            anchors.append(anchor)
        return anchors

    def _write_configurations(self, anchors: Sequence[str]) -> None:
        zones = ("signed.test", "bogus.test", "plain.test")
        (self.folder / "knot.conf").write_text(
            f"server:\n    listen: 127.0.0.1@{self.authority_port}\n    rundir: {self.folder}\n"
            f"    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n"
            f"database:\n    storage: {self.folder}/db\n    journal-db-max-size: 10M\n    timer-db-max-size: 10M\n"
            f"    kasp-db-max-size: 10M\n"
            f"log:\n  - target: {self.folder}/knot.log\n    any: info\n"
            f"template:\n  - id: default\n    storage: {self.folder}\n    journal-content: none\n"
            "    zonefile-sync: -1\n"
            "zone:\n" + "".join(f"  - domain: {name}\n    file: {name}.zone\n" for name in zones)
        )
        (self.folder / "unbound.conf").write_text(
            "server:\n"
            f'  directory: "{self.folder}"\n  chroot: ""\n  username: ""\n  pidfile: ""\n'
            f"  interface: 127.0.0.1\n  port: {self.resolver_port}\n  access-control: 127.0.0.0/8 allow\n"
            f'  do-daemonize: no\n  use-syslog: no\n  logfile: "{self.folder}/unbound.log"\n  val-log-level: 1\n'
            "  do-not-query-localhost: no\n  do-ip6: no\n  num-threads: 1\n  so-rcvbuf: 0\n"
            '  module-config: "validator iterator"\n  local-zone: "test." nodefault\n'
            "  outgoing-range: 64\n  msg-cache-size: 1m\n  rrset-cache-size: 1m\n"
            + "".join(f'  trust-anchor: "{anchor}"\n' for anchor in anchors)
            + "".join(f'stub-zone:\n  name: "{name}"\n  stub-addr: 127.0.0.1@{self.authority_port}\n' for name in zones)
            + "remote-control:\n  control-enable: no\n"
        )
        (self.folder / "db").mkdir(exist_ok=True)

    def _start(self, name: str, *words: object) -> None:
        with (self.folder / f"{name}-output.log").open("wb") as output:
            self._processes.append(
                subprocess.Popen(
                    [program(name), *(str(word) for word in words)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                )
            )

    def _wait_for(self, port: int, zone: str) -> None:
        question = dns.message.make_query(zone, dns.rdatatype.SOA)
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            assert all(process.poll() is None for process in self._processes), self.log_text()
            try:
                if dns.query.udp(question, "127.0.0.1", timeout=0.5, port=port).answer:
                    return
            except Exception:  # not there yet, in one of many ways
                time.sleep(0.05)
        raise AssertionError(f"no answer on port {port}:\n{self.log_text()}")
